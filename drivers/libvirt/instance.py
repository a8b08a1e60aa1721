"""A launched domain, and the connection by which its end is seen."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from drivers.libvirt import sleep as sleeping
from drivers.libvirt.console import STOP_LINE, Console, type_into
from drivers.libvirt.domain import (
    GUEST_GATEWAY,
    boot_files_of,
    boots_itself,
    console_of,
    endpoint_of,
    guest_memory_of,
    has_ssh,
    service_port_of,
)
from drivers.libvirt.engine import is_missing, sdk, translate, translated
from drivers.libvirt.host import USER_MODE
from drivers.libvirt.joined import Joined, cid_of, joined_of
from drivers.libvirt.joined import places as joined_places
from drivers.libvirt.joined import reach as reach_joined
from drivers.libvirt.labels import LABELS_URI, labels_of
from lab.errors import CleanupError, DriverError
from lab.features import GuestMemory, Place, Role, SleepState
from lab.host.procs import Process, arguments, table
from lab.launch import peers
from lab.launch.asleep import require_offered
from lab.spec import Endpoint

if TYPE_CHECKING:
    import libvirt

_DESTROY_S = 30.0
_LOOK_S = 0.1
_ASK_AGAIN_S = 5.0
_KILLED = b"lab-guest killed after"
_RANDOM = re.compile(rb"\[ *(\d+\.\d+)\] random: crng init done")  # drivers/char/random.c


@dataclass(slots=True, kw_only=True)
class _Life:
    """Who wants to be told of a domain's start and end, and what libvirt has told: that its guest has shut down, that
    the domain has ended."""

    resumed: Callable[[], None] | None = None
    gone: Callable[[], None] | None = None
    shut: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class Domains:
    """A connection, and who wants to be told of which domain's life."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        """Raises DriverUnavailable when the connection broke since it was opened."""
        self.connection = connection
        self._lives: dict[str, _Life] = {}
        library = sdk()
        self._running, self._stopped = library.VIR_DOMAIN_EVENT_RESUMED, library.VIR_DOMAIN_EVENT_STOPPED
        self._shut = library.VIR_DOMAIN_EVENT_SHUTDOWN
        with translated("watch the domains"):
            self._callback = connection.domainEventRegisterAny(
                None, library.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._told, None
            )

    def alive(self) -> bool:
        """Whether the daemon still answers on this connection."""
        try:
            return bool(self.connection.isAlive())
        except sdk().libvirtError:
            return False

    def watch(self, identity: str, resumed: Callable[[], None], gone: Callable[[], None]) -> None:
        """From the event loop's thread, call `resumed` when the domain with UUID `identity` starts to run, and `gone`
        when it ends though nobody here asked it to (see `expect_end`)."""
        self._lives[identity] = _Life(resumed=resumed, gone=gone)

    def watched(self, identity: str) -> bool:
        """Whether the domain's end would be one that nobody here asked for."""
        life = self._lives.get(identity)
        return life is not None and life.gone is not None

    def expect_end(self, identity: str) -> None:
        """The domain is being ended on purpose. Idempotent."""
        self._life(identity).gone = None

    def expect_sleep(self, identity: str) -> Callable[[], None] | None:
        """The domain is being put to sleep: it may end, and when it runs again that is no start of it. Returns whom its
        end is to be told when it is awake, for `awake`."""
        life = self._life(identity)
        gone, life.gone, life.resumed = life.gone, None, None
        return gone

    def awake(self, identity: str, gone: Callable[[], None] | None) -> None:
        """The domain runs again: from here on its end is none that was asked for."""
        self._lives[identity] = _Life(gone=gone)

    def unwatch(self, identity: str) -> None:
        """Call nothing any more. Idempotent."""
        self._lives.pop(identity, None)

    def await_end(self, identity: str, timeout_s: float, *, or_shut: bool = False) -> bool:
        """Whether libvirt no longer knows the domain, within `timeout_s`; with `or_shut`, or has told of its guest that
        it shut down, after which it ends QEMU. Raises DriverError."""
        deadline = time.monotonic() + timeout_s
        life = self._life(identity)
        while self.find(identity) is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            (life.shut if or_shut else life.ended).wait(min(left, _LOOK_S))
            if life.ended.is_set():
                time.sleep(0.001)  # the event comes a moment before the domain is off the list
            elif or_shut and life.shut.is_set():
                return True
        return True

    def find(self, identity: str) -> libvirt.virDomain | None:
        """The domain with this UUID, None when there is none. Raises DriverError."""
        try:
            return self.connection.lookupByUUIDString(identity)
        except sdk().libvirtError as error:
            if is_missing(error):
                return None
            raise translate(error, "look a domain up") from error

    def abandon(self, identity: str) -> None:
        """Destroy what a launch that failed, or was interrupted, may have started. Raises nothing."""
        # The launch's own error is the one to tell; what stays all the same is found by its labels.
        with contextlib.suppress(DriverError, sdk().libvirtError):
            self.expect_end(identity)
            domain = self.find(identity)
            if domain is not None:
                domain.destroy()

    def all_of_the_lab(self, connected: Connected) -> list[LibvirtInstance]:
        """Every domain that bears the lab's labels, to be asked by way of `connected`. Raises DriverError."""
        found = []
        with translated("list the domains"):
            domains = self.connection.listAllDomains(0)
        for domain in domains:
            try:
                labels = labels_of(domain.metadata(sdk().VIR_DOMAIN_METADATA_ELEMENT, LABELS_URI, 0))
                xml = domain.XMLDesc(0)
            except sdk().libvirtError as error:
                if is_missing(error):
                    continue  # it bears no labels of the lab's, or ended while it was looked at
                raise translate(error, "read a domain's labels") from error
            found.append(LibvirtInstance(connected, domain, labels=labels, endpoint=endpoint_of(xml), xml=xml))
        return found

    def close(self) -> None:
        """Let go of the connection."""
        self._lives.clear()
        with contextlib.suppress(sdk().libvirtError):  # a broken connection has let go already
            self.connection.domainEventDeregisterAny(self._callback)
        with contextlib.suppress(sdk().libvirtError):
            self.connection.close()

    def _told(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, event: int, _detail: int, _opaque: object
    ) -> None:
        life = self._lives.get(domain.UUIDString())
        if life is None:
            return
        if event == self._running and life.resumed is not None:
            life.resumed()
        elif event == self._shut:
            life.shut.set()
        elif event == self._stopped:
            life.ended.set()
            life.shut.set()
            if gone := life.gone:
                gone()
            life.gone = None

    def _life(self, identity: str) -> _Life:
        return self._lives.setdefault(identity, _Life())


