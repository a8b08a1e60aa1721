"""From which burst and which pause on one arrangement of `tandem` is better than another.

Two arrangements are compared round by round, since a run interleaves them: in how many rounds the one was lower than
the other, by the exact sign test (Conover, Practical Nonparametric Statistics, 3rd ed., 3.4), all points of one
question corrected together (Holm). Where rounds are too few for any point to be proven so, it is told in which
direction all of them went, at least three, and that this proves nothing. A cross-over is where lower begins and holds
for all larger sizes that were tried; it lies between the largest below that is proven to be higher and the first of
these.

A burst of which a job failed has no end: who does all of it in a round in which the other does not is sooner. How the
service answered then, and what was held, is of less work than was asked for, and is not compared.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lab import units
from lab.figures import stats
from lab.figures.series import Series

ARRANGEMENT, BURST, PAUSE, WINDOW = "arrangement", "burst", "pause", "window"
LONG = "long"
"""The pause before a burst at which the tandem was at rest, proven: longer than any keep-alive."""

WITHIN, BESIDE = "within", "beside"
LAST, P99, HELD = "last_job_s", "steady_p99_s", "mean_held_bytes"
_FAILED = "failed_jobs"
WORDS = {LAST: "last job", P99: "service's p99", HELD: "memory held"}
ALPHA = 0.05
_DIRECTION = 3
"""Rounds that must go one way before that is told as a direction."""


class Verdict(StrEnum):
    """How the one stands to the other at one size."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "open"


_DIRECTIONS = {Verdict.BETTER: "lower", Verdict.WORSE: "higher"}
"""What is said instead where it is so in all rounds, and they are too few for a proof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The one over the other at the size `x`: the median of the rounds' ratios, and in how many of `n` rounds that
    differed it was lower. `p` is the sign test's, corrected or not."""

    x: float
    ratio: float
    lower: int
    n: int
    p: float
    verdict: Verdict = Verdict.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """`who` against `base` in `metric`, by the size `by` (burst or pause), while the other is `at`; `proven` where the
    rounds are enough for a proof."""

    who: str
    base: str
    metric: str
    by: str
    at: str
    points: Sequence[Point]
    proven: bool

    @property
    def from_on(self) -> float | None:
        """The smallest size from which on all that were tried are better; None where there is none."""
        found = None
        for point in reversed(self.points):
            if point.verdict is not Verdict.BETTER:
                break
            found = point.x
        return found

    @property
    def above(self) -> float | None:
        """The largest size below it that is worse; None where none is."""
        first = self.from_on
        worse = [one.x for one in self.points if one.verdict is Verdict.WORSE and (first is None or one.x < first)]
        return max(worse, default=None)

    @property
    def said(self) -> str:
        """Where it is better, in words."""
        first, above = self.from_on, self.above
        if first is None:
            return f"not within {self._sized(*dict.fromkeys((self.points[0].x, self.points[-1].x)))}"
        perhaps = "" if self.proven else "perhaps "
        if first == self.points[0].x:
            return f"{perhaps}{self._sized(first)}, the least tried"
        told = self._sized(above, first) if above is not None else f"{self._sized(first)} at the latest"
        return f"{perhaps}{told}"

    def _sized(self, *sizes: float) -> str:
        told = "-".join(f"{size:g}" for size in sizes)
        return f"{told} s" if self.by == PAUSE else f"{told} job{'' if sizes == (1,) else 's'}"


def crossings(rows: Sequence[Series]) -> list[Crossing]:
    """All that a run's rows can tell: who does a burst sooner than the service itself, disturbs its answers less, is
    sooner than a second instance that is always there, and holds less than that over a pause and its burst."""
    found: list[Crossing] = []
    for metric, base, by in ((LAST, WITHIN, BURST), (P99, WITHIN, BURST), (LAST, BESIDE, BURST), (HELD, BESIDE, PAUSE)):
        found += _judged(list(_raw(rows, metric, base, by)))
    return found


def looking(rows: Sequence[Series]) -> str:
    """What it took to look at memory; empty where nobody did."""
    shares = {who(row): statistics.median(row.values) for row in rows if row.metric == "look_share"}
    if not shares:
        return ""
    told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return (
        f"Looking at memory took of the time: {told}. A peak between two looks is not seen, and what looking takes is "
        "taken from all that was measured meanwhile."
    )


def ratios(crossing: Crossing) -> str:
    """The points of a crossing: at which size how many times as much, and how sure that is."""
    words: Mapping[Verdict, str] = {} if crossing.proven else _DIRECTIONS
    told = ((point, words.get(point.verdict, point.verdict)) for point in crossing.points)
    return ", ".join(f"{point.x:g}: {_times(point.ratio)} {word}" for point, word in told)


def too_few(found: Sequence[Crossing]) -> str:
    """What a reader must know of those whose rounds are too few for a proof; empty where there are none."""
    few = [one for one in found if not one.proven]
    if not few:
        return ""
    rounds = max(point.n for one in few for point in one.points)
    return (
        f"Of tandem's cross-overs {len(few)} of {len(found)} are told by direction alone, 'perhaps': 'lower' and "
        f"'higher' are so in each of at most {rounds} rounds, which proves nothing by the sign test corrected for all "
        "sizes; some ten rounds prove what goes one way in each of them."
    )


