"""When a guest has stopped: libvirt's word and QEMU's end, without waiting until pid 1 has reaped QEMU."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from drivers.libvirt.instance import Domains, LibvirtInstance
from lab.host.procs import Process

IDENTITY = "00000000-0000-0000-0000-000000000007"
LONG_S, SHORT_S = 60.0, 0.3
KERNEL = "<kernel>/k</kernel>"


class Domain:
    """A domain that libvirt knows until `gone`, as while QEMU is a zombie."""

    destroyed = 0
    pressed = 0

    def __init__(self) -> None:
        self.gone = threading.Event()

    def UUIDString(self) -> str:  # noqa: N802  libvirt's names
        return IDENTITY

    def name(self) -> str:
        return "lab-microvm-0"

    def shutdownFlags(self, flags: int) -> None:  # noqa: N802
        self.pressed += flags == libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN

    def destroy(self) -> None:
        self.destroyed += 1
        self.gone.set()


class Connection:
    """A connection with one domain; `tell` is libvirt's event loop."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._told: Any = None

    def domainEventRegisterAny(self, _domain: Any, _kind: int, told: Any, _opaque: Any) -> int:  # noqa: N802
        self._told = told
        return 1

    def lookupByUUIDString(self, _uuid: str) -> Domain:  # noqa: N802
        if self.domain.gone.is_set():
            error = libvirt.libvirtError("no domain")
            error.err = (libvirt.VIR_ERR_NO_DOMAIN, 0, "no domain", 0, "", None, None, 0, 0)
            raise error
        return self.domain

    def tell(self, event: int) -> None:
        self._told(self, self.domain, event, 0, None)


@pytest.fixture
def connection() -> Connection:
    return Connection(Domain())


@pytest.fixture
def qemu() -> Iterator[subprocess.Popen[bytes]]:
    """A child that nobody reaps: once it has ended, a zombie."""
    with subprocess.Popen(["sleep", "600"]) as child:
        yield child
        child.kill()


@pytest.fixture
def guest(connection: Connection, qemu: subprocess.Popen[bytes], tmp_path: Path) -> LibvirtInstance:
    """A guest that is asked by its console, and whose QEMU is `qemu`."""
    domains = Domains(connection)  # type: ignore[arg-type]
    domains.watch(IDENTITY, lambda: None, lambda: None)
    console = tmp_path / "console"
    (tmp_path / "console.in").touch()  # takes what is typed
    booted = f"<os>{KERNEL}<boot dev='hd'/></os>"  # libvirt writes `boot` also beside a kernel
    xml = f"<domain>{booted}<devices><serial><source path='{console}'/></serial></devices></domain>"
    made = LibvirtInstance(
        lambda: domains,
        connection.domain,
        labels={},
        endpoint=None,
        xml=xml,  # type: ignore[arg-type]
    )
    made._process = Process.of(qemu.pid)
    return made


def test_a_guest_has_stopped_once_libvirt_says_so_and_qemu_has_ended(
    guest: LibvirtInstance, connection: Connection, qemu: subprocess.Popen[bytes]
) -> None:
    stopping = threading.Thread(target=guest.stop, kwargs={"timeout_s": LONG_S})
    stopping.start()
    connection.tell(libvirt.VIR_DOMAIN_EVENT_SHUTDOWN)
    stopping.join(SHORT_S)
    assert stopping.is_alive(), "QEMU runs still"
    qemu.kill()
    stopping.join(LONG_S / 2)
    assert not stopping.is_alive() and not connection.domain.gone.is_set(), "it waited for libvirt to let go"
    assert connection.domain.destroyed == 0 and not guest.was_killed()


def test_a_qemu_that_ends_without_a_shutdown_is_waited_for_until_libvirt_lets_go(
    guest: LibvirtInstance, connection: Connection, qemu: subprocess.Popen[bytes]
) -> None:
    qemu.kill()
    stopping = threading.Thread(target=guest.stop, kwargs={"timeout_s": LONG_S})
    stopping.start()
    stopping.join(SHORT_S)
    assert stopping.is_alive(), "the engine has not said that it ended"
    connection.domain.gone.set()
    connection.tell(libvirt.VIR_DOMAIN_EVENT_STOPPED)
    stopping.join(LONG_S / 2)
    assert not stopping.is_alive()


def test_a_guest_that_does_not_shut_down_in_time_is_destroyed(guest: LibvirtInstance, connection: Connection) -> None:
    guest.stop(timeout_s=SHORT_S)
    assert connection.domain.destroyed == 1 and guest.was_killed()


@pytest.mark.parametrize(("boots", "asked_by"), [(KERNEL, "console"), ("", "button")])
def test_what_boots_by_itself_is_asked_by_its_power_button_and_any_other_guest_by_its_console(
    guest: LibvirtInstance, connection: Connection, tmp_path: Path, boots: str, asked_by: str
) -> None:
    guest._xml = guest._xml.replace(KERNEL, boots)
    guest.stop(timeout_s=SHORT_S)
    assert connection.domain.pressed == (asked_by == "button")
    assert bool((tmp_path / "console.in").read_bytes()) == (asked_by == "console")


def test_a_power_button_that_nobody_heard_of_is_pressed_again(
    guest: LibvirtInstance, connection: Connection, qemu: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.libvirt.instance._ASK_AGAIN_S", 0.05)
    guest._xml = guest._xml.replace(KERNEL, "")
    stopping = threading.Thread(target=guest.stop, kwargs={"timeout_s": LONG_S})
    stopping.start()
    while connection.domain.pressed < 3:
        time.sleep(0.01)
    connection.tell(libvirt.VIR_DOMAIN_EVENT_SHUTDOWN)
    qemu.kill()
    stopping.join(LONG_S / 2)
    assert not stopping.is_alive() and not guest.was_killed() and connection.domain.destroyed == 0


def test_deleting_what_has_stopped_waits_for_libvirt_to_let_go_and_does_not_destroy_it_again(
    guest: LibvirtInstance, connection: Connection, qemu: subprocess.Popen[bytes]
) -> None:
    connection.tell(libvirt.VIR_DOMAIN_EVENT_SHUTDOWN)
    qemu.kill()
    guest.stop(timeout_s=LONG_S)
    deleting = threading.Thread(target=guest.delete)
    deleting.start()
    time.sleep(SHORT_S)
    assert deleting.is_alive(), "libvirt lists it still"
    connection.domain.gone.set()
    connection.tell(libvirt.VIR_DOMAIN_EVENT_STOPPED)
    deleting.join(LONG_S / 2)
    assert not deleting.is_alive() and connection.domain.destroyed == 0
