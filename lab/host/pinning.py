"""To which CPUs an instance is held, read back from the kernel, and how the CPUs of this host lie to each other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.driver import Instance
from lab.errors import MeasurementError
from lab.features import OnThisHost, Role
from lab.host.procfs import read_cpu_list, read_fields, read_int, read_text
from lab.units import quantity

_CPUS = Path("/sys/devices/system/cpu")
_PROC = Path("/proc")
_WORKS = frozenset({Role.SERVICE, Role.VMM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which CPU victim and antagonist are each held to, and which the load's client."""

    victim: int
    antagonist: int
    client: tuple[int, ...]


def cpu_list(cpus: Iterable[int]) -> str:
    """CPUs in the list format of cpuset(7), such as `0,2`; empty for none."""
    return ",".join(str(cpu) for cpu in sorted(set(cpus)))


def pinned_to(instance: Instance | None) -> frozenset[int]:
    """Every CPU that any thread of the instance's service or VMM may run on now (`Cpus_allowed_list` of
    proc_pid_status(5)). Raises MeasurementError where no such thread can be looked at."""
    pids: Mapping[int, Role] = instance.host_pids() if isinstance(instance, OnThisHost) else {}
    found: set[int] = set()
    for pid, role in pids.items():
        if role in _WORKS:
            for status in (_PROC / str(pid) / "task").glob("*/status"):
                found.update(read_cpu_list(read_fields(status).get("Cpus_allowed_list")))
    if not found:
        raise MeasurementError("the kernel tells of no thread of the instance which CPUs it may run on")
    return frozenset(found)


def require_pinned(instance: Instance | None, cpuset: Sequence[int]) -> None:
    """Raises MeasurementError unless every thread of the service or VMM is held to `cpuset`."""
    held = pinned_to(instance)
    if not held <= set(cpuset):
        wanted = cpu_list(cpuset)
        raise MeasurementError(f"the instance was to be held to CPU {wanted}, and may run on {cpu_list(held)}")


def cores(usable: Iterable[int] | None = None, cpus: Path = _CPUS) -> list[tuple[int, ...]]:
    """The CPUs that this process may use (or `usable`), by core: SMT siblings, which share one, are together."""
    allowed = sorted(os.sched_getaffinity(0) if usable is None else usable)
    found: dict[int, list[int]] = {}
    for cpu in allowed:
        siblings = read_cpu_list(read_text(cpus / f"cpu{cpu}/topology/thread_siblings_list")) or [cpu]
        found.setdefault(min(siblings), []).append(cpu)
    return [tuple(core) for core in found.values()]


def placement(*, shared: bool, by_core: Sequence[Sequence[int]]) -> Placement | None:
    """Victim and antagonist on one CPU, or on two cores; None where there is but one.

    The client has all cores that neither of them uses. Where none is left, it shares the victim's: what it takes there
    it takes with and without the antagonist, and the antagonist cannot make it late.
    """
    if not shared and len(by_core) < 2:
        return None
    victim = by_core[0][0]
    antagonist = victim if shared else by_core[1][0]
    free = [cpu for core in by_core[1 if shared else 2 :] for cpu in core]
    return Placement(victim=victim, antagonist=antagonist, client=tuple(free) or (victim,))


def in_common(first: int, second: int, cpus: Path = _CPUS) -> list[str]:
    """What two CPUs share by the kernel's word (sysfs: topology, cache/index*), nearest first: as `L3 cache (32 MiB)`.
    A hypervisor may tell of caches that are not as it says."""
    if first == second:
        return ["the CPU itself"]
    found = []
    topology = cpus / f"cpu{first}/topology"
    if second in read_cpu_list(read_text(topology / "thread_siblings_list")):
        found.append("the core (SMT siblings)")
    for cache in sorted((cpus / f"cpu{first}/cache").glob("index*")):
        if second in read_cpu_list(read_text(cache / "shared_cpu_list")):
            found.append(_cache(cache))
    package = read_int(topology / "physical_package_id")
    if package is not None and package == read_int(cpus / f"cpu{second}/topology/physical_package_id"):
        found.append("the socket with its memory bus")
    return found


def largest_cache_bytes(caches: Path = _CPUS / "cpu0/cache") -> int:
    """The largest cache of the first CPU, as the kernel names it (sysfs, cache/index*/size, in K); 0 where it names
    none."""
    sizes = [path.read_text().strip() for path in caches.glob("index*/size")]
    return max((int(size.removesuffix("K")) * 1024 for size in sizes), default=0)


def _cache(index: Path) -> str:
    level, kind = read_text(index / "level") or "?", read_text(index / "type") or "Unified"
    size = (read_text(index / "size") or "").removesuffix("K")
    name = f"L{level} cache" if kind == "Unified" else f"L{level} {kind.lower()} cache"
    return f"{name} ({quantity(int(size) * 1024, 'bytes')})" if size.isdigit() else name
