"""What a median cannot tell of its values: two groups, drift over rounds, steps, outliers (docs/method.md, rule 26).

Each is told by a test, and all of them for all rows of a run share one level: of runs whose values are independent and
of one smooth hill, at most 5 % are told anything (Bonferroni over rows and tests). The tests:

- groups: the excess mass that two intervals have over one (Mueller and Sawitzki, J. Am. Stat. Assoc. 86, 1991; twice
  Hartigans' dip), against that of uniform values, of all with one hill the likeliest to seem to have two;
- drift: the rank correlation of value and round (Spearman), whose variance is known whatever the distribution;
- steps: how well values fall on a grid, the best of many (Rayleigh's test), where they fall on three steps or more;
- outliers: the generalized extreme Studentized deviate of the logarithms (Rosner, Technometrics 25, 1983), and beyond
  three interquartile ranges from the box as well, since no distribution of times is quite lognormal.

Nothing here needs NumPy: a table of ten rounds is shown before that is imported.
"""

from __future__ import annotations

import cmath
import itertools
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lab.figures.stats import in_order

LEVEL = 0.05
LEAST_VALUES = 10
KINDS = 4

_LOOKED_AT = 250
"""Values of which groups and steps are looked for, evenly among the sorted or as measured: more would tell no more."""
_PENALTIES = tuple(2 ** (k / 4) for k in range(-4, 41))  # of an interval's length, in ranges of the values
_TAIL = (1.45, 5.0)
"""P(root n times the excess mass > x) is at most exp(a - b x^2), by 5,000 to 60,000 simulations of n = 10 to 300."""
_PAGE = 4096.0
_SMALL_STEP = 16 * _PAGE
"""Of memory, which is all in pages: steps up to this are how it is measured, and no news."""
_ON_GRID = 0.75  # the least resultant: values scatter about their steps by at most an eighth of one
_MOST_STEPS = 12  # in the range of the values
_OVERSAMPLED = 8
_MANY = 200  # degrees of freedom, from which on Student's distribution is the normal one
_MISPLACED = 20  # one of so many values may be on the wrong side of a change


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Two groups: how many values in each, their medians, and between which rounds the one followed the other; None
    where they came mixed."""

    counts: tuple[int, int]
    medians: tuple[float, float]
    between: tuple[float, float]
    change: tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Values that rise or fall over the rounds: medians of the first and of the last third."""

    first: float
    last: float
    correlation: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Values that come in steps of one size: the median at each step, and how many values are there."""

    size: float
    at: Sequence[tuple[float, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Values far from all others, with their rounds, in order of the rounds."""

    values: Sequence[float]
    rounds: Sequence[int]


Shape = Groups | Drift | Steps | Outliers


def shapes(values: Sequence[float], rounds: Sequence[int], unit: str, *, rows: int) -> list[Shape]:
    """What `values` have of it, measured in these `rounds`, as one of `rows` that are looked at; fewer than 10 values
    have none of it. What is told as two groups or as steps is not told again as drift or outliers."""
    if len(values) < LEAST_VALUES or min(values) == max(values):
        return []
    level = LEVEL / (KINDS * max(1, rows))
    steps = _steps(values, unit, level)
    if steps is not None:
        return [steps, *_one(_drift(values, rounds, level))]
    groups = _groups(values, rounds, unit, level)
    if groups is not None:
        return [groups, *([] if groups.change else _one(_drift(values, rounds, level)))]
    return [*_one(_drift(values, rounds, level)), *_one(_outliers(values, rounds, level))]


def shape_p(a: Sequence[float], b: Sequence[float]) -> float | None:
    """The p-value of `a` and `b` being of one shape, whatever their medians; None where a median is not positive or
    either has fewer than 10 values.

    It is the larger of two of Kolmogorov and Smirnov's test (Stephens' approximation, J. R. Stat. Soc. B 32, 1970): of
    the values, which holds whatever the distribution, and of their ratios to their own medians, which a mere change of
    the median leaves alone.
    """
    first, second = in_order(a), in_order(b)
    if min(len(first), len(second)) < LEAST_VALUES or min(_middle(first), _middle(second)) <= 0:
        return None
    aligned = [[value / _middle(ordered) for value in ordered] for ordered in (first, second)]
    return max(_kolmogorov_smirnov_p(first, second), _kolmogorov_smirnov_p(*aligned))


