"""Figures out of raw values, computed when shown and never stored (docs/method.md, rules 8, 9 and 13).

Intervals of a median and of any quantile are by order statistics at every n: they hold for any continuous
distribution, need no seed and cover at least what they claim (David and Nagaraja, Order Statistics, 3rd ed., 7.1;
Le Boudec, Performance Evaluation, 2.2.2). Each tail holds at most half of what is left, hence n >= 6 for a median,
and 72, 368 and 3,688 for p95, p99 and p99.9. How two groups of values differ is in lab/figures/rank_test.py and, of
their medians, in lab/figures/median_bootstrap.py. SciPy is imported on use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lab.figures import median_bootstrap

CONFIDENCE = 0.95
_FAR = 12.0  # standard deviations of a binomial, beyond which is 1e-30 of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A median and what is known about it, in the unit of the values.

    `low` and `high` are None where n is too small for an interval of the confidence asked for; `coverage` is what the
    interval, or else the whole range, covers at least.
    """

    n: int
    median: float
    low: float | None
    high: float | None
    minimum: float
    maximum: float
    coverage: float
    interval_method: str = "order statistics"

    @property
    def relative_half_width(self) -> float | None:
        """Half the interval's width over the median; None without an interval, or where the median is not positive."""
        if self.low is None or self.high is None or self.median <= 0:
            return None
        return (self.high - self.low) / 2 / self.median


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """A quantile with its order-statistic interval, in the unit of the values."""

    q: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """B's median over A's; `low` and `high` are None where either has fewer than 6 values, or A has any of 0."""

    value: float
    low: float | None
    high: float | None
    interval_method: str = "percentile bootstrap of the ratio of medians"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """B's median less A's, in the unit of the values; `low` and `high` are None where either has fewer than 6."""

    value: float
    low: float | None
    high: float | None
    interval_method: str = "percentile bootstrap of the difference of medians"


def in_order(values: Sequence[float]) -> Sequence[float]:
    """`values` from the least to the greatest; of a tuple, as rows have, they are sorted once for all figures of it."""
    return _sorted(values) if isinstance(values, tuple) else sorted(values)


@lru_cache(maxsize=256)
def _sorted(values: tuple[float, ...]) -> Sequence[float]:
    return sorted(values)


def estimate(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """The median of `values` with its interval and range. Raises ValueError without values."""
    ordered = in_order(values)
    if not ordered:
        raise ValueError("there are no values to estimate from")
    n = len(ordered)
    found = order_interval(n, 0.5, confidence=confidence)
    first, last = found or (0, n - 1)
    return Estimate(
        n=n,
        median=_interpolated(ordered, 0.5),
        low=ordered[first] if found else None,
        high=ordered[last] if found else None,
        minimum=ordered[0],
        maximum=ordered[-1],
        coverage=_coverage(n, first, last),
    )


def quantile(values: Sequence[float], q: float, *, confidence: float = CONFIDENCE) -> Quantile | None:
    """The `q` quantile of `values`; None where n is too small for its interval."""
    found = order_interval(len(values), q, confidence=confidence)
    if found is None:
        return None
    ordered = in_order(values)
    return Quantile(q=q, value=_interpolated(ordered, q), low=ordered[found[0]], high=ordered[found[1]])


def relative_half_width(values: Sequence[float], *, confidence: float = CONFIDENCE) -> float | None:
    """`Estimate.relative_half_width` of `values`; None also without values."""
    return estimate(values, confidence=confidence).relative_half_width if values else None


@lru_cache(maxsize=1024)  # a report asks for the same few again and again
def order_interval(n: int, q: float, *, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """The indices, from 0, of the two of n ordered values between which the `q` quantile lies with `confidence`; None
    where no two do. The number of values below the quantile is binomial, and each tail gets at most half."""
    tail = (1 - confidence) / 2
    below = 0.0
    first = last = None
    likely = max(0, math.floor(n * q - _FAR * math.sqrt(n * q * (1 - q))) - 1)
    for count in range(likely, n):
        below += _binomial_pmf(count, n, q)  # P(at most `count` values lie below the quantile)
        if below <= tail:
            first = count
        if last is None and 1 - below <= tail + 1e-12:
            last = count
            break
    return None if first is None or last is None else (first, last)


def ratio(a: Sequence[float], b: Sequence[float], *, confidence: float = CONFIDENCE) -> Ratio:
    """The median of `b` over the median of `a`, with a bootstrap interval (Efron and Tibshirani, An Introduction to the
    Bootstrap, 13.3; the percentile one, because the acceleration of BCa is undefined for a median).

    Raises ValueError without values, or where the median of `a` is not positive.
    """
    first, second = _two(a, b)
    base = _interpolated(first, 0.5)
    if base <= 0:
        raise ValueError("a ratio needs a positive median to divide by")
    value = _interpolated(second, 0.5) / base
    if min(len(a), len(b)) < 6 or first[0] <= 0:
        return Ratio(value=value, low=None, high=None)
    low, high = median_bootstrap.of_ratio(first, second, confidence)
    return Ratio(value=value, low=low, high=high)


def difference(a: Sequence[float], b: Sequence[float], *, confidence: float = CONFIDENCE) -> Difference:
    """The median of `b` less the median of `a`, with a bootstrap interval like `ratio`'s. Raises ValueError without
    values."""
    first, second = _two(a, b)
    value = _interpolated(second, 0.5) - _interpolated(first, 0.5)
    if min(len(a), len(b)) < 6:
        return Difference(value=value, low=None, high=None)
    low, high = median_bootstrap.of_difference(first, second, confidence)
    return Difference(value=value, low=low, high=high)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for being several, in the order given: at a level of 5 % of these, the chance of any false
    alarm in the family is at most 5 % (Holm, Scand. J. Statist. 6, 1979)."""
    corrected = [0.0] * len(p_values)
    least = 0.0
    for done, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - done) * p_values[index]))
        corrected[index] = least
    return corrected


def binomial_interval(successes: int, n: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval of a proportion (Clopper and Pearson, Biometrika 26, 1934)."""
    from scipy import stats

    found = stats.binomtest(successes, n).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def _two(a: Sequence[float], b: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    if not a or not b:
        raise ValueError("there are no values to compare")
    return in_order(a), in_order(b)


@lru_cache(maxsize=1024)
def _coverage(n: int, first: int, last: int) -> float:
    return math.fsum(_binomial_pmf(count, n, 0.5) for count in range(first + 1, last + 1))


def _interpolated(ordered: Sequence[float], q: float) -> float:
    """Between the two nearest values (Hyndman and Fan's type 7, what NumPy and R give unless told otherwise)."""
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    part = place - below
    return ordered[below] if part == 0 else ordered[below] * (1 - part) + ordered[below + 1] * part


def _binomial_pmf(count: int, n: int, q: float) -> float:
    # By logarithms: n may be thousands, where the coefficient alone would overflow.
    ways = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
    return math.exp(ways + count * math.log(q) + (n - count) * math.log1p(-q))
