"""Limits that hold a trouble in, read back from the kernel, and what tells afterwards by whom it was stopped.

A limit counts where each of the instance's processes is below it and nobody else is: one that is shared with others
would make them suffer as well (docs/method.md, rule 18). Where one cannot be shown, words say why.

Sources: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst and cgroup-v1/pids.rst of Linux; cgroups(7).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lab.host import cgroup
from lab.host.cgroup import Directory, Group
from lab.host.memory import available_bytes
from lab.host.procfs import read_int, read_text
from lab.units import MIB

_PROC = Path("/proc")
_CONSOLE = (
    re.compile(rb"Out of memory: Killed process \d+ \([^)]*\)"),
    re.compile(rb"Kernel panic - not syncing: [^\r\n]{0,120}"),
    re.compile(rb"lab-guest [^\r\n]{0,120}"),
)


class Limit(StrEnum):
    """What is limited; the value is the cgroup controller that does it."""

    MEMORY = "memory"
    PIDS = "pids"
    CPUS = "cpu"


_FILES = {
    (Limit.MEMORY, 1): "memory.limit_in_bytes",
    (Limit.MEMORY, 2): "memory.max",
    (Limit.PIDS, 1): "pids.max",
    (Limit.PIDS, 2): "pids.max",
    (Limit.CPUS, 1): "cpu.cfs_quota_us",
    (Limit.CPUS, 2): "cpu.max",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A limit that the kernel holds: `amount` in bytes, processes or CPUs, and the file that says so. `swap_bytes` may
    be taken beside an amount of memory."""

    limit: Limit
    amount: float
    file: Path
    version: int
    swap_bytes: int = 0

    def __str__(self) -> str:
        if self.limit is Limit.MEMORY:
            swap = f"and {self.swap_bytes / MIB:.0f} MiB of swap" if self.swap_bytes else "and no swap"
            return f"{self.amount / MIB:.0f} MiB {swap} ({self.file.name}, cgroup v{self.version})"
        unit = "processes" if self.limit is Limit.PIDS else "CPU" if self.amount == 1 else "CPUs"
        return f"{self.amount:g} {unit} ({self.file.name}, cgroup v{self.version})"


def held(limit: Limit, pids: Collection[int], own: Collection[int], *, proc: Path = _PROC) -> Held | str:
    """The limit that holds all of `pids`: the loosest of the tightest that each is under, among cgroups in which only
    processes of `own` are. Words where there is none, or it is more than this host could bear."""
    if not pids:
        return "no process of the instance is this host's, so that no limit can be read back"
    found: list[Held] = []
    for pid in pids:
        try:
            chain = own_levels(pid, limit, own, proc)
        except (FileNotFoundError, ProcessLookupError):  # it ended: no limit is wanted for it
            continue
        each = [one for directory in chain if (one := _read(limit, directory)) is not None]
        if not each:
            file = " or ".join(sorted({_FILES[limit, 1], _FILES[limit, 2]}))
            return f"no cgroup of the instance's own has a limit in {file}"
        found.append(min(each, key=lambda one: one.amount))
    if not found:
        return "the processes of the instance ended while their limits were read"
    loosest = max(found, key=lambda one: one.amount)
    if limit is Limit.MEMORY:
        return _with_swap(loosest, proc)
    if limit is Limit.PIDS:
        return _bearable_pids(loosest, proc)
    return loosest


def own_levels(pid: int, limit: Limit, own: Collection[int], proc: Path = _PROC) -> list[Directory]:
    """The cgroup of `pid` and those above it, as far as they hold processes of `own` and of nobody else. Raises
    FileNotFoundError where it is gone."""
    start = next((one for one in cgroup.of_process(pid, proc).directories if limit.value in one.controllers), None)
    return levels(start, own) if start is not None else []


def levels(start: Directory, own: Collection[int]) -> list[Directory]:
    """`start` and the cgroups above it in which only processes of `own` are. Threaded ones, as libvirt's of a VMM are,
    tell of no process (cgroup-v2.rst, 'Threads'): the one above that does stands for them."""
    found: list[Directory] = []
    for path in (start.path, *start.path.parents):
        if not found and read_text(path / "cgroup.type") == "threaded":
            continue
        here = Directory(path, start.version, start.controllers)
        members = Group("", (here,)).pids() if (path / "cgroup.procs").exists() else set()
        if not members or not members <= set(own):
            break
        if found and read_text(path / "memory.use_hierarchy") == "0":  # version 1 before Linux 5.11
            break
        found.append(here)
    return found


