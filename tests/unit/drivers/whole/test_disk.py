"""A disk that boots by itself: what its machine is like, what is refused, and what is told of it."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from drivers.libvirt.domain import QEMU_URI, Plan, boots_itself, domain_xml
from drivers.libvirt.whole import disk
from drivers.libvirt.whole.hardware import Hardware, Uefi
from lab.driver import Context
from lab.errors import BadInput, DriverUnavailable, Unsupported
from lab.spec import OWN_IMAGE, Endpoint, Spec
from lab.units import MIB

RAW = (b"\0" * 510 + b"\x55\xaa").ljust(MIB, b"\0")
SPEC = Spec(image=OWN_IMAGE, port=80)


def plan(hardware: Hardware, **changes: object) -> Plan:
    made = Plan(
        name="lab-disk-1",
        uuid=str(uuid.UUID(int=7)),
        machine=hardware.machine,
        accel="tcg",
        spec=SPEC,
        kernel=None,
        initramfs=None,
        command_line="",
        console=Path("/r/console"),
        endpoint=Endpoint("127.0.0.1", 4711),
        disk=Path("/r/root.qcow2"),
        backing=Path("/r/disk/<disk>"),
        backing_format="qcow2",
        hardware=hardware,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def machine_of(options: dict[str, str], share: Path = Path("/nowhere")) -> etree._Element:
    return etree.fromstring(
        domain_xml(plan(Hardware.of_options(options, share=share), settings=Path("/r/settings.fd")))
    )


def test_it_boots_its_disk_with_a_screen_and_may_restart_itself() -> None:
    tree = machine_of({})
    assert tree.find("os/kernel") is None and tree.find("os/loader") is None
    assert tree.find("os/boot").get("dev") == "hd" and tree.find("devices/video/model").get("type") == "vga"
    assert (tree.findtext("on_reboot"), tree.findtext("on_poweroff")) == ("restart", "destroy")
    store = tree.find("devices/disk/backingStore")
    assert store.find("format").get("type") == "qcow2" and store.find("source").get("file") == "/r/disk/<disk>"
    assert boots_itself(etree.tostring(tree, encoding="unicode"))


@pytest.mark.parametrize(
    ("options", "machine", "target", "card"),
    [
        ({}, "q35", ("vda", "virtio"), "virtio-net-pci"),
        ({"bus": "sata", "nic": "e1000e"}, "q35", ("sda", "sata"), "e1000e"),
        ({"bus": "ide", "nic": "rtl8139"}, "pc", ("hda", "ide"), "rtl8139"),
        ({"nic": "e1000"}, "q35", ("vda", "virtio"), "e1000"),
    ],
)
def test_its_disk_and_card_are_those_that_it_has_drivers_for(
    options: dict[str, str], machine: str, target: tuple[str, str], card: str
) -> None:
    tree = machine_of(options)
    found = tree.find("devices/disk/target")
    assert tree.find("os/type").get("machine") == machine and (found.get("dev"), found.get("bus")) == target
    assert (tree.find("devices/disk/address") is not None) == (target[1] == "virtio")
    arguments = [argument.get("value", "") for argument in tree.iter(f"{{{QEMU_URI}}}arg")]
    assert any(one.startswith(f"{card},netdev=") for one in arguments)
    assert any("restart" not in one and "restrict=on" in one and ":4711-:80" in one for one in arguments)


def test_uefi_is_a_firmware_with_settings_of_the_launchs_own(tmp_path: Path) -> None:
    with pytest.raises(DriverUnavailable, match="no UEFI firmware") as missing:
        machine_of({"firmware": "uefi"}, tmp_path)
    assert missing.value.resolution == "sudo apt-get install ovmf"
    (tmp_path / "OVMF").mkdir()
    for name in ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"):
        (tmp_path / "OVMF" / name).write_text(name)
    tree = machine_of({"firmware": "uefi"}, tmp_path)
    assert tree.findtext("os/loader") == str(tmp_path / "OVMF/OVMF_CODE_4M.fd")
    assert tree.find("os/loader").get("readonly") == "yes" and tree.findtext("os/nvram") == "/r/settings.fd"
    hardware = Hardware.of_options({"firmware": "uefi"}, share=tmp_path)
    assert isinstance(hardware.uefi, Uefi)
    own = disk.own_settings(hardware, tmp_path)
    assert own is not None and own.read_text() == "OVMF_VARS_4M.fd" and own.stat().st_mode & 0o777 == 0o600
    assert disk.own_settings(Hardware(), tmp_path) is None


@pytest.mark.parametrize("given", [{"firmware": "coreboot"}, {"bus": "scsi"}, {"nic": "ne2k,netdev=x"}])
def test_what_its_machine_cannot_be_is_refused(given: dict[str, str]) -> None:
    (name,) = given
    with pytest.raises(BadInput, match=f"there is no such {name}") as refused:
        Hardware.of_options(given)
    assert refused.value.resolution.startswith("choose ")


def context(tmp_path: Path, **options: str) -> Context:
    (tmp_path / "run").mkdir(exist_ok=True)
    return Context(run_dir=tmp_path / "run", cache_dir=tmp_path / "cache", options=options)


def test_without_a_disk_it_says_how_to_name_one(tmp_path: Path) -> None:
    for ask in (lambda: disk.facts(context(tmp_path)), lambda: disk.media(SPEC, context(tmp_path))):
        with pytest.raises(BadInput, match="none is named") as refused:
            ask()
        assert "--guest-image FILE|URL --sha256 HASH" in refused.value.resolution


def test_the_labs_own_service_is_not_on_it_and_nothing_is_given_to_its_own(tmp_path: Path) -> None:
    named = context(tmp_path, **{"guest-image": "http://127.0.0.1:1/d", "sha256": "0" * 64})
    with pytest.raises(Unsupported, match="the two are no pair"):
        disk.media(Spec(), named)
    for changes in ({"command": ("x",)}, {"environment": {"A": "b"}}):
        with pytest.raises(Unsupported, match="neither a command nor an environment"):
            disk.media(replace(SPEC, **changes), named)  # type: ignore[arg-type]


def test_one_that_is_still_to_be_fetched_is_told_without_fetching_it(tmp_path: Path) -> None:
    told = disk.facts(context(tmp_path, **{"guest-image": "http://127.0.0.1:1/d?key=secret", "sha256": "0" * 64}))
    assert told["guest_image"] == {"sha256": "0" * 64, "from": "http://127.0.0.1:1/d"}
    with pytest.raises(BadInput, match="needs its hash"):
        disk.facts(context(tmp_path, **{"guest-image": "http://127.0.0.1:1/d"}))


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
def test_what_is_launched_is_the_runs_own_copy_of_what_was_verified(tmp_path: Path) -> None:
    mine = tmp_path / "mine.img"
    mine.write_bytes(RAW)
    named = {"guest-image": str(mine), "sha256": hashlib.sha256(RAW).hexdigest(), "bus": "ide"}
    found = disk.media(SPEC, context(tmp_path, **named))
    assert found.disk is not None and found.disk.parent == tmp_path / "run/disk" and found.disk_bytes == MIB
    assert (found.kernel, found.initramfs, found.files) == (None, None, [found.disk])
    told = disk.facts(context(tmp_path, **named))
    assert told["guest_image"]["image"] == "mine.img" and told["disk_bus"] == "ide" and told["machine"] == "pc"
