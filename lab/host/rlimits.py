"""What a process may have of the kernel beside its cgroup (setrlimit(2)): one set for the service on every target.

Left alone, each platform hands on what it was started with: a daemon's 20,000 open files, a shell's 256, a guest's
1,024. A service that closes every descriptor, or sizes a table by them, then boots in another time.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path

from lab.host.procfs import read_fields, read_int

UNLIMITED = resource.RLIM_INFINITY

WANTED: Mapping[str, tuple[int, int]] = {
    "core": (0, UNLIMITED),
    "memlock": (8 * 1024 * 1024, 8 * 1024 * 1024),
    "nofile": (1024, 524_288),
    "nproc": (UNLIMITED, UNLIMITED),
    "sigpending": (UNLIMITED, UNLIMITED),
    "stack": (8 * 1024 * 1024, UNLIMITED),
}
"""Soft and hard. Open files, memory that may be locked and cores as systemd gives its services (systemd-system.conf(5),
DefaultLimitNOFILE= and its kin), processes as Docker's own unit has them; the cgroup bounds these."""

_NUMBERS = {
    "core": resource.RLIMIT_CORE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "sigpending": 11,  # asm-generic/resource.h; Python has no name for it
    "stack": resource.RLIMIT_STACK,
}
_TITLES = {
    "core": "Max core file size",
    "memlock": "Max locked memory",
    "nofile": "Max open files",
    "nproc": "Max processes",
    "sigpending": "Max pending signals",
    "stack": "Max stack size",
}
_CAP_SYS_RESOURCE = 24  # linux/capability.h
_NR_OPEN = Path("/proc/sys/fs/nr_open")

Rlimits = Mapping[str, tuple[int, int]]
"""Soft and hard of each, by setrlimit's name without RLIMIT_, in lower case."""


def granted(
    *pids: int, user_namespace: bool = False, proc: Path = Path("/proc"), nr_open: Path = _NR_OPEN
) -> dict[str, tuple[int, int]]:
    """`WANTED`, as far as this process can give it, and the processes `pids`, an engine's daemons, can hand it on.

    Who has no CAP_SYS_RESOURCE raises no hard limit, nor who has it in a `user_namespace` of the engine's alone
    (user_namespaces(7)). A daemon that cannot be looked at is taken to be able to.
    """
    ceilings = [_ceiling(proc / name, raises=not user_namespace) for name in ("self", *map(str, pids))]
    found = dict(WANTED)
    if (most := read_int(nr_open)) is not None:
        ceilings.append({"nofile": most})
    for ceiling in ceilings:
        for name, limit in ceiling.items():
            soft, hard = found[name]
            found[name] = (_least(soft, limit), _least(hard, limit))
    return found


def told(limits: Rlimits) -> dict[str, str]:
    """Each limit in words: `1024:524288`, or one number where both are the same."""
    return {
        name: _word(soft) if soft == hard else f"{_word(soft)}:{_word(hard)}" for name, (soft, hard) in limits.items()
    }


def numbered(limits: Rlimits) -> list[str]:
    """Each limit as the lab's own programs are told it: `NUMBER:SOFT:HARD`, in the kernel's numbers."""
    return [f"{_NUMBERS[name]}:{soft % 2**64}:{hard % 2**64}" for name, (soft, hard) in limits.items()]


def _ceiling(process: Path, *, raises: bool) -> dict[str, int]:
    """The hard limits that a process cannot raise; none where it may, or where it is not to be seen."""
    try:
        lines = (process / "limits").read_text().splitlines()
        effective = int(read_fields(process / "status").get("CapEff", "0"), 16)
    except (OSError, ValueError):
        return {}
    if raises and effective >> _CAP_SYS_RESOURCE & 1:
        return {}
    found = {}
    for name, title in _TITLES.items():
        for line in lines:
            if line.startswith(title):
                hard = line.removeprefix(title).split()[1]
                found[name] = UNLIMITED if hard == "unlimited" else int(hard)
    return found


def _least(one: int, other: int) -> int:
    limits = [limit for limit in (one, other) if limit != UNLIMITED]
    return min(limits) if limits else UNLIMITED


def _word(limit: int) -> str:
    return "unlimited" if limit == UNLIMITED else str(limit)
