"""What a comparison of two runs comes to: its rows, each with a verdict, and the conditions that differed."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.figures import stats
from lab.figures.series import COUNTED
from lab.units import RATIO

_LARGER_IS_WORSE = frozenset({"s", "bytes", RATIO})
_SMALLER_IS_WORSE = frozenset({"bytes/s", "requests/s", "share"})
_FAILURES = frozenset({"requests_failed", "failed_replicas"})
"""Metrics that count what went wrong: larger is worse, which their units do not tell."""


class Verdict(enum.StrEnum):
    """What B is against A. `HIGHER` and `LOWER` stand for slower and faster where the unit is no time; `SHAPE` is said
    where the values differ and their medians do not."""

    SLOWER = "slower"
    FASTER = "faster"
    HIGHER = "higher"
    LOWER = "lower"
    SAME = "no difference seen"
    SHAPE = "differs in shape"
    FAILS = "fails in B"
    NOT_COMPARED = "not compared"


_DIFFERENT = frozenset({Verdict.SLOWER, Verdict.FASTER, Verdict.HIGHER, Verdict.LOWER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of both runs. `p` is the test's own, `p_corrected` Holm's; `p_shape`, corrected as well, is the
    test of shapes'; `reason` says why nothing was compared.

    The shares are of a COUNTED metric, which is compared by them: of 0s and 1s, a median tells little.
    """

    target: str
    metric: str
    name: str
    unit: str
    dimensions: Mapping[str, str]
    can_alarm: bool
    a: stats.Estimate | None
    b: stats.Estimate | None
    failed_a: int = 0
    failed_b: int = 0
    share_a: float | None = None
    share_b: float | None = None
    ratio: stats.Ratio | None = None
    p: float | None = None
    p_corrected: float | None = None
    p_shape: float | None = None
    verdict: Verdict = Verdict.NOT_COMPARED
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact of host, spec, version or parameters in which the runs differ; None is absent."""

    fact: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """B against A."""

    a: str
    b: str
    scenario: str
    alpha: float
    rows: Sequence[Row]
    differences: Sequence[Difference]
    warnings: Sequence[str]
    """What of either host, while its run lasted, can make a difference of its own."""
    company: str = ""
    """Where other targets ran in one of the runs than in the other, what they were: a condition of every figure
    (docs/method.md, rule 24)."""
    hosts: str = ""
    """Where the runs are of two hosts: that, and over what their figures are."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """By run, `A` and `B`: the targets that were asked for there and have no figure, in words."""

    @property
    def alarms(self) -> list[Row]:
        """The totals that differ, either way. Where their values differ and their medians do not, that is one as well;
        a difference that only the test of shapes sees alarms nobody, or alarms would come twice as often as stated."""
        return [
            row
            for row in self.rows
            if row.can_alarm
            and (row.verdict in _DIFFERENT or (row.verdict is Verdict.SHAPE and _by_the_test(row, self.alpha)))
        ]

    @property
    def shapes(self) -> list[Row]:
        """The totals that differ in shape and alarm nobody."""
        return [row for row in self.rows if row.verdict is Verdict.SHAPE and not _by_the_test(row, self.alpha)]

    @property
    def regressions(self) -> list[Row]:
        """The totals that are worse in B, as their unit or metric tells, or whose target does not run any more."""
        return [row for row in self.rows if row.can_alarm and _worse(row)]

    def title(self, row: Row) -> str:
        """How a total is called: by its target, and by its metric as well where there are several."""
        metrics = {one.metric for one in self.rows if one.can_alarm and one.metric}
        return f"{row.target} {row.name}" if len(metrics) > 1 and row.metric else row.target

    def to_json(self) -> dict[str, Any]:
        """The object of `lab compare --json`."""
        return {
            "a": self.a,
            "b": self.b,
            "scenario": self.scenario,
            "alpha": self.alpha,
            "alarm": bool(self.alarms),
            "regression": bool(self.regressions),
            "rows": [asdict(row) for row in self.rows],
            "differences": [asdict(difference) for difference in self.differences],
            "warnings": list(self.warnings),
            "company": self.company,
            "hosts": self.hosts,
            "missing": dict(self.missing),
        }


def _by_the_test(row: Row, alpha: float) -> bool:
    return row.p_corrected is not None and row.p_corrected <= alpha


def worse_side(metric: str, unit: str) -> int:
    """1 where larger is worse, -1 where smaller is, 0 where the unit and the metric do not tell."""
    if unit in _LARGER_IS_WORSE or metric in _FAILURES:
        return 1
    return -1 if unit in _SMALLER_IS_WORSE or metric in COUNTED else 0


def _worse(row: Row) -> bool:
    side = worse_side(row.metric, row.unit)
    return (
        row.verdict in {Verdict.SLOWER, Verdict.FAILS}
        or (row.verdict is Verdict.HIGHER and side > 0)
        or (row.verdict is Verdict.LOWER and side < 0)
    )
