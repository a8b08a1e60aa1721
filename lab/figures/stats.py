"""Figures out of raw values, computed when shown and never stored (docs/method.md, rules 8, 9 and 13).

Intervals of a median and of any quantile are by order statistics at every n: they hold for any continuous
distribution, need no seed and cover at least what they claim (David and Nagaraja, Order Statistics, 3rd ed., 7.1;
Le Boudec, Performance Evaluation, 2.2.2). Each tail holds at most half of what is left, hence n >= 6 for a median,
and 72, 368 and 3,688 for p95, p99 and p99.9. SciPy is imported on use.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 9999
"""Of a bootstrap or a permutation test: the p-value's own standard error at 0.05 is then 0.002."""
SEED = 20_240_229
"""Of all resampling, so that the same values always give the same figures."""
_BATCH_VALUES = 2_000_000  # a bootstrap's working memory: 16 MB


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


def estimate(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """The median of `values` with its interval and range. Raises ValueError without values."""
    ordered = sorted(values)
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
        coverage=_binomial_cdf(last, n, 0.5) - _binomial_cdf(first, n, 0.5),
    )


def quantile(values: Sequence[float], q: float, *, confidence: float = CONFIDENCE) -> Quantile | None:
    """The `q` quantile of `values`; None where n is too small for its interval."""
    found = order_interval(len(values), q, confidence=confidence)
    if found is None:
        return None
    ordered = sorted(values)
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
    for count in range(n):
        below += _binomial_pmf(count, n, q)  # P(at most `count` values lie below the quantile)
        if below <= tail:
            first = count
        if last is None and 1 - below <= tail + 1e-12:
            last = count
            break
    return None if first is None or last is None else (first, last)


def ratio(a: Sequence[float], b: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = SEED) -> Ratio:
    """The median of `b` over the median of `a`, with a bootstrap interval (Efron and Tibshirani, An Introduction to the
    Bootstrap, 13.3; the percentile one, because the acceleration of BCa is undefined for a median).

    Raises ValueError without values, or where the median of `a` is not positive.
    """
    import numpy as np

    if not a or not b:
        raise ValueError("there are no values to compare")
    base = float(np.median(a))
    if base <= 0:
        raise ValueError("a ratio needs a positive median to divide by")
    value = float(np.median(b)) / base
    if min(len(a), len(b)) < 6 or min(a) <= 0:
        return Ratio(value=value, low=None, high=None)
    low, high = _bootstrap(a, b, lambda first, second: second / first, confidence, seed)
    return Ratio(value=value, low=low, high=high)


def difference(a: Sequence[float], b: Sequence[float], *, seed: int = SEED) -> Difference:
    """The median of `b` less the median of `a`, with a bootstrap interval like `ratio`'s. Raises ValueError without
    values."""
    import numpy as np

    if not a or not b:
        raise ValueError("there are no values to compare")
    value = float(np.median(b)) - float(np.median(a))
    if min(len(a), len(b)) < 6:
        return Difference(value=value, low=None, high=None)
    low, high = _bootstrap(a, b, lambda first, second: second - first, CONFIDENCE, seed)
    return Difference(value=value, low=low, high=high)


def permutation_test(a: Sequence[float], b: Sequence[float], *, seed: int = SEED) -> float:
    """The two-sided p-value of `a` and `b` being from one distribution; exact where there are at most 9,999 ways to
    divide them, and else from as many random ones, seeded (each p-value then counts the observed division as one more,
    Phipson and Smyth 2010, so that it is never 0 and the test keeps its level).

    The statistic is the sum of B's normal scores (van der Waerden: the normal quantiles of the pooled ranks). It has
    the power of a t test under normal noise, and one launch that took ten times as long counts as the last rank and no
    more (Hajek, Sidak and Sen, Theory of Rank Tests, 4.1). Raises ValueError without values.
    """
    import numpy as np
    from scipy import special, stats

    if not a or not b:
        raise ValueError("there are no values to compare")
    ranks = stats.rankdata(np.concatenate([a, b]))
    scores = special.ndtri(ranks / (len(ranks) + 1))
    observed = scores[len(a) :].sum()
    if math.comb(len(scores), len(b)) <= RESAMPLES:
        divided = np.array(list(itertools.combinations(scores, len(b)))).sum(axis=1)
        extra = 0
    else:
        divided = _random_divisions(scores, len(b), seed)
        extra = 1
    rounding = 1e-9  # equal sums, added in another order
    lower = int((divided <= observed + rounding).sum())
    upper = int((divided >= observed - rounding).sum())
    return min(1.0, 2 * (min(lower, upper) + extra) / (len(divided) + extra))


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


def _bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    relation: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
    confidence: float,
    seed: int,
) -> tuple[float, float]:
    """The percentile interval of `relation` between the medians of `a` and `b`."""
    import numpy as np
    from scipy import stats

    def of_medians(first: NDArray[np.float64], second: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(relation(np.median(first, axis=axis), np.median(second, axis=axis)))

    found = stats.bootstrap(
        (np.asarray(a, dtype=float), np.asarray(b, dtype=float)),
        of_medians,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH_VALUES // max(len(a), len(b))),
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _random_divisions(scores: NDArray[np.float64], size: int, seed: int) -> NDArray[np.float64]:
    """The sums of `size` of the scores, drawn anew each time. SciPy's own `permutation_test` draws each permutation in
    Python, which takes twenty times as long."""
    import numpy as np

    chance = np.random.default_rng(seed)
    batch = max(1, _BATCH_VALUES // len(scores))
    sums = []
    for start in range(0, RESAMPLES, batch):
        rows = np.tile(scores, (min(batch, RESAMPLES - start), 1))
        sums.append(chance.permuted(rows, axis=1)[:, :size].sum(axis=1))
    return np.concatenate(sums)


def _interpolated(ordered: Sequence[float], q: float) -> float:
    """Between the two nearest values (Hyndman and Fan's type 7, what NumPy and R give unless told otherwise)."""
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    part = place - below
    return ordered[below] if part == 0 else ordered[below] * (1 - part) + ordered[below + 1] * part


def _binomial_cdf(most: int, n: int, q: float) -> float:
    return math.fsum(_binomial_pmf(count, n, q) for count in range(most + 1))


def _binomial_pmf(count: int, n: int, q: float) -> float:
    # By logarithms: n may be thousands, where the coefficient alone would overflow.
    ways = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
    return math.exp(ways + count * math.log(q) + (n - count) * math.log1p(-q))