Connected = Callable[[], Domains]
"""The connection as it is now: opened anew where the daemon went away in between."""


class LibvirtInstance:
    """One domain: this process's own launch (with its `console`), or one found by its labels."""

    def __init__(
        self,
        connected: Connected,
        domain: libvirt.virDomain,
        *,
        labels: Mapping[str, str],
        endpoint: Endpoint | None,
        xml: str,
        console: Console | None = None,
        joined: Joined | None = None,
    ) -> None:
        self.id: str = domain.UUIDString()
        self.labels = labels
        self.endpoint = endpoint
        self.name: str = domain.name()
        self._connected = connected
        self._console = console
        self._xml = xml
        self._joined = joined or joined_of(xml)
        self._console_path = console_of(xml)
        self._process: Process | None = None
        self._killed = False
        self._tell_end: Callable[[], None] | None = None

    def logs(self) -> bytes:
        """The end of the guest's console; empty for a domain that another process launched, and once it is gone."""
        return self._console.text() if self._console else b""

    def stop(self, *, timeout_s: float) -> None:
        """Ask the guest's init by its console, or what boots by itself by ACPI's power button, then destroy; returns
        when libvirt says that the guest has shut down and its QEMU has ended, or has let go of the domain.

        It lets go only once QEMU's process has been reaped, for which it looks every 0.2 s: that is `delete`'s to wait
        for (docs/guests.md)."""
        if not self.expect_end():
            return
        ask = (lambda: self.ask(_press_power_button)) if boots_itself(self._xml) else self._type_stop
        asked, ended = self._asked_until_it_ends(ask, timeout_s)
        if not ended:
            self._killed = bool(asked)
            self.destroy()

    def expect_end(self) -> bool:
        """The domain is about to be ended on purpose; whether it is there. Raises DriverError."""
        self._remember_process()
        self._connected().expect_end(self.id)
        return self._connected().find(self.id) is not None

    def ask(self, how: Callable[[libvirt.virDomain], None]) -> bool:
        """Call `how` with the domain; whether it is there and libvirt did as it was asked. Raises DriverError."""
        domain = self._connected().find(self.id)
        if domain is None:
            return False
        try:
            how(domain)
        except sdk().libvirtError:
            return False  # it ended just now, or libvirt cannot: there are other ways
        return True

    def was_killed(self) -> bool:
        """Whether the image's stop signal had not ended it in time: the guest was destroyed, or its init, which waits
        for ten seconds by itself, killed the service."""
        return self._killed or (self._console is not None and _KILLED in self._console.text())

    def delete(self) -> None:
        """Destroy it if it runs; returns when domain, QEMU process, console and root disk are seen to be gone."""
        try:
            self._remember_process()
            self.destroy()
            self._connected().unwatch(self.id)
        except DriverError as error:
            raise CleanupError(
                f"the domain {self.name} could not be removed: {error.brief}",
                details=error.details,
                resolution=error.resolution or f"virsh destroy {self.name}",
            ) from error
        if self._process is not None and not self._process.wait(_DESTROY_S):
            raise CleanupError(
                f"QEMU's process {self._process.pid} outlives its domain {self.name}",
                resolution=f"sudo kill -9 {self._process.pid}",
            )
        self._remove_files()

    def host_pids(self) -> Mapping[int, Role]:
        """QEMU's process: with user-mode networking and the console in a FIFO there is no other."""
        self._remember_process()
        return {self._process.pid: Role.VMM} if self._process is not None and self._process.alive() else {}

    def places(self) -> Sequence[Place]:
        """The port that its QEMU forwards from the host's loopback, its address on its run's bridge, and its vsock; or
        why it has none."""
        forwarded = [peers.on_host(USER_MODE, self.endpoint)] if self.endpoint is not None else []
        return [*forwarded, *joined_places(self._joined, service_port_of(self._xml), self._cid())]

    def reach(self, place: Place) -> Place | str:
        """What is on its bridge, this host by vsock, and all that its QEMU reaches, for which 10.0.2.2 is the host's
        loopback."""
        found = reach_joined(self._joined, place)
        return peers.reach_by_nat(place, GUEST_GATEWAY) if found is None else found

    @property
    def folder(self) -> Path | None:
        """The launch's own, in the run's directory."""
        return self._console_path.parent if self._console_path is not None else None

    @property
    def whole(self) -> bool:
        """Whether it is a whole guest, that hears of its power button and has a second port forwarded, to its sshd."""
        return has_ssh(self._xml)

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """What the guest boots from, which a run's launches share, and its own root disk's overlay and console."""
        own = [self._console_path.parent] if self._console_path is not None else []
        return {**boot_files_of(self._xml), "writable": own}

    def reported(self) -> Mapping[str, str]:
        """When the guest's kernel said that it has random numbers to give, by its own clock; a service that wants one
        earlier waits for it."""
        found = _RANDOM.search(self._console.text()) if self._console else None
        return {"crng init done": f"{found[1].decode()} s after the guest kernel's start"} if found else {}

    def guest_memory(self) -> GuestMemory:
        """What the domain was given."""
        return guest_memory_of(self._xml)

    def sleep_states(self) -> Mapping[SleepState, str]:
        """Suspended, or saved to a file; a transient domain cannot be stopped and kept."""
        return sleeping.STATES

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """Suspend or save it; returns when libvirt says that it is paused, or QEMU is seen to be gone. Raises
        DriverError."""
        require_offered(sleeping.STATES, state)
        domains = self._connected()
        domain = domains.find(self.id)
        if domain is None:
            raise DriverError(f"the domain {self.name} has ended, and cannot sleep")
        self._tell_end = domains.expect_sleep(self.id) or self._tell_end
        if state is SleepState.PAUSED:
            sleeping.pause(domain, timeout_s=timeout_s)
            return
        self._remember_process()
        sleeping.save(domain, self._saved, image_format=sleeping.save_format(domains.connection))
        if self._process is not None and not self._process.wait(timeout_s):
            raise DriverError(f"QEMU's process {self._process.pid} outlives the saving of its domain {self.name}")
        self._process = None

    def wake(self, state: SleepState) -> None:
        """Resume or restore it. Raises DriverError; what was saved stays until it is saved again or deleted."""
        require_offered(sleeping.STATES, state)
        domains = self._connected()
        domain = domains.find(self.id)
        if state is SleepState.SAVED:
            sleeping.restore(domains.connection, self._saved, self.name)
        elif domain is None:
            raise DriverError(f"the domain {self.name} has ended while it slept")
        else:
            sleeping.resume(domain)
        domains.awake(self.id, self._tell_end)

    def wake_copy(self) -> None:
        """End the domain that was restored, and restore it once more of the same file. Raises DriverError."""
        domains = self._connected()
        self._remember_process()
        self._tell_end = domains.expect_sleep(self.id) or self._tell_end
        self.destroy()
        if self._process is not None and not self._process.wait(_DESTROY_S):
            raise DriverError(f"QEMU's process {self._process.pid} outlives its domain {self.name}")
        self._process = None
        self.wake(SleepState.SAVED)

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:
        """The file that it is saved in."""
        return [self._saved] if state is SleepState.SAVED and self._saved.exists() else ()

    @property
    def _saved(self) -> Path:
        """In the launch's own folder, which goes with it."""
        if self._console_path is None:
            raise DriverError(f"the domain {self.name} has no folder of the lab's to be saved in")
        return self._console_path.parent / "saved"

    def _cid(self) -> int:
        """The CID of its vsock; 0 where it has none."""
        domain = self._connected().find(self.id) if self._joined.vsock else None
        if domain is None:
            return 0
        with translated("read a domain's devices"):
            return cid_of(domain.XMLDesc(0))

    def _remember_process(self) -> None:
        """Find QEMU by the UUID among its arguments, which only this domain's has (`-uuid`, given by libvirt)."""
        if self._process is not None:
            return
        for pid, entry in table().items():
            words = arguments(pid) if entry.name.startswith("qemu") else []
            if "-uuid" in words and words[words.index("-uuid") + 1 : words.index("-uuid") + 2] == [self.id]:
                self._process = entry.process
                return

    def _type_stop(self) -> bool:
        if self._console:
            return self._console.write(STOP_LINE)
        return self._console_path is not None and type_into(self._console_path, STOP_LINE)

    def _asked_until_it_ends(self, ask: Callable[[], bool], timeout_s: float) -> tuple[bool, bool]:
        """`ask` it again and again: a press of a power button is lost that comes before the system listens for it, and
        a line of a console may be; whether that could be done, and whether the guest has ended within `timeout_s`.
        Raises DriverError."""
        deadline = time.monotonic() + timeout_s
        asked = False
        while ask():
            asked = True
            left_s = deadline - time.monotonic()
            if self.ends(max(0.1, min(_ASK_AGAIN_S, left_s))):
                return True, True
            if left_s <= _ASK_AGAIN_S:
                break
        left_s = max(0.1, deadline - time.monotonic())
        return asked, self.ends(left_s) if asked else self._connected().find(self.id) is None

    def ends(self, timeout_s: float) -> bool:
        """Whether its guest has shut down and its QEMU has ended within `timeout_s`. Raises DriverError."""
        begun = time.monotonic()
        if not self._connected().await_end(self.id, timeout_s, or_shut=True):
            return False
        left = timeout_s - (time.monotonic() - begun)
        return self._process.wait(left) if self._process else self._connected().await_end(self.id, left)

    def destroy(self) -> None:
        """End it without asking it; returns when libvirt has let go of it. Raises DriverError, CleanupError."""
        self._connected().expect_end(self.id)
        # What has ended by itself libvirt is about to let go of; asked once more, it would begin anew.
        if self._process and not self._process.alive() and self._connected().await_end(self.id, _DESTROY_S):
            return
        domain = self._connected().find(self.id)
        if domain is None:
            return
        try:
            domain.destroy()
        except sdk().libvirtError as error:
            # It may have ended by itself just now, which libvirt tells in several ways: what counts is that it is gone.
            if not self._connected().await_end(self.id, 1.0):
                raise translate(error, "destroy the domain") from error
        if not self._connected().await_end(self.id, _DESTROY_S):
            raise CleanupError(
                f"libvirt still lists the domain {self.name} after destroying it",
                resolution=f"virsh destroy {self.name}",
            )

    def _remove_files(self) -> None:
        if self._console is not None:
            self._console.close()
        if self._console_path is None:
            return
        folder = self._console_path.parent
        if folder.name == self.name:  # as `launch` names it: never a directory of anybody else's
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                raise CleanupError(f"{folder} cannot be removed", resolution=f"sudo rm -r {folder}")


def _press_power_button(domain: libvirt.virDomain) -> None:
    domain.shutdownFlags(sdk().VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
