"""All processes of one launch: those in its cgroup, in its main process's session, or with its labels."""

from __future__ import annotations

import signal
import time
from collections.abc import Collection

from drivers.barehost.labelled import environments
from lab.errors import DriverError
from lab.host import cgroup, procs
from lab.host.procs import Process

_KILL_TIMEOUT_S = 10.0


class Members:
    """Those of `launch`; `main` is the leader of its session where this lab started it. `what` names it in errors."""

    def __init__(self, what: str, launch: str, group: cgroup.Group, main: Process | None) -> None:
        self._what = what
        self._launch = launch
        self._group = group
        self._main = main
        self._ended = False

    def all(self) -> set[Process]:
        """Those that run now."""
        if self._ended:
            return set()
        pids = set(self._group.pids())
        if self._main is not None:
            pids.update(pid for pid, entry in procs.table().items() if entry.session == self._main.pid)
        pids.update(found.pids if (found := environments().get(self._launch)) else ())
        return {process for pid in pids if (process := Process.of(pid)) is not None}

    def kill(self) -> None:
        """SIGKILL to all, until none is left; from then on there are none. Raises DriverError, PermissionError."""
        self.kill_but(())
        # From here on the kernel may give the number of the service's session to another.
        self._ended = True

    def kill_but(self, spared: Collection[Process]) -> None:
        """SIGKILL to all others than `spared`, until none of them is left. Raises DriverError, PermissionError."""
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        # Again and again, since a member may fork between the listing and the signal.
        while members := self.all() - set(spared):
            for member in members:
                member.send(signal.SIGKILL)
            if procs.all_ended(members, deadline - time.monotonic()):
                raise DriverError(f"{self._what} does not end, though it was killed", details=f"processes: {members}")
