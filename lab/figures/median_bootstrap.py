"""The percentile bootstrap of two medians' ratio and difference, with as many resamples as there can be.

A resampled median is one of the values, or the mean of two: which ones has a law that depends on n alone and is known
exactly, by the order statistics of n draws with replacement (Efron, Ann. Statist. 7, 1979, section 3; Maritz and
Jarrett, J. Am. Stat. Assoc. 73, 1978). So nothing is drawn and nothing is left to chance: the limits are those towards
which more and more resamples would go. NumPy is imported where there are many values.
"""

from __future__ import annotations

import itertools
import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from lab.figures.arrays import numpy

_LEAST_WEIGHT = 1e-7
"""What is less likely is left out: some 0.0001 of the whole. Of 9,999 resamples, ten times as much was chance."""
_AROUND = 3.0  # times the root of n: six standard deviations of the resampled median's rank
_APART = 24  # ranks between the two middle draws; each more is e times less likely
_BY_HAND = 250  # medians that are possible, below which importing NumPy takes longer than it saves
_HALVINGS = 26  # of the bracket, which is some standard deviations wide


def of_ratio(a: Sequence[float], b: Sequence[float], confidence: float) -> tuple[float, float]:
    """The interval of `b`'s median over `a`'s; both sorted, and `a` positive."""
    return _interval(a, b, confidence, operator.mul, operator.truediv)


def of_difference(a: Sequence[float], b: Sequence[float], confidence: float) -> tuple[float, float]:
    """The interval of `b`'s median less `a`'s; both sorted."""
    return _interval(a, b, confidence, operator.add, operator.sub)


@lru_cache(maxsize=256)
def law(n: int) -> Sequence[tuple[int, int, float]]:
    """The pairs of ranks, from 0, whose values' mean may be the median of a resample of `n`, with their probabilities;
    of an odd `n` both ranks are the same."""
    half = n // 2
    low = max(1, math.floor(n / 2 - _AROUND * math.sqrt(n)))
    high = min(n, math.ceil(n / 2 + _AROUND * math.sqrt(n)) + 1)
    # P(the lower middle draw has at most this rank) is P(at least so many of n draws do).
    at_most = [_binomial_upper(half + n % 2, n, rank / n) for rank in range(low - 1, high + 1)]
    alone = {rank: after - before for rank, (before, after) in enumerate(itertools.pairwise(at_most), low)}
    pairs = [(i, i, weight) for i, weight in alone.items()] if n % 2 else list(_middle_pairs(n, alone))
    kept = [(i - 1, j - 1, weight) for i, j, weight in pairs if weight >= _LEAST_WEIGHT]
    whole = math.fsum(weight for _, _, weight in kept)
    return tuple((i, j, weight / whole) for i, j, weight in kept)


def _middle_pairs(n: int, lower: dict[int, float]) -> Sequence[tuple[int, int, float]]:
    """The ranks of both middle draws of an even `n`, h being its half: for i < j, P(lower <= i, upper >= j) is
    C(n, h) (i/n)^h ((n-j+1)/n)^h, hence a product for each pair; what is left of `lower` is that both have one rank."""
    half = n // 2
    ways = math.lgamma(n + 1) - 2 * math.lgamma(half + 1) - n * math.log(2)

    def log_at(rank: int) -> float:
        """The logarithm of (2 rank / n)^half less the same of the rank before."""
        before = ((rank - 1) / rank) ** half
        return half * math.log(2 * rank / n) + math.log1p(-before)

    found = []
    for i, whole in lower.items():
        above = math.exp(ways + log_at(i) + half * math.log(2 * (n - i) / n)) if i < n else 0.0
        found.append((i, i, max(0.0, whole - above)))
        found += [(i, j, math.exp(ways + log_at(i) + log_at(n - j + 1))) for j in range(i + 1, min(n, i + _APART) + 1)]
    return found


def _interval(
    a: Sequence[float],
    b: Sequence[float],
    confidence: float,
    moved: Callable[[Any, float | Any], Any],
    relation: Callable[[float, float], float],
) -> tuple[float, float]:
    """The quantiles of `relation(second, first)` at both tails; it is at most t where `second <= moved(t, first)`."""
    many = len(law(len(a))) + len(law(len(b))) > 2 * _BY_HAND
    first, second, share = (_by_arrays if many else _by_hand)(a, b, moved)
    ends = [relation(other, one) for one in first for other in second]
    tail = (1 - confidence) / 2
    return _least(share, tail, min(ends), max(ends)), _least(share, 1 - tail, min(ends), max(ends))


_Ends = tuple[float, float]
"""The least and the greatest of the medians that a resample may have."""


def _by_hand(
    a: Sequence[float], b: Sequence[float], moved: Callable[[float, float], float]
) -> tuple[_Ends, _Ends, Callable[[float], float]]:
    first, second = (
        sorted(((ordered[i] + ordered[j]) / 2, weight) for i, j, weight in law(len(ordered))) for ordered in (a, b)
    )
    medians, weights = zip(*first, strict=True)
    values = [value for value, _ in second]
    below = [0.0, *itertools.accumulate(weight for _, weight in second)]

    def share(t: float) -> float:
        edges = map(moved, itertools.repeat(t), medians)
        return math.fsum(map(operator.mul, weights, [below[bisect_right(values, edge)] for edge in edges]))

    return (medians[0], medians[-1]), (values[0], values[-1]), share


def _by_arrays(
    a: Sequence[float], b: Sequence[float], moved: Callable[[float, Any], Any]
) -> tuple[_Ends, _Ends, Callable[[float], float]]:
    np = numpy()

    found = []
    for ordered in (a, b):
        lower, upper, weights = _law_arrays(len(ordered))
        values = np.asarray(ordered)
        medians = (values[lower] + values[upper]) / 2
        order = np.argsort(medians)
        found.append((medians[order], weights[order]))
    (first, weights), (second, shares) = found
    below = np.concatenate([[0.0], np.cumsum(shares)])

    def share(t: float) -> float:
        return float(weights @ below[np.searchsorted(second, moved(t, first), side="right")])

    return (float(first[0]), float(first[-1])), (float(second[0]), float(second[-1])), share


@lru_cache(maxsize=256)
def _law_arrays(n: int) -> tuple[Any, Any, Any]:
    np = numpy()

    lower, upper, weights = zip(*law(n), strict=True)
    return np.array(lower), np.array(upper), np.array(weights)


def _least(share: Callable[[float], float], wanted: float, low: float, high: float) -> float:
    """The least t between `low` and `high` at which `share`, which grows in steps, is at least `wanted`."""
    wanted -= 1e-9  # sums, added in another order
    if share(low) >= wanted:
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) >= wanted else (middle, high)
    return high


def _binomial_upper(least: int, n: int, p: float) -> float:
    """P(at least `least` of `n`), each with the probability `p`: summed from where the terms only become smaller."""
    if p <= 0 or p >= 1:
        return float(p >= 1)
    if least <= n * p:  # the other tail is the smaller one
        return 1.0 - _binomial_upper(n - least + 1, n, 1 - p)
    ways = math.lgamma(n + 1) - math.lgamma(least + 1) - math.lgamma(n - least + 1)
    term = math.exp(ways + least * math.log(p) + (n - least) * math.log1p(-p))
    total, odds = 0.0, p / (1 - p)
    for count in range(least, n + 1):
        total += term
        term *= (n - count) / (count + 1) * odds
        if term < total * 1e-16:
            break
    return total
