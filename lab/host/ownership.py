"""Who made an object: enough, in one label, to tell whether its maker still lives."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab.errors import BadInput


@dataclass(frozen=True, slots=True)
class Owner:
    """One process of one boot of one machine; its text form is the label `lab.owner`.

    `start_ticks` (field 22 of /proc/PID/stat, proc_pid_stat(5)) tells the process from a later one with its pid.
    """

    machine: str
    boot: str
    pid: int
    start_ticks: int

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        pid = os.getpid()
        start = start_ticks(pid)
        if start is None:
            raise RuntimeError("/proc shows no such process as this one")
        return cls(_machine_id(), _boot_id(), pid, start)

    @classmethod
    def parse(cls, text: str) -> Owner:
        """The inverse of `str`. Raises BadInput."""
        try:
            machine, boot, pid, start = text.split(":")
            return cls(machine, boot, int(pid), int(start))
        except ValueError as error:
            raise BadInput(f"'{text}' does not name an owner") from error

    def __str__(self) -> str:
        return f"{self.machine}:{self.boot}:{self.pid}:{self.start_ticks}"

    def alive(self) -> bool | None:
        """Whether the process still runs; None where it belongs to another machine, so that this one cannot know."""
        if self.machine != _machine_id():
            return None
        return self.boot == _boot_id() and start_ticks(self.pid) == self.start_ticks


def owner_alive(labels: Mapping[str, str]) -> bool | None:
    """`Owner.alive` of the owner that `labels` name; an object whose owner is unreadable has a dead one."""
    try:
        return Owner.parse(labels.get("lab.owner", "")).alive()
    except BadInput:
        return False


def start_ticks(pid: int) -> int | None:
    """When `pid` started, in clock ticks after boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@cache
def _machine_id() -> str:
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isalnum():
            return text
    return "unknown"


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
