"""The rank test's four ways to its p-value: against each other, and against what an earlier lab drew."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from made_pairs import pair

from lab.figures import rank_test

ROOT = Path(__file__).parents[3]
EARLIER = json.loads((ROOT / "tests" / "data" / "earlier" / "figures.json").read_text())["rows"]
ALPHA = 0.05


def _error(p: float) -> float:
    """The standard error of a p-value from 9,999 random divisions, twice the smaller tail."""
    return 2 * math.sqrt(max(p, 2e-4) / 2 * (1 - p / 2) / 9999)


def test_an_earlier_labs_p_values_are_within_their_own_error() -> None:
    off = []
    for seed, n, m, earlier, *_ in EARLIER:
        p = rank_test.permutation_test(*pair(seed))
        if math.comb(n + m, n) <= rank_test.RESAMPLES:
            assert p == pytest.approx(earlier)
            continue
        off.append(abs(p - earlier) / _error(p))
        assert (p <= ALPHA) == (earlier <= ALPHA) or abs(earlier - ALPHA) < _error(ALPHA)
    off.sort()
    assert off[round(0.6 * len(off))] < 1  # of a normal distribution, 68 % are
    assert off[-1] < 4


def _drawn(scores: list[float], observed: float, m: int) -> float:
    """By a million divisions."""
    chance = np.random.default_rng(1)
    lower = upper = 0
    for _ in range(50):
        sums = chance.permuted(np.tile(scores, (4000, 1)), axis=1)[:, :m].sum(axis=1)
        lower += int((sums <= observed + 1e-9).sum())
        upper += int((sums >= observed - 1e-9).sum())
    return min(1.0, 2 * min(lower, upper) / 200_000)


@pytest.mark.parametrize("sizes", [(21, 21), (30, 30), (6, 60), (15, 45), (100, 100)])
@pytest.mark.parametrize("shift", [0.3, 0.6])
def test_the_expansion_is_near_the_true_distribution(sizes: tuple[int, int], shift: float) -> None:
    chance = random.Random(sum(sizes))
    a = [chance.gauss(0, 1) for _ in range(sizes[0])]
    b = [chance.gauss(shift, 1) for _ in range(sizes[1])]
    scores, observed = rank_test._scores(a, b)
    p = rank_test._expanded(scores, sum(observed), len(a))
    assert p == pytest.approx(_drawn(list(scores), sum(observed), len(a)), abs=4 * math.sqrt(p / 200_000) + 2e-4)


def test_counting_ways_is_going_through_them() -> None:
    chance = random.Random(4)
    for _ in range(20):
        a, b = ([round(chance.gauss(0, 1), 1) for _ in range(n)] for n in (6, 7))
        scores, observed = rank_test._scores(a, b)
        rounded = tuple(round(score * 1024) for score in scores)
        chosen = [round(score * 1024) for score in observed]
        exact = rank_test._all_ways(rounded, sum(chosen), 6)
        assert rank_test._counted_ways(rounded, sum(chosen), 6) == pytest.approx(exact)


def test_values_that_are_mostly_equal_are_not_smoothed_over() -> None:
    a, b = [1.0] * 30 + [2.0] * 2, [1.0] * 24 + [2.0] * 8
    # Fisher's exact test, doubled as this is: the sum of scores grows with the number of twos alone.
    ways = [math.comb(10, k) * math.comb(54, 32 - k) for k in range(11)]
    exact = 2 * sum(ways[:3]) / sum(ways)
    assert rank_test.permutation_test(a, b) == pytest.approx(exact, abs=4 * _error(exact))


def test_scores_of_equal_values_are_shared_and_antisymmetric() -> None:
    scores, observed = rank_test._scores([1.0, 2.0, 2.0], [2.0, 3.0, 0.5])
    assert observed == [scores[1], scores[2], scores[2]]
    assert scores[2] == scores[3] == scores[4]
    whole, _ = rank_test._scores([float(i) for i in range(9)], [9.5])
    assert all(one == -other for one, other in zip(whole, reversed(whole), strict=True))


def test_there_is_a_least_p_value_where_not_every_division_is_known() -> None:
    a = [float(i) for i in range(200)]
    assert rank_test.permutation_test(a, [value + 1000 for value in a]) == rank_test.LEAST