def _kolmogorov_smirnov_p(first: Sequence[float], second: Sequence[float]) -> float:
    n, m = len(first), len(second)
    distance = max(abs(bisect_right(first, at) / n - bisect_right(second, at) / m) for at in {*first, *second})
    root = math.sqrt(n * m / (n + m))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:  # where the series converges slowly, to 1
        return 1.0
    total = math.fsum((-1.0) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * total))


def _one(found: Shape | None) -> list[Shape]:
    return [] if found is None else [found]


def _groups(values: Sequence[float], rounds: Sequence[int], unit: str, level: float) -> Groups | None:
    ordered = _spread(_thinned(in_order(values)), _PAGE if unit == "bytes" else 0.0)
    excess, first_end, second_start = _excess_mass(ordered)
    n = len(ordered)
    a, b = _TAIL
    if math.exp(a - b * n * excess**2) > level:
        return None
    # The groups part at the widest gap between the two intervals.
    left = max(range(first_end, second_start), key=lambda i: ordered[i + 1] - ordered[i])
    cut = (ordered[left] + ordered[left + 1]) / 2
    lower, upper = sorted(value for value in values if value <= cut), sorted(value for value in values if value > cut)
    if not lower or not upper:
        return None
    return Groups(
        counts=(len(lower), len(upper)),
        medians=(_middle(lower), _middle(upper)),
        between=(lower[-1], upper[0]),
        change=_change([value > cut for _, value in sorted(zip(rounds, values, strict=True))], sorted(rounds)),
    )


def _excess_mass(ordered: Sequence[float]) -> tuple[float, int, int]:
    """By how much more of the values two intervals hold than one, each paying for its length; where the first of the
    two ends and the second begins. The most of all penalties."""
    n, whole = len(ordered), ordered[-1] - ordered[0]
    gaps = [(after - before) / whole for before, after in itertools.pairwise(ordered)]
    best = (0.0, 0, n - 1)
    for penalty in _PENALTIES:
        one = most = 1 / n  # of an interval that ends here, and of any so far
        two = most_of_two = -math.inf
        most_at = first_end = second_start = most_first = most_second = 0
        for i, gap in enumerate(gaps, 1):
            cost = penalty * gap
            if two - cost < most:
                two, first_end, second_start = most, most_at, i
            else:
                two -= cost
            two += 1 / n
            one = 1 / n + max(0.0, one - cost)
            if one > most:
                most, most_at = one, i
            if two > most_of_two:
                most_of_two, most_first, most_second = two, first_end, second_start
        best = max(best, (most_of_two - most, most_first, most_second))
    return best


def _change(upper: Sequence[bool], rounds: Sequence[int]) -> tuple[int, int] | None:
    """Between which rounds one group ends and the other begins, but for one value in twenty."""
    n, total = len(upper), sum(upper)
    seen = 0
    found = (n, 0)
    for i, is_upper in enumerate(upper[:-1], 1):
        seen += is_upper
        wrong = seen + (n - i) - (total - seen)  # as lower ones before, upper ones after
        found = min(found, (min(wrong, n - wrong), i))
    wrong, at = found
    return (rounds[at - 1], rounds[at]) if wrong <= n // _MISPLACED else None


def _drift(values: Sequence[float], rounds: Sequence[int], level: float) -> Drift | None:
    in_order = [value for _, value in sorted(zip(rounds, values, strict=True), key=lambda pair: pair[0])]
    n = len(in_order)
    ranks = _ranks(in_order)
    middle = (n + 1) / 2
    squares = math.fsum((rank - middle) ** 2 for rank in ranks)
    product = math.fsum((rank - middle) * (place - middle) for place, rank in enumerate(ranks, 1))
    correlation = product / math.sqrt(squares * n * (n * n - 1) / 12)
    p = math.erfc(abs(correlation) * math.sqrt((n - 1) / 2))
    if p > level:
        return None
    third = n // 3
    return Drift(
        first=_middle(sorted(in_order[:third])), last=_middle(sorted(in_order[-third:])), correlation=correlation, p=p
    )


