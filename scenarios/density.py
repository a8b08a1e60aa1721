"""What does one more instance cost this machine, and how does the cost of starting it change with their number?

Every round has two walks, in an order shuffled anew by the run's seed: one up the levels 0 to `max`, one down. At each
level every instance is ready, all are of the same declared size, and `settle` seconds have passed.

| metric | what it is | unit |
|---|---|---|
| `level_bytes` (`of`=`available`, `level`, `walk`, `visit`) | MemAvailable with so many instances | bytes |
| `level_bytes` (`of`=`lab`) | the lab's own PSS then, which is taken out | bytes |
| `level_bytes` (`of`=`pss`, `cgroup`, `cgroup-page-cache`, `cgroup-kernel`, `page-tables`) | sums over the instances | bytes |
| `level_bytes` (`of`=`engine`) | the PSS of the engine's daemons that were there before and after `settle`, where they are known | bytes |
| `level_bytes` (`of`=`ksm-saved`) | what same-page merging saves on the machine | bytes |
| `level_bytes` (`of`=`floor`) | what was to be left available; at level 0 | bytes |
| `noise_bytes` | MemAvailable of two readings at N = 0, as far apart as two levels: the later less the earlier | bytes |
| `launch_s` (`level`) | `requested` to `ready` of the instance with which there are so many | s |
| `stopped_level` (`reason`) | the level above which the walks did not go, for the `floor`, for `time`, or `unserved: …` where one more did not become ready | instances |

Computed when shown, one value a walk: `marginal_bytes`, the slope of used memory over N, and `marginal_part_bytes` (`of`),
the slopes of the sums beside it and of their disagreements. MemAvailable counts what the kernel could give back at once,
page cache for the most part, as available: the cgroups' page cache is therefore in their sum and hardly in the slope.
Before each launch the whole declared size of one more instance must fit above `floor`; `within` bounds a walk's way up.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import ExitStack
from types import TracebackType
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from lab.errors import DriverError, DriverUnavailable, MeasurementError
from lab.features import EngineOnThisHost, Feature, OnThisHost
from lab.figures.density import AVAILABLE, CGROUP, FLOOR, LAB, LEVEL, PSS, default_floor_bytes
from lab.host import procs
from lab.host.cgroup_memory import CgroupMemory, memory_of
from lab.host.memory import (
    Account,
    account,
    available_bytes,
    ksm_saved_bytes,
    read_holding,
    refresh_counters,
    standing,
    total_bytes,
)
from lab.host.procs import Process
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service import ask
from lab.timeline import Phase
from lab.units import parse_bytes, parse_seconds

UP, DOWN = "up", "down"

Seconds = Annotated[float, BeforeValidator(parse_seconds)]
Size = Annotated[int, BeforeValidator(parse_bytes)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """Up to `max` instances and back, holding `hold` MiB each; `floor` is what must stay available."""

    max: Annotated[int, Field(ge=1, le=1024)] = 8
    floor: Annotated[Size, Field(ge=0)] | None = None
    within: Annotated[Seconds, Field(gt=0)] = 600.0
    settle: Annotated[Seconds, Field(ge=0, le=600)] = 1.0
    hold: Annotated[int, Field(ge=0, le=4096)] = 0

    name: ClassVar[str] = "density"
    question: ClassVar[str] = "What does one more instance cost this machine, and how many would fit?"
    headline: ClassVar[str] = "marginal_bytes"
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.HOST_PIDS})

    @property
    def launches(self) -> int:
        return 2 * self.max

    @property
    def at_once(self) -> int:
        return self.max

    @property
    def likely_s_per_round(self) -> float:
        return 2 * (self.max + 2) * self.settle

    def measure(self, bench: Bench) -> None:
        walks = [UP, DOWN]
        bench.random().shuffle(walks)  # the order as it was is kept with each reading, as `visit`
        with _Crowd(self, bench) as crowd:
            for walk in walks:
                crowd.go(walk)


class _Crowd:
    """The instances that there are now. Leaving the context removes them."""

    def __init__(self, plan: Density, bench: Bench) -> None:
        self._plan = plan
        self._bench = bench
        self._all = ExitStack()
        self._members: list[tuple[ExitStack, Session]] = []
        self._top = plan.max
        self._visits = 0
        self._floor_bytes = plan.floor if plan.floor is not None else default_floor_bytes(total_bytes())

    def __enter__(self) -> _Crowd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.__exit__(kind, error, trace)

    def go(self, walk: str) -> None:
        """One walk, with a reading at each level. Raises MeasurementError where not even one instance fits."""
        deadline = time.monotonic() + self._plan.within
        if walk == UP:
            while self._members:
                self._remove()
            self._look_at_none(walk)
        while self._may_add(deadline):
            if not self._add():
                continue
            if available_bytes() < self._floor_bytes:
                self._remove()
                self._stop("floor")
            elif walk == UP:
                self._look(walk)
        if walk == DOWN:
            while self._members:
                self._look(walk)
                self._remove()
            self._look_at_none(walk)

    def _may_add(self, deadline: float) -> bool:
        if len(self._members) >= self._top:
            return False
        if available_bytes() - self._bench.spec.memory_bytes < self._floor_bytes:
            self._stop("floor")
        elif self._members and time.monotonic() > deadline:
            self._stop("time")
        return len(self._members) < self._top

    def _stop(self, reason: str) -> None:
        """No walk of this round goes above the level where it is."""
        self._top = len(self._members)
        if self._top == 0:
            raise MeasurementError(
                f"stopped before the first instance: its {self._bench.spec.memory_bytes >> 20} MiB would leave less "
                f"than the floor of {self._floor_bytes >> 20} MiB available",
                resolution="free some memory, or give -p floor=SIZE or --memory",
            )
        self._bench.emit("stopped_level", self._top, "instances", reason=reason)

    def _add(self) -> bool:
        """One more, and whether it is there: what the walk has measured stays where it is not. Raises DriverError for
        the first."""
        own = self._all.enter_context(ExitStack())
        try:
            session = own.enter_context(self._bench.session())
            if self._plan.hold:
                ask.hold(session, self._plan.hold)
        except DriverError as error:
            if not self._members or isinstance(error, DriverUnavailable):
                raise
            own.__exit__(type(error), error, error.__traceback__)
            self._stop(f"unserved: {error.brief}")
            return False
        self._members.append((own, session))
        end = Phase.READY if Phase.READY in session.timeline else Phase.LISTENING
        seconds = session.timeline.duration_s(Phase.REQUESTED, end)
        level = str(len(self._members))
        self._bench.emit("launch_s", seconds, "s", level=level, wait_method=session.wait_method)
        return True

    def _remove(self) -> None:
        own, _ = self._members.pop()
        own.close()

    def _look_at_none(self, walk: str) -> None:
        """The reading without instances, and one more as long after it as another level would be, for the noise."""
        first = self._look(walk)
        self._emit(walk, FLOOR, self._floor_bytes)
        time.sleep(self._plan.settle)
        refresh_counters()
        self._bench.emit("noise_bytes", available_bytes() - first, "bytes")

    def _look(self, walk: str) -> int:
        """Read everything at this level; what is available first, before the reading itself takes any."""
        engine = self._engine()
        time.sleep(self._plan.settle)
        refresh_counters()
        available = available_bytes()
        self._emit(walk, AVAILABLE, available)
        self._emit(walk, LAB, read_holding(os.getpid()).pss_bytes)
        if isinstance(self._bench.driver, EngineOnThisHost):
            # What passed by (a network plugin of a pod that has just gone) is no part of what stands.
            self._emit(walk, "engine", sum(one.pss_bytes for one in standing(engine).values()))
        saved = ksm_saved_bytes()
        if saved is not None:
            self._emit(walk, "ksm-saved", saved)
        found = [_account(session) for _, session in self._members]
        self._emit(walk, PSS, sum(one.pss_bytes for one in found))
        self._emit(walk, "page-tables", sum(one.page_table_bytes for one in found))
        charged = [memory_of(one.by_pid) for one in found]
        self._emit_cgroups(walk, [one for one in charged if one is not None], len(charged))
        self._visits += 1
        return available

    def _engine(self) -> Collection[Process]:
        driver = self._bench.driver
        return procs.present(driver.engine_pids()) if isinstance(driver, EngineOnThisHost) else ()

    def _emit_cgroups(self, walk: str, charged: list[CgroupMemory], expected: int) -> None:
        if len(charged) < expected:  # an instance without a cgroup of its own would make the sum too small
            return
        self._emit(walk, CGROUP, sum(one.total_bytes for one in charged))
        self._emit(walk, "cgroup-page-cache", sum(one.cache_bytes for one in charged))
        kernel = [one.kernel_bytes for one in charged if one.kernel_bytes is not None]
        if len(kernel) == expected:
            self._emit(walk, "cgroup-kernel", sum(kernel))

    def _emit(self, walk: str, of: str, value: float) -> None:
        level = str(len(self._members))
        self._bench.emit(LEVEL, value, "bytes", of=of, level=level, walk=walk, visit=str(self._visits))


def _account(session: Session) -> Account:
    if not isinstance(session.instance, OnThisHost):
        raise DriverError("the engine says that it tells its instances' processes, and this instance does not")
    return account(session.instance.host_pids)
