"""A launched whole guest: a domain, and the way into it by SSH."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from drivers.libvirt.engine import sdk
from drivers.libvirt.instance import LibvirtInstance
from drivers.libvirt.whole.progress import Progress
from drivers.libvirt.whole.way_in import NotYet, WayIn
from lab.driver import Mark
from lab.errors import DriverError
from lab.features import ExecResult, GuestMemory, Role, SleepState
from lab.spec import Endpoint
from lab.timeline import Phase, Source

if TYPE_CHECKING:
    import libvirt

_HEARD_S = 10.0
"""So long after a request to shut down the console's first word of that is waited for, before another way is tried."""
_LOGINS = 5
_BETWEEN_LOGINS_S = 5.0
_LOGIN_S = 60.0
_ANALYZE_S = 30.0
_ANALYZE = ("systemd-analyze", "time")


class Login:
    """The first login, tried once the console says that it may succeed, by a thread of its own: with a new connection
    each time, and rarely. Marks `login` when its command has answered."""

    def __init__(self, way_in: WayIn, progress: Progress, mark: Mark) -> None:
        self._way_in = way_in
        self._progress = progress
        self._mark = mark
        self._over = threading.Event()
        self._marking = threading.Lock()
        self._stopped = False
        self.error: DriverError | None = None
        self.succeeded = False
        self.attempts = 0
        self._thread = threading.Thread(target=self._run, name="login", daemon=True)
        self._thread.start()

    def forget(self) -> None:
        """Mark nothing any more, and try no more. Idempotent."""
        with self._marking:
            self._stopped = True
        self._over.set()
        self._progress.reachable.set()
        self._way_in.abort()

    def close(self) -> None:
        """`forget`, and wait for the thread's end: an attempt under way ends once the guest has. Idempotent."""
        self.forget()
        self._thread.join()

    def wait(self, timeout_s: float) -> None:
        """Until it has succeeded, or is given up; or for so long."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        self._progress.reachable.wait()
        while not self._stopped:
            self.attempts += 1
            try:
                self._way_in.run(["true"], timeout_s=_LOGIN_S)
            except NotYet as error:
                self.error = error
                if self.attempts >= _LOGINS:
                    return
                self._over.wait(_BETWEEN_LOGINS_S)
                continue
            except DriverError as error:
                self.error = error
                return
            with self._marking:
                if not self._stopped:
                    self.error, self.succeeded = None, True
                    self._mark(Phase.LOGIN, source=Source.RETURN)
            return


class WholeInstance:
    """A guest that this process launched, with a way in; or one found by its labels, without."""

    def __init__(
        self,
        domain: LibvirtInstance,
        *,
        folder: Path | None,
        environment: Mapping[str, str] | None = None,
        way_in: WayIn | None = None,
        login: Login | None = None,
        progress: Progress | None = None,
        unit: str = "",
    ) -> None:
        """`unit` is a user's own, whose journal is part of the log."""
        self._domain = domain
        self._folder = folder
        self._environment = environment or {}
        self._way_in = way_in
        self._login = login
        self._progress = progress or Progress()
        self._unit = unit
        self._journal = b""
        self._analyzed = ""
        self._stopped_by = ""

    @property
    def id(self) -> str:
        return self._domain.id

    @property
    def name(self) -> str:
        """libvirt's."""
        return self._domain.name

    @property
    def labels(self) -> Mapping[str, str]:
        return self._domain.labels

    @property
    def endpoint(self) -> Endpoint | None:
        return self._domain.endpoint

    def logs(self) -> bytes:
        """The end of the console, on which the lab's own service writes; of a user's unit, its journal after that."""
        if self._unit and self._reached():
            with contextlib.suppress(DriverError):  # what was read before is better than nothing
                told = self.exec(["journalctl", "--no-pager", "-o", "cat", "-n", "500", "-u", self._unit], timeout_s=20)
                self._journal = told.stdout[-(32 * 1024) :]
        return (self._domain.logs() + self._journal)[-(64 * 1024) :]

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run `argv` as root by SSH, with the service's environment. Raises DriverError."""
        if self._way_in is None or self._login is None:
            raise DriverError(f"only the process that launched {self.name} has the key to it")
        self._login.wait(timeout_s)
        return self._way_in.run(argv, timeout_s=timeout_s, environment=self._environment)

    def settle(self, *, timeout_s: float) -> None:
        """Return once systemd has said that the boot is finished, and the lab has logged in; or after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        self._progress.settled.wait(timeout_s)
        if self._login is not None:
            self._login.wait(max(0.0, deadline - time.monotonic()))
        if self._reached() and self._progress.settled.is_set() and not self._analyzed:
            with contextlib.suppress(DriverError):  # a fact beside
                told = self.exec(_ANALYZE, timeout_s=_ANALYZE_S)
                self._analyzed = " ".join(told.stdout.decode(errors="replace").split())

    def reported(self) -> Mapping[str, str]:
        """systemd's own words, and how the guest was brought to its end."""
        told = {
            "systemd's state": self._progress.state,
            "systemd-analyze": self._analyzed,
            "stopped by": self._stopped_by,
            "no login": self._login.error.brief if self._login and self._login.error else "",
        }
        return {**self._domain.reported(), **{name: text for name, text in told.items() if text}}

    def stop(self, *, timeout_s: float) -> None:
        """Press its power button (ACPI); where its console says nothing of that, ask by SSH; in the end destroy it.
        Returns when libvirt says that it has shut down and its QEMU has ended. Raises DriverError."""
        if not self._domain.expect_end():
            return
        deadline = time.monotonic() + timeout_s
        for way, ask in (("ACPI", self._press), ("SSH", self._power_off)):
            if ask() and self._shuts_down(deadline, last=way == "SSH"):
                self._stopped_by = way
                return
        self._stopped_by = "destroyed"
        self._domain.destroy()

    def was_killed(self) -> bool:
        """Whether it had to be destroyed."""
        return self._stopped_by == "destroyed"

    def delete(self) -> None:
        """Destroy it if it runs; returns when domain, QEMU, console, its files and the way in are gone."""
        if self._login is not None:
            self._login.forget()
        try:
            self._domain.delete()
        finally:
            if self._login is not None:
                self._login.close()
            if self._way_in is not None:
                self._way_in.close()

    def host_pids(self) -> Mapping[int, Role]:
        """QEMU's process."""
        return self._domain.host_pids()

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """Kernel and disk, which a run's launches share; the launch's own initramfs, and its layer over the disk."""
        own = [self._folder / "root.qcow2"] if self._folder else []
        return {**self._domain.storage(), "writable": [path for path in own if path.exists()]}

    def guest_memory(self) -> GuestMemory:
        """What the domain was given."""
        return self._domain.guest_memory()

    def sleep_states(self) -> Mapping[SleepState, str]:
        """As any domain."""
        return self._domain.sleep_states()

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """As any domain. Raises DriverError."""
        self._domain.sleep(state, timeout_s=timeout_s)

    def wake(self, state: SleepState) -> None:
        """As any domain. Raises DriverError."""
        self._domain.wake(state)

    def wake_copy(self) -> None:
        """As any domain. Raises DriverError."""
        self._domain.wake_copy()

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:
        """As any domain. Raises DriverError."""
        return self._domain.sleeps_on(state)

    def _reached(self) -> bool:
        return self._login is not None and self._login.succeeded

    def _press(self) -> bool:
        def press(domain: libvirt.virDomain) -> None:
            domain.shutdownFlags(sdk().VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

        return self._domain.ask(press)

    def _power_off(self) -> bool:
        if not self._reached():
            return False
        with contextlib.suppress(DriverError):  # the connection may end before the command has
            self.exec(["systemctl", "poweroff"], timeout_s=_HEARD_S)
        return True

    def _shuts_down(self, deadline: float, *, last: bool) -> bool:
        """Whether it is off by `deadline`; unless it is the `last` way, one that is not heard is not waited for."""
        left_s = deadline - time.monotonic()
        if not last and not self._progress.ending.wait(max(0.0, min(_HEARD_S, left_s))):
            return False
        return self._domain.ends(max(0.1, deadline - time.monotonic()))
