"""What the kernel counts of an instance's lack of CPU, memory and disk while something else runs beside it.

Sources: Documentation/scheduler/sched-bwc.rst and admin-guide/cgroup-v2.rst (cpu.stat), accounting/psi.rst, and
proc_stat(5) for steal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.driver import Instance
from lab.errors import MeasurementError
from lab.features import OnThisHost, Role
from lab.host.cgroup import Directory, Group
from lab.host.limits import Limit, own_levels
from lab.host.procfs import read_cpu_ticks, read_text

RESOURCES = ("cpu", "memory", "io")
NO_GROUP = "its processes are in no cgroup of their own with a CPU controller"
NO_PRESSURE = "this kernel tells no pressure (PSI)"

_HOST_PRESSURE = Path("/proc/pressure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Strain:
    """Over one window: for how long and how often the instance was throttled by its CPU quota (None: its cgroup tells
    nothing), which share of the time something in it, or on the host, waited for a resource, and which share of the
    CPUs' time the host's own hypervisor took away (None: not told)."""

    throttled_s: float | None
    throttled_periods: int | None
    waited: Mapping[str, float]
    stolen: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The kernel's counters at one instant, `at_ns` of CLOCK_MONOTONIC."""

    at_ns: int
    throttled: tuple[int, int] | None  # ns and periods
    waited_us: Mapping[str, int] = field(default_factory=dict)
    ticks: tuple[int, int] | None = None

    def since(self, before: Reading) -> Strain:
        """What was counted between the two."""
        took_s = (self.at_ns - before.at_ns) / 1e9
        throttled = None
        if self.throttled is not None and before.throttled is not None:
            throttled = (self.throttled[0] - before.throttled[0], self.throttled[1] - before.throttled[1])
        return Strain(
            throttled_s=None if throttled is None else throttled[0] / 1e9,
            throttled_periods=None if throttled is None else throttled[1],
            waited={
                name: (told - before.waited_us[name]) / 1e6 / took_s
                for name, told in self.waited_us.items()
                if name in before.waited_us
            },
            stolen=self._stolen(before),
        )

    def _stolen(self, before: Reading) -> float | None:
        if self.ticks is None or before.ticks is None or self.ticks[1] <= before.ticks[1]:
            return None
        return (self.ticks[0] - before.ticks[0]) / (self.ticks[1] - before.ticks[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """Where an instance's counters are: its own cgroups, one below the other, of which any may have a quota (none: it
    is in others' alone), and the files of its pressure, which are the `whole_host`'s where its cgroups have none."""

    groups: Sequence[Path]
    pressure: Mapping[str, Path]
    whole_host: bool
    root: Path = Path("/")

    @classmethod
    def of(cls, instance: Instance | None) -> Gauge:
        """The counters of the cgroups that hold nobody else's processes; pressure is of the lowest that holds all that
        serve. Raises MeasurementError where the instance ends meanwhile."""
        pids: Mapping[int, Role] = instance.host_pids() if isinstance(instance, OnThisHost) else {}
        works = {pid for pid, role in pids.items() if role in (Role.SERVICE, Role.VMM)}
        levels: list[Directory] = []
        while works:
            try:
                levels = own_levels(min(works), Limit.CPUS, pids)
                break
            except (FileNotFoundError, ProcessLookupError) as error:
                works.remove(min(works))  # one that passed by, if others still work
                if not works:
                    raise MeasurementError("the instance ended while its cgroup was looked for") from error
        whole = next((one.path for one in levels if works <= Group("", (one,)).pids()), None)
        own = _pressure(whole, "{}.pressure") if whole is not None else {}
        return cls(
            groups=[one.path for one in levels],
            pressure=own or _pressure(_HOST_PRESSURE, "{}"),
            whole_host=not own,
        )

    def read(self) -> Reading:
        """The counters now; what cannot be read is left out."""
        waited = {name: _waited_us(read_text(path)) for name, path in self.pressure.items()}
        each = [found for group in self.groups if (found := _throttled(read_text(group / "cpu.stat"))) is not None]
        return Reading(
            at_ns=time.monotonic_ns(),
            throttled=max(each, default=None),  # the one with the quota counts, the others stay at 0
            waited_us={name: told for name, told in waited.items() if told is not None},
            ticks=read_cpu_ticks(self.root),
        )


def _pressure(directory: Path, name: str) -> dict[str, Path]:
    found = {resource: directory / name.format(resource) for resource in RESOURCES}
    return {resource: path for resource, path in found.items() if _waited_us(read_text(path)) is not None}


def _waited_us(text: str | None) -> int | None:
    """The total of the `some` line: for how long at least one task waited."""
    for line in (text or "").splitlines():
        words = dict(word.partition("=")[::2] for word in line.split()[1:])
        if line.startswith("some ") and words.get("total", "").isdigit():
            return int(words["total"])
    return None


def _throttled(text: str | None) -> tuple[int, int] | None:
    """cpu.stat's time in ns (version 1 tells it so, version 2 in µs) and periods."""
    told = dict(line.split(maxsplit=1) for line in (text or "").splitlines() if " " in line)
    if "nr_throttled" not in told:
        return None
    ns = int(told["throttled_time"]) if "throttled_time" in told else int(told.get("throttled_usec", "0")) * 1000
    return ns, int(told["nr_throttled"])
