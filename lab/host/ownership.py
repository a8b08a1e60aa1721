"""Who made an object: enough, in one label, to tell whether its maker still lives.

Only what is proven dead is told as dead. A process is known by its number only where that number means the same: on the
same kernel, in the same PID namespace. Whoever looks from another container, another boot or another machine can
be sharing an engine with a living owner, whose process is not to be seen from there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab.errors import BadInput
from lab.host.procfs import read_fields, read_mounts

_NO_MACHINE = "unknown"
_INITIAL_NAMESPACE = str(0xEFFFFFFC)
"""The PID namespace from which every process of the kernel is seen (linux/proc_ns.h, PROC_PID_INIT_INO)."""
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Owner:
    """One process of one boot of one machine; its text form is the label `lab.owner`.

    `start_ticks` (field 22 of /proc/PID/stat, proc_pid_stat(5)) tells the process from a later one with its pid.
    `namespace` is the inode of the PID namespace in which `pid` counts; labels of older labs do not tell it.
    """

    machine: str
    boot: str
    pid: int
    start_ticks: int
    namespace: str = ""

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        pid = os.getpid()
        start = start_ticks(pid)
        if start is None:
            raise RuntimeError("/proc shows no such process as this one")
        return cls(_machine_id(), _boot_id(), pid, start, _pid_namespace())

    @classmethod
    def parse(cls, text: str) -> Owner:
        """The inverse of `str`. Raises BadInput."""
        try:
            machine, boot, pid, start, *namespace = text.split(":")
            if len(namespace) > 1 or int(pid) < 1:
                raise ValueError("another form")
            return cls(machine, boot, int(pid), int(start), *namespace)
        except ValueError as error:
            raise BadInput(f"'{text}' does not name an owner") from error

    def __str__(self) -> str:
        told = f"{self.machine}:{self.boot}:{self.pid}:{self.start_ticks}"
        return f"{told}:{self.namespace}" if self.namespace else told

    def host(self) -> str:
        """How the text form of every owner on this host begins, in any boot; where the host has no id, in this one."""
        return f"{self.machine}:" if self.machine != _NO_MACHINE else f"{self.machine}:{self.boot}:"

    def alive(self) -> bool | None:
        """Whether the process still runs; None where that cannot be known from here, as `unseen` says why."""
        if not self._of_this_boot():
            return None
        if self.namespace == _pid_namespace():
            return _lives(self.pid, self.start_ticks)
        if _pid_namespace() == _INITIAL_NAMESPACE:
            return _lives_below(self.pid, self.start_ticks)
        return True if start_ticks(self.pid) == self.start_ticks and not self.namespace else None

    def unseen(self) -> str:
        """Why `alive` may not know, in words."""
        if self._of_this_boot():
            return "in a PID namespace that is not seen from here"
        if self.machine == _machine_id() != _NO_MACHINE:
            return "of another boot of this machine, or of another machine with the same id"
        return "of another machine"

    @property
    def names_machine(self) -> bool:
        """Whether its machine has an id; the image of a container often has none."""
        return self.machine != _NO_MACHINE

    def of_an_earlier_boot(self) -> bool:
        """Whether it is of this machine's id and another boot: of an earlier one, if no other machine has that id."""
        return self.machine == _machine_id() != _NO_MACHINE and self.boot != _boot_id()

    def _of_this_boot(self) -> bool:
        """Whether it runs or ran on this very kernel. A container's image often has no machine id; machines that were
        cloned while they ran have one boot id, and perhaps each an id of its own."""
        return self.boot == _boot_id() and (
            self.machine == _machine_id() or _NO_MACHINE in (self.machine, _machine_id())
        )


def owner_alive(labels: Mapping[str, str]) -> bool | None:
    """`Owner.alive` of the owner that `labels` name; None also where none can be read from them, as from those of a
    later lab."""
    try:
        return Owner.parse(labels.get("lab.owner", "")).alive()
    except BadInput:
        return None


def start_ticks(pid: int) -> int | None:
    """When `pid` started, in clock ticks after boot; None when it is gone or a zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _lives(pid: int, ticks: int) -> bool | None:
    """Whether the process `pid` of this namespace is the one that started at `ticks`."""
    started = start_ticks(pid)
    if started is not None:
        return started == ticks
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    # It is there: a zombie, which is dead, or one that /proc hides from this user (proc(5), hidepid).
    return False if (_PROC / str(pid)).exists() else None


def _lives_below(pid: int, ticks: int) -> bool | None:
    """Whether a process of this or any namespace below is called `pid` in its own and started at `ticks`."""
    for place in _PROC.glob("[0-9]*"):
        numbers = read_fields(place / "status").get("NSpid", "").split()
        if numbers and numbers[-1] == str(pid) and start_ticks(int(place.name)) == ticks:
            return True
    hidden = any("hidepid" in mount.super_options for mount in read_mounts(Path("/")) if mount.point == str(_PROC))
    return None if hidden and os.geteuid() != 0 else False


@cache
def _machine_id() -> str:
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isalnum():
            return text
    return _NO_MACHINE


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@cache
def _pid_namespace() -> str:
    return str((_PROC / "self/ns/pid").stat().st_ino)
