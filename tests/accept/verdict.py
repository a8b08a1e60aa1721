"""What a measured figure says about its goal: met, missed, or, where the interval straddles the goal, inconclusive."""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from lab.figures.stats import estimate


class Verdict(enum.StrEnum):
    """The outcome of one line; only `missed` makes the whole fail."""

    MET = "met"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Between which values a median must lie, and how that is said."""

    text: str
    low: float = -math.inf
    high: float = math.inf

    def judge(self, low: float | None, high: float | None) -> Verdict:
        """The verdict on an interval from `low` to `high`; None where there are too few values for one."""
        if low is None or high is None:
            return Verdict.INCONCLUSIVE
        if self.low <= low and high <= self.high:
            return Verdict.MET
        if high < self.low or low > self.high:
            return Verdict.MISSED
        return Verdict.INCONCLUSIVE


UNDER_1_MS = Goal(text="under 1 ms", high=1.0)
UNDER_2_PERCENT = Goal(text="under 2 %", high=2.0)
SAME = Goal(text="0.9 to 1.1", low=0.9, high=1.1)


def say(text: str) -> None:
    """A line on stdout, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def report(name: str, values: Sequence[float], unit: str, goal: Goal | None = None) -> Verdict | None:
    """Print the median of `values` with its interval by order statistics, n and, where there is a goal, the verdict."""
    if not values:
        say(f"  {name}: no values{' -> not run' if goal else ''}")
        return Verdict.NOT_RUN if goal else None
    found = estimate(values)
    if found.low is None or found.high is None:
        between = f"range {found.minimum:.4g} to {found.maximum:.4g}, too few for an interval"
    else:
        between = f"95 % interval {found.low:.4g} to {found.high:.4g}"
    text = f"  {name}: median {found.median:.4g}{unit and ' ' + unit} ({between}; n = {found.n})"
    if goal is None:
        say(text)
        return None
    verdict = goal.judge(found.low, found.high)
    say(f"{text}; goal {goal.text} -> {verdict}")
    return verdict