def _steps(values: Sequence[float], unit: str, level: float) -> Steps | None:
    """The grid on which the values fall best, of those with 2 to 12 steps in their range."""
    looked_at = _thinned(values)
    n, low, whole = len(looked_at), min(looked_at), max(looked_at) - min(looked_at)
    turns = [2j * math.pi * (value - low) / whole for value in looked_at]
    best, count = max(
        (abs(sum(cmath.exp(turn * k / _OVERSAMPLED) for turn in turns)) / n, -k)
        for k in range(2 * _OVERSAMPLED - _OVERSAMPLED // 2, _MOST_STEPS * _OVERSAMPLED + 1)
    )
    if best < _ON_GRID or _MOST_STEPS * 2 * math.exp(-n * best**2) > level:
        return None
    size = whole * _OVERSAMPLED / -count
    phase = cmath.phase(sum(cmath.exp(turn * -count / _OVERSAMPLED) for turn in turns)) / (2 * math.pi)
    places = Counter(round((value - low) / size - phase) for value in values)
    if sum(1 for many in places.values() if many > 1) < 3:
        return None
    at = {
        place: _middle(sorted(value for value in values if round((value - low) / size - phase) == place))
        for place in sorted(places)
    }
    first, last = min(at), max(at)
    size = (at[last] - at[first]) / (last - first)  # more finely than the grid was tried
    if unit == "bytes" and size <= _SMALL_STEP:
        return None
    return Steps(size=size, at=[(value, places[place]) for place, value in at.items()])


def _outliers(values: Sequence[float], rounds: Sequence[int], level: float) -> Outliers | None:
    ordered = in_order(values)
    if ordered[0] <= 0:
        return None
    n = len(ordered)
    quarter = n // 4
    low, high = ordered[quarter], ordered[-quarter - 1]
    fences = low - 3 * (high - low), high + 3 * (high - low)
    left = [math.log(value) for value in ordered]
    total, squares = math.fsum(left), math.fsum(value * value for value in left)
    start, end = 0, n
    kept = 0, n
    for _ in range(max(1, n // 10)):
        mean = total / (end - start)
        variance = (squares - total * mean) / (end - start - 1)
        if variance <= 1e-18:
            break
        from_top = left[end - 1] - mean >= mean - left[start]
        far = left[end - 1] if from_top else left[start]
        p = _deviate_p(abs(far - mean) / math.sqrt(variance), end - start)
        start, end = (start, end - 1) if from_top else (start + 1, end)
        total, squares = total - far, squares - far * far
        if p <= level:
            kept = start, end
    lowest, highest = min(ordered[kept[0]], fences[0]), max(ordered[kept[1] - 1], fences[1])
    told = [(at, value) for at, value in zip(rounds, values, strict=True) if not lowest <= value <= highest]
    return Outliers(values=[value for _, value in told], rounds=[at for at, _ in told]) if told else None


def _deviate_p(deviate: float, n: int) -> float:
    """The probability that the largest of `n` normal values deviates from their mean by so many of their standard
    deviations (Grubbs, Ann. Math. Statist. 21, 1950)."""
    room = (n - 1) ** 2 - n * deviate**2
    if room <= 0:
        return 0.0
    freedom = n - 2
    t = deviate * math.sqrt(n * freedom / room)
    if freedom > _MANY:
        return min(1.0, n * math.erfc(t / math.sqrt(2)))
    # Student's distribution for a whole number of degrees of freedom: Abramowitz and Stegun, 26.7.3 and 26.7.4.
    angle = math.atan(t / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= square * (k - 1) / k
    within = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return min(1.0, n * max(0.0, 1 - within))


def _thinned(values: Sequence[float]) -> Sequence[float]:
    """At most `_LOOKED_AT` of them, evenly chosen."""
    n = len(values)
    return values if n <= _LOOKED_AT else [values[i * n // _LOOKED_AT] for i in range(_LOOKED_AT)]


def _spread(ordered: Sequence[float], resolution: float) -> Sequence[float]:
    """`ordered` with equal values apart by less than what they were measured in: a smooth hill in coarse units is no
    row of groups."""
    if not resolution:
        return ordered
    return [
        value + resolution * ((i + 0.5) / len(equal) - 0.5)
        for value, group in itertools.groupby(ordered)
        for equal in [list(group)]
        for i in range(len(equal))
    ]


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value) + 1) / 2 for value in values]


def _middle(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
