"""The processes of a function behind a socket, by what each does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lab.errors import DriverError
from lab.features import CallPhase, Role, SleepState
from lab.host import procs
from lab.host.procfs import read_link
from lab.host.procs import Process
from lab.launch.asleep import require_offered

_ROLES = {"enter": Role.SHIM, "activator": Role.SHIM, "systemd-socket-proxyd": Role.PROXY}
"""By the name of their program, up to what tells builds of the lab's apart; all others are the service's."""

Seen = Callable[[str, CallPhase, str], None]
"""Who is told of a worker's phases (`Invoked.follow`)."""

_STATES: Mapping[SleepState, str] = {SleepState.ZERO: ""}


def role_of(process: Process) -> Role:
    """What it does for the function."""
    name = Path(read_link(Path(f"/proc/{process.pid}/exe")) or "").name
    return next((role for start, role in _ROLES.items() if name == start or name.startswith(f"{start}-")), Role.SERVICE)


def name_of(process: Process) -> str:
    """A worker's name, which no other process of this boot ever bears."""
    return f"{process.pid}-{process.started_ticks}"


def workers_among(members: Iterable[Process]) -> list[Process]:
    """The service's own first processes: not its children, and nobody who only starts or forwards."""
    serving = {member.pid: member for member in members if role_of(member) is Role.SERVICE}
    entries = procs.table()
    parents: Mapping[int, int] = {pid: entries[pid].parent for pid in serving if pid in entries}
    return sorted(member for pid, member in serving.items() if pid in parents and parents[pid] not in serving)


class KeptSocket(ABC):
    """What sleeps behind a socket, whoever keeps that (`Sleeps`): it sleeps when it has no worker."""

    @abstractmethod
    def workers(self) -> Sequence[str]:
        """As `Invoked.workers`."""

    @abstractmethod
    def force_cold(self, *, timeout_s: float) -> None:
        """As `Invoked.force_cold`."""

    def sleep_states(self) -> Mapping[SleepState, str]:
        """Zero: the socket is kept, and nothing of the service runs."""
        return _STATES

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """End every worker, and see that there is none. Raises Unsupported for any other state, DriverError where it
        was called meanwhile."""
        require_offered(_STATES, state)
        self.force_cold(timeout_s=timeout_s)
        if found := self.workers():
            raise DriverError(f"the function was called again: worker {found[0]} runs")

    def wake(self, state: SleepState) -> None:  # noqa: B027  nothing is to be done
        """Nothing: the connection itself wakes it."""

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:  # noqa: ARG002  it is zero
        """None: only the socket is held."""
        return ()
