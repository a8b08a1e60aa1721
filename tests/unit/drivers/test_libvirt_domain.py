"""The domain's XML and what is read back from it; nothing of libvirt is asked."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from drivers.libvirt.domain import (
    QEMU_URI,
    Plan,
    command_line,
    console_of,
    domain_xml,
    endpoint_of,
    has_ssh,
    vcpus,
)
from drivers.libvirt.kernels.architecture import AARCH64, RISCV64, Architecture
from drivers.libvirt.labels import LABELS_URI, labels_element, labels_of
from drivers.libvirt.variants import VARIANTS
from drivers.libvirt.xml import text_of
from lab.errors import LaunchError, Unsupported
from lab.spec import Endpoint, Spec
from lab.units import MIB

HOSTILE = {"lab.run": "r", "lab.note": "</metadata><qemu:commandline>'\"&amp;]]>"}


def plan(machine: str = "q35", **changes: object) -> Plan:
    made = Plan(
        name="lab-q35-1",
        uuid=str(uuid.UUID(int=7)),
        machine=machine,
        accel="tcg",
        spec=Spec(labels=HOSTILE, port=80),
        kernel=Path("/r/kernel"),
        initramfs=Path("/r/<initramfs>"),
        command_line='console=ttyS0 x="<&>"',
        console=Path("/r/console"),
        endpoint=Endpoint("127.0.0.1", 4711),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def root(made: Plan) -> etree._Element:
    return etree.fromstring(domain_xml(made))


def arguments(tree: etree._Element) -> list[str | None]:
    return [argument.get("value") for argument in tree.iter(f"{{{QEMU_URI}}}arg")]


def test_text_of_any_kind_stays_text() -> None:
    tree = root(plan())
    assert tree.findtext("os/initrd") == "/r/<initramfs>"
    assert tree.findtext("os/cmdline") == 'console=ttyS0 x="<&>"'
    assert len(list(tree.iter(f"{{{QEMU_URI}}}commandline"))) == 1
    labels = tree.find(f"metadata/{{{LABELS_URI}}}labels")
    assert labels is not None
    assert labels_of(etree.tostring(labels, encoding="unicode")) == HOSTILE


def test_labels_are_read_in_the_form_that_libvirt_gives_them_back() -> None:
    told = f"<lab:labels xmlns:lab='{LABELS_URI}'><lab:label name='lab.run' value='a&lt;b'/></lab:labels>"
    assert labels_of(told) == {"lab.run": "a<b"}
    assert labels_of(text_of(labels_element(HOSTILE))) == HOSTILE


def test_what_xml_cannot_hold_is_a_launch_error() -> None:
    with pytest.raises(LaunchError):
        domain_xml(plan(command_line="a\0b"))
    with pytest.raises(LaunchError):
        domain_xml(plan(spec=Spec(labels={"lab.run": "\x01"})))


def test_the_same_memory_and_cpus_as_declared() -> None:
    tree = root(plan(spec=Spec(cpus=1.5, memory_bytes=96 * MIB), cpu_quota=True))
    memory = tree.find("memory")
    assert memory is not None and memory.text == str(96 * 1024) and memory.get("unit") == "KiB"
    assert tree.findtext("vcpu") == "2"
    assert tree.findtext("cputune/global_quota") == "150000"
    assert tree.findtext("cputune/global_period") == "100000"
    assert root(plan()).find("cputune") is None
    with pytest.raises(Unsupported):
        domain_xml(plan(spec=Spec(memory_bytes=96 * MIB + 1)))
    assert [vcpus(cpus) for cpus in (0.1, 1.0, 1.01, 4.0)] == [1, 1, 2, 4]


def test_every_thread_of_the_vmm_is_held_to_the_cpus() -> None:
    tree = root(plan(spec=Spec(cpuset=(3, 1)), cpu_quota=True))
    vcpu, emulator = tree.find("vcpu"), tree.find("cputune/emulatorpin")
    assert vcpu is not None and vcpu.get("cpuset") == "1,3"
    assert emulator is not None and emulator.get("cpuset") == "1,3"
    assert len(tree.findall("cputune")) == 1 and tree.findtext("cputune/global_quota") == "100000"
    free = root(plan()).find("vcpu")
    assert free is not None and free.get("cpuset") is None


def test_a_guests_clock_is_right_unless_its_spec_says_how_wrong() -> None:
    clock = root(plan()).find("clock")
    assert clock is not None and dict(clock.attrib) == {"offset": "utc"}
    day = Spec(guest_clock_offset_s=-86_400, nonce="n")
    for made in (plan(spec=day), plan("microvm", spec=day), plan(spec=day, accel="kvm")):
        clock = root(made).find("clock")
        assert clock is not None
        assert dict(clock.attrib) == {"offset": "variable", "adjustment": "-86400", "basis": "utc"}
    with pytest.raises(Unsupported):  # it would show the host's time, silently
        domain_xml(plan("microvm", spec=day, accel="kvm"))
    assert "no-kvmclock" in command_line(VARIANTS["q35"], "kvm", day, disk=False).split()
    assert "no-kvmclock" not in command_line(VARIANTS["q35"], "kvm", Spec(nonce="n"), disk=False).split()


def test_only_a_spec_that_asks_for_it_gives_the_guest_leave_to_panic() -> None:
    words = command_line(VARIANTS["q35"], "tcg", Spec(nonce="5eed", guest_panic=True), disk=False).split()
    assert {"lab.nonce=5eed", "lab.panic=5eed", "panic=-1"} <= set(words)
    for spec in (Spec(nonce="5eed"), Spec(guest_panic=True)):
        assert "lab.panic" not in command_line(VARIANTS["q35"], "tcg", spec, disk=False)


def test_a_guest_that_ends_is_gone_and_reachable_from_loopback_alone() -> None:
    tree = root(plan())
    assert [tree.findtext(name) for name in ("on_poweroff", "on_reboot", "on_crash")] == ["destroy"] * 3
    network = arguments(tree)[1]
    assert network == "user,id=lab0,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:4711-:80"
    assert arguments(root(plan(spec=Spec(port=80, peers="talk"))))[1].startswith("user,id=lab0,restrict=off,ipv6=off,")
    assert endpoint_of(domain_xml(plan())) == Endpoint("127.0.0.1", 4711)
    assert console_of(domain_xml(plan())) == Path("/r/console")
    assert endpoint_of("<domain/>") is None and console_of("<domain/>") is None


@pytest.mark.parametrize(
    ("variant", "device", "address"),
    [("microvm", "virtio-net-device", "virtio-mmio"), ("q35", "virtio-net-pci", "pci")],
)
def test_each_machine_has_the_devices_of_its_bus(variant: str, device: str, address: str) -> None:
    tree = root(plan(variant, disk=Path("/r/d.qcow2"), backing=Path("/r/d.ext4")))
    machine = tree.find("os/type")
    assert machine is not None and machine.get("machine") == variant
    assert str(arguments(tree)[3]).startswith(device)
    where = tree.find("devices/disk/address")
    assert where is not None and where.get("type") == address
    assert tree.find("devices/controller[@type='usb'][@model='none']") is not None
    assert tree.find("devices/memballoon[@model='none']") is not None


@pytest.mark.parametrize(("variant", "address"), [("microvm", "virtio-mmio"), ("q35", "pci"), ("pc", "pci")])
def test_a_guest_has_the_hosts_random_numbers_where_its_kernel_takes_them(variant: str, address: str) -> None:
    tree = root(plan(variant))
    assert tree.findtext("devices/rng[@model='virtio']/backend[@model='random']") == "/dev/urandom"
    where = tree.find("devices/rng/address")
    assert where is not None and where.get("type") == address
    assert root(plan(variant, entropy=False)).find("devices/rng") is None


def test_a_guest_is_called_as_a_bare_container_of_its_launch_is() -> None:
    spec = Spec(nonce="n", labels={"lab.launch": "0123456789abcdef"})
    assert "lab.hostname=0123456789ab" in command_line(VARIANTS["q35"], "tcg", spec, disk=False).split()
    assert "lab.hostname" not in command_line(VARIANTS["q35"], "tcg", Spec(nonce="n"), disk=False)


def test_emulation_is_bounded_and_kvm_gives_the_hosts_cpu() -> None:
    emulated, virtual = root(plan()), root(plan(accel="kvm"))
    assert emulated.get("type") == "qemu" and emulated.findtext("features/tcg/tb-cache") == "64"
    assert virtual.get("type") == "kvm" and virtual.find("features/tcg") is None
    cpu = virtual.find("cpu")
    assert cpu is not None and cpu.get("mode") == "host-passthrough"


def test_the_command_line_names_the_launch_and_its_root() -> None:
    words = command_line(VARIANTS["q35"], "kvm", Spec(nonce="ab", port=81), disk=True).split()
    assert {"lab.nonce=ab", "lab.port=81", "lab.root=/dev/vda", "lab.rootfstype=ext4", "panic=-1"} <= set(words)
    assert not {"no_timer_check", "noreplace-smp", "tsc=reliable"} & set(words), "an emulator's"
    emulated = command_line(VARIANTS["microvm"], "tcg", Spec(), disk=False, tsc_khz=5).split()
    assert {"tsc_early_khz=5", "tsc=reliable", "no_timer_check", "noreplace-smp"} <= set(emulated)
    assert "tsc" not in command_line(VARIANTS["q35"], "tcg", Spec(), disk=False, tsc_khz=5), "it has other timers"
    assert "lab.root" not in command_line(VARIANTS["q35"], "tcg", Spec(), disk=False)


@pytest.mark.parametrize(("architecture", "cpu"), [(AARCH64, "cortex-a57"), (RISCV64, None)])
def test_another_machine_has_its_own_emulator_no_acpi_and_no_pci(architecture: Architecture, cpu: str | None) -> None:
    tree = root(plan("virt", architecture=architecture, disk=Path("/r/disk"), backing=Path("/r/backing")))
    kind = tree.find("os/type")
    assert kind is not None and dict(kind.attrib) == {"arch": architecture.name, "machine": "virt"}
    assert tree.findtext("cpu/model") == cpu
    assert tree.find("features/acpi") is None and tree.find("features/apic") is None
    assert tree.find("features/tcg/tb-cache") is not None
    assert {address.get("type") for address in tree.iter("address")} == {"virtio-mmio"}
    assert "virtio-net-device,netdev=lab0" in arguments(tree)
    variant = VARIANTS["arm64" if architecture is AARCH64 else "riscv64"]
    words = command_line(variant, "tcg", Spec(nonce="5eed"), disk=False, tsc_khz=1).split()
    assert {f"console={architecture.console},115200", "lab.nonce=5eed", "panic=-1"} <= set(words)
    assert not {"reboot=t", "no_timer_check", "noreplace-smp", "tsc_early_khz=1"} & set(words), "these are x86's"


def test_a_whole_guest_has_a_way_in_after_the_services_own_and_a_disk_that_it_only_reads() -> None:
    made = plan(
        ssh=Endpoint("127.0.0.1", 4712),
        seed=Path("/r/<seed>.iso"),
        disk=Path("/r/root.qcow2"),
        backing=Path("/r/disk.qcow2"),
        backing_format="qcow2",
        oem_strings=("io.systemd.credential.binary:<&>=eA==",),
    )
    text, tree = domain_xml(made), root(made)
    assert endpoint_of(text) == Endpoint("127.0.0.1", 4711) and has_ssh(text)
    assert not has_ssh(domain_xml(plan()))
    assert tree.findtext("sysinfo/oemStrings/entry") == "io.systemd.credential.binary:<&>=eA=="
    assert tree.find("os/smbios").get("mode") == "sysinfo"
    disks = {disk.find("target").get("dev"): disk for disk in tree.findall("devices/disk")}
    assert disks["vda"].find("backingStore/format").get("type") == "qcow2" and disks["vda"].find("readonly") is None
    assert disks["vdb"].find("readonly") is not None and disks["vdb"].find("source").get("file") == "/r/<seed>.iso"


def test_without_a_kernel_the_disk_boots_by_itself() -> None:
    tree = root(plan(kernel=None, initramfs=None))
    assert tree.find("os/boot").get("dev") == "hd" and tree.find("os/kernel") is None
