"""Every error that libvirt can give becomes one of the lab's, with one line and, where it helps, a remedy."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from drivers.libvirt import LibvirtDriver, engine
from drivers.libvirt.instance import Domains
from lab.driver import Context
from lab.errors import DriverError, DriverUnavailable, LaunchError, Unsupported
from lab.spec import Endpoint, Spec

libvirt = pytest.importorskip("libvirt")

CODES = {name: getattr(libvirt, name) for name in dir(libvirt) if name.startswith("VIR_ERR_")}
LEVELS = {"VIR_ERR_NONE", "VIR_ERR_WARNING", "VIR_ERR_ERROR"}


def error(code: int, text: str = "first line\nlast line", domain: int = libvirt.VIR_FROM_QEMU) -> Any:
    made = libvirt.libvirtError("call failed")
    made.err = (code, domain, text, 2, None, None, None, -1, -1)
    return made


@pytest.mark.parametrize("name", sorted(set(CODES) - LEVELS))
def test_every_code_is_mapped(name: str) -> None:
    mapped = engine.translate(error(CODES[name]), "start the domain")
    assert type(mapped) in (DriverUnavailable, LaunchError, Unsupported)
    assert "\n" not in mapped.brief and "last line" in mapped.brief
    assert "first line" in mapped.details
    if isinstance(mapped, DriverUnavailable):
        assert mapped.resolution


def test_what_a_broken_connection_says_is_unavailable() -> None:
    for code, domain in (
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC),
        (libvirt.VIR_ERR_INVALID_CONN, libvirt.VIR_FROM_NONE),
        (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_FROM_REMOTE),
    ):
        assert isinstance(engine.translate(error(code, domain=domain), "list the domains"), DriverUnavailable)


def test_qemus_own_last_words_are_the_brief() -> None:
    text = (
        "internal error: process exited while connecting to monitor: 2026-01-01T00:00:00Z qemu-system-x86_64: -netdev "
        "user,id=lab0: Could not set up host forwarding rule 'tcp:127.0.0.1:1-:80'"
    )
    mapped = engine.translate(error(libvirt.VIR_ERR_INTERNAL_ERROR, text), "start the domain")
    assert isinstance(mapped, LaunchError) and "host forwarding rule" in mapped.brief


def test_an_empty_message_is_still_a_line() -> None:
    assert engine.translate(error(libvirt.VIR_ERR_INTERNAL_ERROR, ""), "start the domain").brief


def test_within_translated_only_libvirts_errors_change() -> None:
    with pytest.raises(LaunchError), engine.translated("do it"):
        raise error(libvirt.VIR_ERR_INTERNAL_ERROR)
    with pytest.raises(KeyError), engine.translated("do it"):
        raise KeyError


def test_a_missing_sdk_is_unavailable_and_the_variants_are_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "libvirt":
            raise ModuleNotFoundError("No module named 'libvirt'", name="libvirt")
        return imported(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "libvirt")
    known = {"", "q35", "pc", "microvm", "microvm-lean", "arm64", "riscv64", "debian", "debian-cloud"}
    assert known <= set(LibvirtDriver.variants())
    driver = LibvirtDriver("pc", Context(run_dir=tmp_path, cache_dir=tmp_path))
    with pytest.raises(DriverUnavailable) as raised:
        driver.info()
    assert "libvirt-python" in raised.value.brief and "pip install" in raised.value.resolution


def test_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="toaster"):
        LibvirtDriver("toaster", Context(run_dir=tmp_path, cache_dir=tmp_path))


def test_a_port_beyond_loopback_is_never_opened(tmp_path: Path) -> None:
    driver = LibvirtDriver("q35", Context(run_dir=tmp_path, cache_dir=tmp_path))
    for endpoint in (None, Endpoint("0.0.0.0", 80), Endpoint("10.0.0.1", 80), Endpoint("::", 80)):  # noqa: S104
        with pytest.raises(LaunchError):
            driver.launch(Spec(), endpoint, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("systemd", "daemons", "command"),
    [
        (True, {"libvirtd"}, "sudo systemctl start libvirtd"),
        (True, {"virtqemud"}, "sudo systemctl start virtqemud"),
        (False, {"libvirtd"}, "sudo virtlogd -d; sudo libvirtd -d"),
        (False, set(), "sudo apt-get install libvirt-daemon-system qemu-system-x86"),
    ],
)
def test_the_remedy_fits_the_host(
    systemd: bool, daemons: set[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_find_program", lambda name: name if name in daemons else None)
    monkeypatch.setattr(Path, "is_dir", lambda _self: systemd)
    assert engine.start_command() == command


def test_which_libvirt_is_asked_is_decided_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system's daemon that is down must not be replaced by the user's own, which has none of the domains."""
    tried: list[str] = []

    def refuse(uri: str) -> None:
        tried.append(uri)
        raise error(libvirt.VIR_ERR_SYSTEM_ERROR, "Failed to connect socket", libvirt.VIR_FROM_RPC)

    monkeypatch.setattr(libvirt, "open", refuse)
    monkeypatch.setattr(engine.grp, "getgrnam", lambda _name: type("g", (), {"gr_gid": 4242}))
    for user, groups in ((0, []), (1000, [1, 4242]), (1000, [1])):
        monkeypatch.setattr(engine.os, "geteuid", lambda user=user: user)
        monkeypatch.setattr(engine.os, "getgroups", lambda groups=groups: groups)
        with pytest.raises(DriverUnavailable) as raised:
            engine.connect("")
        assert "Failed to connect socket" in raised.value.brief and raised.value.resolution
    with pytest.raises(DriverUnavailable):
        engine.connect("qemu:///embed?root=/x")
    assert tried == ["qemu:///system", "qemu:///system", "qemu:///session", "qemu:///embed?root=/x"]


class Domain:
    """A domain whose labels cannot be read, for the reason given."""

    def __init__(self, reason: Any) -> None:
        self.reason = reason

    def metadata(self, *_: Any) -> str:
        raise self.reason


class Connection:
    """A connection with one such domain."""

    def __init__(self, reason: Any) -> None:
        self.reason = reason

    def domainEventRegisterAny(self, *_: Any) -> int:  # noqa: N802  libvirt's name
        return 1

    def listAllDomains(self, _flags: int) -> list[Domain]:  # noqa: N802
        return [Domain(self.reason)]


def test_a_listing_is_complete_or_an_error() -> None:
    """Or `lab clean` would take a broken connection for a clean host."""

    def listed(reason: Any) -> list[Any]:
        domains = Domains(Connection(reason))  # type: ignore[arg-type]
        return list(domains.all_of_the_lab(lambda: domains))

    assert listed(error(libvirt.VIR_ERR_NO_DOMAIN_METADATA)) == []
    assert listed(error(libvirt.VIR_ERR_NO_DOMAIN)) == []
    with pytest.raises(DriverError):
        listed(error(libvirt.VIR_ERR_INTERNAL_ERROR, "client socket is closed", libvirt.VIR_FROM_RPC))