def _read(limit: Limit, directory: Directory) -> Held | None:
    told = Group("", (directory,)).limits()
    amount = {Limit.MEMORY: told.memory_bytes, Limit.PIDS: told.pids, Limit.CPUS: told.cpus}[limit]
    if amount is None:
        return None
    file = directory.path / _FILES[limit, directory.version]
    return Held(limit=limit, amount=amount, file=file, version=directory.version)


def _with_swap(found: Held, proc: Path) -> Held | str:
    """`found` with what may be swapped beside it, where that is bounded and its killer works."""
    directory = Directory(found.file.parent, found.version, frozenset({"memory"}))
    swap = Group("", (directory,)).limits().swap_bytes
    if swap is None and len((proc / "swaps").read_text().splitlines()) > 1:
        return "this host swaps, and no limit on the instance's swap can be read back"
    if re.search(r"^oom_kill_disable 1$", read_text(found.file.parent / "memory.oom_control") or "", re.MULTILINE):
        return "the kernel was told not to kill at the instance's memory limit (memory.oom_control)"
    bound = Held(limit=found.limit, amount=found.amount, file=found.file, version=found.version, swap_bytes=swap or 0)
    return unbearable_bytes(int(bound.amount)) or bound


def unbearable_bytes(amount: int) -> str:
    """Why this host could not bear an instance's using `amount` bytes of memory now; empty where it could."""
    available = available_bytes()
    if amount <= available:
        return ""
    return f"its limit of {amount // MIB} MiB is more than the {available // MIB} MiB that this host has left"


def _bearable_pids(found: Held, proc: Path) -> Held | str:
    most = [read_int(proc / "sys/kernel" / name) for name in ("pid_max", "threads-max")]
    bound = min((number for number in most if number is not None), default=0) // 2
    if found.amount > bound:
        return f"its limit of {found.amount:g} processes is more than half of what this host's kernel allows"
    return found


@dataclass(frozen=True, slots=True)
class Toll:
    """What the kernel had counted against an instance's cgroups at one time, by cgroup and counter."""

    counts: Mapping[Path, Mapping[str, int]]

    def since(self, before: Toll) -> dict[str, int]:
        """How much each counter rose: the most of any cgroup, as some kernels count in the one where it happened and
        others in the one that has the limit."""
        risen: dict[str, int] = {}
        for path, counters in self.counts.items():
            for name, count in counters.items():
                rise = count - before.counts.get(path, {}).get(name, 0)
                risen[name] = max(risen.get(name, 0), rise)
        return risen


def toll(groups: Iterable[Path]) -> Toll:
    """The counters of cgroup directories: `oom_kill`, `failcnt` (version 1: how often memory's limit was hit), `max`
    (how often a fork was refused), `nr_throttled` and `nr_periods`. Those that are gone have none."""
    counts: dict[Path, dict[str, int]] = {}
    for path in groups:
        found = _pairs(path / "memory.events", "oom_kill") | _pairs(path / "memory.oom_control", "oom_kill")
        found |= _pairs(path / "pids.events", "max") | _pairs(path / "cpu.stat", "nr_throttled", "nr_periods")
        failcnt = read_int(path / "memory.failcnt")
        counts[path] = found if failcnt is None else {**found, "failcnt": failcnt}
    return Toll(counts)


def directories(pids: Iterable[int], own: Collection[int]) -> list[Path]:
    """The cgroups of `pids`' own, in every hierarchy that limits, and those above them that are the instance's."""
    found: dict[Path, None] = {}
    for pid in pids:
        for limit in Limit:
            try:
                found.update((one.path, None) for one in own_levels(pid, limit, own))
            except (FileNotFoundError, ProcessLookupError):
                break
    return list(found)


def console_tells(before: bytes, after: bytes) -> Sequence[str]:
    """What a guest's console says since `before` of kills, panics and its init's end, each line once."""
    found: dict[str, None] = {}
    for pattern in _CONSOLE:
        known = len(pattern.findall(before))
        found.update((line.decode(errors="replace").strip(), None) for line in pattern.findall(after)[known:])
    return list(found)


def _pairs(path: Path, *names: str) -> dict[str, int]:
    lines = (line.split() for line in (read_text(path) or "").splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[0] in names and words[1].isdigit()}
