"""Host processes that cannot be mistaken for one another: a pid, and when it started."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lab.host import cgroup
from lab.host.ownership import start_ticks

_PROC = Path("/proc")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """One process of this boot; `started_ticks` (clock ticks after boot) tells it from a later one with its pid."""

    started_ticks: int
    pid: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has `pid` now; None when there is none, or only a zombie."""
        started = start_ticks(pid)
        return None if started is None else cls(started, pid)

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return start_ticks(self.pid) == self.started_ticks

    def send(self, number: signal.Signals) -> None:
        """Signal it, and never another that got its pid; nothing happens when it is gone. Raises PermissionError."""
        pidfd = self._open()
        if pidfd is None:
            return
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass  # it ended by itself just now
        finally:
            os.close(pidfd)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended within `timeout_s`; the kernel wakes this caller, whosever child it is (pidfd_open(2))."""
        pidfd = self._open()
        if pidfd is None:
            return True
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            return bool(poll.poll(max(0.0, timeout_s) * 1000))
        finally:
            os.close(pidfd)

    def _open(self) -> int | None:
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        # Looked at only now: the descriptor holds on to whichever process has the pid at this instant.
        if self.alive():
            return pidfd
        os.close(pidfd)
        return None


@dataclass(frozen=True, slots=True)
class Entry:
    """A process as a listing of /proc shows it (proc_pid_stat(5)); `name` is its first 15 bytes."""

    process: Process
    parent: int
    session: int
    name: str


def present(pids: Mapping[int, T]) -> dict[Process, T]:
    """Those of `pids` that run now, held on to: what ends later can be told from another that gets its pid."""
    return {process: what for pid, what in pids.items() if (process := Process.of(pid)) is not None}


def table() -> dict[int, Entry]:
    """Every process of the host that is no zombie, by pid, read once."""
    found: dict[int, Entry] = {}
    for directory in _PROC.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            stat = (directory / "stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        head, _, tail = stat.rpartition(b")")
        fields = tail.split()
        if fields[0] in (b"Z", b"X"):
            continue
        pid = int(directory.name)
        name = head.partition(b"(")[2].decode(errors="replace")
        found[pid] = Entry(Process(int(fields[19]), pid), int(fields[1]), int(fields[3]), name)
    return found


def held_still(pid: int) -> str:
    """How `pid` is kept from running: `stopped` (by SIGSTOP, state T in proc_pid_stat(5)) or `frozen` (by its cgroup's
    freezer); empty where it is not, or is gone."""
    try:
        state = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[:1]
    except (FileNotFoundError, ProcessLookupError):
        return ""
    if state in ([b"T"], [b"t"]):
        return "stopped"
    return "frozen" if any(one.frozen() for one in cgroup.freezers_of(pid)) else ""


def descendants(entries: dict[int, Entry], root: int) -> list[Entry]:
    """The children of `root` in `entries`, and theirs, without `root`."""
    children: dict[int, list[Entry]] = {}
    for entry in entries.values():
        children.setdefault(entry.parent, []).append(entry)
    found: list[Entry] = []
    pending = [root]
    while pending:
        for entry in children.get(pending.pop(), ()):
            found.append(entry)
            pending.append(entry.process.pid)
    return found


def arguments(pid: int) -> list[str]:
    """The command line of `pid`; empty when it is gone or may not be read."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def all_ended(processes: Iterable[Process], timeout_s: float) -> list[Process]:
    """Wait until `processes` have ended, `timeout_s` at most in all; returns those that have not."""
    deadline = time.monotonic() + timeout_s
    return [process for process in processes if not process.wait(deadline - time.monotonic())]
