"""What of an instance can be seen from the host, before a trouble and after it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.driver import Instance
from lab.features import OnThisHost, Role
from lab.host.cgroup_memory import memory_of
from lab.host.limits import Toll, directories, toll
from lab.host.procfs import read_link
from lab.host.procs import Process
from lab.service.serving import workload
from lab.units import MIB

_NOISE_BYTES = 4 * MIB
"""Less is what the kernel keeps for processes that ended, and charges in batches to a cgroup: told as a figure only."""

_PROC = Path("/proc")
_SETTLES_WITHIN_S = 3.0
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """`processes` of the instance on this host, the bytes that its cgroups are charged, those of its own /tmp that are
    in use, and the kernel's counters; None is what cannot be seen from here."""

    processes: frozenset[Process]
    charged_bytes: int | None
    scratch_bytes: int | None
    toll: Toll
    console: bytes


def look(instance: Instance | None, at: Toll | None = None) -> Traces:
    """What there is now; the counters are those of the cgroups in `at`, else of those that the workload is in now."""
    pids: Mapping[int, Role] = instance.host_pids() if isinstance(instance, OnThisHost) else {}
    charged = memory_of(pids)
    return Traces(
        processes=frozenset(one for pid in pids if (one := Process.of(pid)) is not None),
        charged_bytes=charged.total_bytes if charged else None,
        scratch_bytes=_scratch_bytes(pids),
        toll=toll(at.counts if at is not None else directories(workload(pids), pids.keys())),
        console=instance.logs() if instance is not None else b"",
    )


def settled(instance: Instance | None, before: Traces) -> Traces:
    """What there is once nothing is left of what `before` did not have, or `_SETTLES_WITHIN_S` later: the kernel gives
    the memory of processes that ended back in its own time."""
    deadline = time.monotonic() + _SETTLES_WITHIN_S
    while True:
        after = look(instance, before.toll)
        if not _told(left(before, after)) or time.monotonic() > deadline:
            return after
        time.sleep(_LOOK_S)


def left(before: Traces, after: Traces) -> dict[str, int]:
    """What is there after a trouble and was not before: `processes`, and where it can be seen `charged` and `scratch`
    bytes, which may be negative."""
    found = {"processes": len(after.processes - before.processes)}
    for name in ("charged", "scratch"):
        was, now = getattr(before, f"{name}_bytes"), getattr(after, f"{name}_bytes")
        if was is not None and now is not None:
            found[name] = now - was
    return found


def left_said(found: Mapping[str, int], *, gone: bool) -> str:
    """`found` in words."""
    if told := _told(found):
        return ", ".join(told)
    return "nothing: no process of it is left" if gone else "nothing"


def _told(found: Mapping[str, int]) -> list[str]:
    told = []
    if found["processes"]:
        told.append(f"{found['processes']} processes that were not there before")
    if found.get("charged", 0) >= _NOISE_BYTES:
        told.append("memory that is still charged to it")
    if found.get("scratch", 0) > 0:
        told.append("files in its /tmp")
    return told


def _scratch_bytes(pids: Mapping[int, Role]) -> int | None:
    """What is in use of /tmp as the workload has it; None where that is the host's own, or may not be looked at."""
    own = read_link(_PROC / "self/ns/mnt")
    for pid in workload(pids):
        other = read_link(_PROC / str(pid) / "ns/mnt")
        if other is None or other == own or pids[pid] is not Role.SERVICE:
            continue
        try:
            told = os.statvfs(_PROC / str(pid) / "root/tmp")
        except OSError:
            continue
        return (told.f_blocks - told.f_bfree) * told.f_frsize
    return None