def _raw(rows: Sequence[Series], metric: str, base: str, by: str) -> Iterator[Crossing]:
    """Not judged yet."""
    kept = PAUSE if by == BURST else BURST
    lines = _lines(rows, metric)
    bases = {(case.burst, case.pause): values for case, values in lines.items() if case.arrangement == base}
    groups: dict[tuple[str, str], list[Point]] = {}
    for case, values in lines.items():
        size, at = (case.burst, case.pause) if by == BURST else (case.pause, case.burst)
        other = bases.get((case.burst, case.pause))
        if case.arrangement in (base, WITHIN) or other is None or size == LONG:
            continue
        if (point := _point(float(size), values, other)) is not None:
            groups.setdefault((case.who, at), []).append(point)
    order = list(dict.fromkeys(name for name, _ in groups))
    for name, at in sorted(groups, key=lambda one: (order.index(one[0]), _number(one[1]))):
        said = f"burst {at}" if kept == BURST else f"pause {at}{'' if at == LONG else ' s'}"
        points = sorted(groups[name, at], key=lambda point: point.x)
        yield Crossing(who=name, base=base, metric=metric, by=by, at=said, points=points, proven=False)


@dataclass(frozen=True, slots=True)
class _Case:
    """Whose burst, how large, and after which pause."""

    who: str
    arrangement: str
    burst: str
    pause: str


def _lines(rows: Sequence[Series], metric: str) -> Mapping[_Case, dict[int, float]]:
    """The values of each case by round. A burst of which a job failed ends never, and whatever else was measured of it
    is of less work than was asked for, and left out."""
    lines = {_case(row): _by_round(row) for row in _of(rows, metric)}
    for row in _of(rows, _FAILED):
        failed = [number for number, count in _by_round(row).items() if count]
        if metric == LAST and failed:
            lines.setdefault(_case(row), {}).update(dict.fromkeys(failed, math.inf))
        for number in failed if metric != LAST else ():
            lines.get(_case(row), {}).pop(number, None)
    return lines


def who(row: Series) -> str:
    """A row's target, and its arrangement where the target alone does not tell it."""
    arrangement = row.dimensions.get(ARRANGEMENT, "")
    return f"{row.label} {arrangement}" if arrangement in (WITHIN, BESIDE) else row.label


def _by_round(row: Series) -> dict[int, float]:
    return dict(zip(row.rounds, row.values, strict=True))


def _case(row: Series) -> _Case:
    told = row.dimensions
    return _Case(who(row), told[ARRANGEMENT], told[BURST], told[PAUSE])


def _of(rows: Sequence[Series], metric: str) -> list[Series]:
    """Its rows that are of one burst; of answers, of those meanwhile."""
    return [
        row
        for row in rows
        if row.metric == metric
        and {ARRANGEMENT, BURST, PAUSE} <= set(row.dimensions)
        and row.dimensions.get(WINDOW, "during") == "during"
    ]


def _point(x: float, own: Mapping[int, float], base: Mapping[int, float]) -> Point | None:
    """Of the rounds in which either was done."""
    pairs = [(own[number], base[number]) for number in own if base.get(number, 0.0) > 0]
    pairs = [(one, other) for one, other in pairs if math.isfinite(min(one, other))]
    if not pairs:
        return None
    lower = sum(one < other for one, other in pairs)
    n = sum(one != other for one, other in pairs)
    ratio = statistics.median(one / other for one, other in pairs)
    return Point(x=x, ratio=ratio, lower=lower, n=n, p=_sign_test(lower, n))


def _judged(found: Sequence[Crossing]) -> list[Crossing]:
    """All points of one question are one family."""
    points = [point for one in found for point in one.points]
    corrected = iter(stats.holm([point.p for point in points]))
    most = max((point.n for point in points), default=0)
    provable = bool(points) and len(points) * _sign_test(0, most) <= ALPHA
    judge: Callable[[Point], Point] = _by_test if provable else _by_direction
    return [
        replace(one, points=[judge(replace(point, p=next(corrected))) for point in one.points], proven=provable)
        for one in found
    ]


def _by_test(point: Point) -> Point:
    if point.p > ALPHA:
        return point
    return replace(point, verdict=Verdict.BETTER if 2 * point.lower > point.n else Verdict.WORSE)


def _by_direction(point: Point) -> Point:
    if point.n >= _DIRECTION and point.lower in (0, point.n):
        return replace(point, verdict=Verdict.BETTER if point.lower else Verdict.WORSE)
    return point


def _sign_test(lower: int, n: int) -> float:
    """The two-sided p of so many of `n` being lower, where either is as likely."""
    least = min(lower, n - lower)
    return float(min(1.0, 2 * math.fsum(math.comb(n, count) for count in range(least + 1)) / 2.0**n))


def _times(ratio: float) -> str:
    """Of a burst that only one of both did, who did."""
    if ratio in (0, math.inf):
        return "not done," if ratio else "done alone,"
    return f"{units.digits(ratio)}x"


def _number(size: str) -> float:
    return -1.0 if size == LONG else float(size)
