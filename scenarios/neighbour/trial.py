"""One victim's load without, with and again without an antagonist beside it, and what that comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lab.figures.latency import latencies_s, quantile_s
from lab.service.load import LATE_SHARE, LoadResult
from lab.service.task import TaskState

QUANTILES: Mapping[str, float] = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999}
"""By the names that they have in metrics."""

LONG = "p99_9"
"""The one that only a long load has, and whose lack is no loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A quantile with the antagonist over that without, and how much the latter changed meanwhile."""

    slowdown: float
    drift: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The windows A1, B and A2. The antagonist was asked for at `begun_ns` of the host's clock, to last `seconds`."""

    before: LoadResult
    during: LoadResult
    after: LoadResult
    state: TaskState
    begun_ns: int
    seconds: int

    @property
    def windows(self) -> Mapping[str, LoadResult]:
        """By their names, in their order."""
        return {"A1": self.before, "B": self.during, "A2": self.after}

    @property
    def problem(self) -> str:
        """Why no slowdown can be told; empty where one can."""
        return failed(self.state) or self._uncovered() or self._late()

    @property
    def operations_per_s(self) -> float:
        """What the antagonist did, over the time that it lasted by its own clock; it has ended."""
        ended_ns = self.state.started_ns if self.state.ended_ns is None else self.state.ended_ns
        return self.state.operations / ((ended_ns - self.state.started_ns) / 1e9)

    def effects(self) -> Mapping[str, Effect | str]:
        """Of each quantile, or why it has none in one of the windows."""
        latencies = [latencies_s(found) for found in self.windows.values()]
        return {name: _effect([quantile_s(window, q) for window in latencies]) for name, q in QUANTILES.items()}

    def _uncovered(self) -> str:
        """It began later than it was asked to, and so lasts at least until so many seconds after that."""
        covered_ns = self.begun_ns + self.seconds * 1_000_000_000
        outlasts = self.during.requests[-1].intended_ns > covered_ns
        return "the antagonist ended before the load did" if outlasts else ""

    def _late(self) -> str:
        return "the load's own client was late" if any(late(found) for found in self.windows.values()) else ""


def late(found: LoadResult) -> bool:
    """Whether the load's client was late too often for its word to count."""
    return found.late_share > LATE_SHARE


def failed(state: TaskState) -> str:
    """Why an antagonist was none until its deadline; empty where it was one."""
    if state.ended_ns is None:
        return "the antagonist still runs"
    if state.signal is not None or state.exit_code != 0:
        how = f"exit status {state.exit_code}" if state.signal is None else f"signal {state.signal}"
        return f"the antagonist failed ({how})"
    if state.ended_ns < state.deadline_ns:
        return "the antagonist ended before its deadline"
    return "" if state.operations > 0 else "the antagonist did nothing"


def slowdown(before_s: float, during_s: float, after_s: float) -> float:
    """The latency with an antagonist over the geometric mean of those without: a drift that goes on evenly, by so many
    per cent a window, cancels out."""
    return during_s / math.sqrt(before_s * after_s)


def _effect(quantiles: list[float | str]) -> Effect | str:
    problems = [found for found in quantiles if isinstance(found, str)]
    if problems:
        return problems[0]
    before_s, during_s, after_s = (float(found) for found in quantiles)
    return Effect(slowdown=slowdown(before_s, during_s, after_s), drift=after_s / before_s)
