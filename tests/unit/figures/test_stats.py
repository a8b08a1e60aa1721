"""The statistics against known values, their own definitions, and SciPy's where it has the same."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from lab.figures import rank_test, stats

values = st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1, max_size=60)


def test_an_interval_exists_from_the_stated_n_on() -> None:
    for q, n in {0.5: 6, 0.95: 72, 0.99: 368, 0.999: 3688}.items():
        assert stats.order_interval(n - 1, q) is None
        assert stats.order_interval(n, q) is not None
        assert stats.quantile(list(range(n - 1)), q) is None
        found = stats.quantile([float(i) for i in range(n)], q)
        assert found is not None
        assert found.low <= found.value <= found.high
        assert found.value == pytest.approx(float(np.quantile(range(n), q)))


def test_the_median_of_ten_lies_between_the_second_and_the_ninth() -> None:
    # Any table of nonparametric intervals has it: n = 10, ranks 2 and 9, 97.9 %.
    found = stats.estimate([3.0, 1.0, 2.0, 9.0, 8.0, 7.0, 4.0, 5.0, 6.0, 10.0])
    assert (found.n, found.median, found.low, found.high) == (10, 5.5, 2.0, 9.0)
    assert (found.minimum, found.maximum) == (1.0, 10.0)
    assert found.coverage == pytest.approx(1 - 2 * 11 / 1024)
    assert found.relative_half_width == pytest.approx(3.5 / 5.5)


def test_fewer_than_six_have_a_range_and_its_coverage_and_no_interval() -> None:
    for n in range(1, 6):
        found = stats.estimate([float(i) for i in range(n)])
        assert found.low is None
        assert found.high is None
        assert found.relative_half_width is None
        assert found.coverage == pytest.approx(1 - 2 * 0.5**n)
    assert stats.relative_half_width([]) is None
    with pytest.raises(ValueError, match="no values"):
        stats.estimate([])


@given(values)
def test_the_median_lies_in_its_interval_and_order_does_not_matter(found: list[float]) -> None:
    told = stats.estimate(found)
    assert told == stats.estimate(found[::-1])
    assert told.minimum <= told.median <= told.maximum
    assert told.median == pytest.approx(float(np.median(found)))
    if told.low is not None and told.high is not None:
        assert told.minimum <= told.low <= told.median <= told.high <= told.maximum
        assert told.coverage >= 0.95


@pytest.mark.parametrize(("n", "q"), [(10, 0.5), (37, 0.5), (100, 0.95), (400, 0.99)])
def test_the_interval_covers_what_it_claims(n: int, q: float) -> None:
    found = stats.order_interval(n, q)
    assert found is not None
    below = scipy_stats.binom(n, q)
    assert below.cdf(found[0]) <= 0.025 < below.cdf(found[0] + 1)
    assert below.sf(found[1]) <= 0.025 < below.sf(found[1] - 1)


def test_the_median_interval_covers_by_trial() -> None:
    chance = random.Random(7)
    trials = [stats.estimate([chance.lognormvariate(0, 1) for _ in range(20)]) for _ in range(500)]
    covered = sum(told.low <= 1.0 <= told.high for told in trials if told.low is not None and told.high is not None)
    low, _ = stats.binomial_interval(covered, 500)
    assert covered / 500 >= 0.93
    assert low > 0.90


def test_a_ratio_and_its_interval() -> None:
    chance = random.Random(3)
    a = [chance.gauss(100, 5) for _ in range(40)]
    b = [chance.gauss(150, 5) for _ in range(40)]
    found = stats.ratio(a, b)
    assert found == stats.ratio(a, b)
    assert found.value == pytest.approx(float(np.median(b) / np.median(a)))
    assert found.low is not None
    assert found.high is not None
    assert 1.4 < found.low < 1.5 < found.high < 1.6


def test_a_ratio_without_ground() -> None:
    few = stats.ratio([1.0] * 5, [2.0] * 9)
    assert (few.value, few.low, few.high) == (2.0, None, None)
    with pytest.raises(ValueError, match="positive"):
        stats.ratio([0.0], [1.0])
    with pytest.raises(ValueError, match="no values"):
        stats.ratio([], [1.0])
    # A resample's median could be 0 and divide by it.
    assert stats.ratio([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], [1.0] * 7).low is None


def test_the_permutation_test_is_exact_for_few() -> None:
    a, b = [1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]
    assert rank_test.permutation_test(a, b) == pytest.approx(2 / math.comb(8, 4))
    assert rank_test.permutation_test(b, a) == pytest.approx(2 / math.comb(8, 4))
    assert rank_test.permutation_test([1.0] * 4, [1.0] * 4) == 1.0


@pytest.mark.parametrize("n", [4, 6, 12])
def test_the_permutation_test_agrees_with_scipys(n: int) -> None:
    chance = random.Random(n)
    a, b = [chance.gauss(0, 1) for _ in range(n)], [chance.gauss(0.8, 1) for _ in range(n)]
    scores = scipy_stats.norm.ppf(scipy_stats.rankdata(a + b) / (2 * n + 1))
    expected = scipy_stats.permutation_test(
        (scores[:n], scores[n:]), lambda _, y, axis: np.sum(y, axis=axis), vectorized=True, rng=1
    ).pvalue
    assert rank_test.permutation_test(a, b) == pytest.approx(float(expected), abs=0.0 if n < 8 else 0.015)


def test_the_permutation_test_keeps_its_level_and_needs_no_symmetry() -> None:
    chance = random.Random(11)
    p_values = [
        rank_test.permutation_test(
            [chance.lognormvariate(0, 1) for _ in range(8)], [chance.lognormvariate(0, 1) for _ in range(12)]
        )
        for _ in range(150)
    ]
    low, high = stats.binomial_interval(sum(p <= 0.05 for p in p_values), 150, confidence=0.999)
    assert low <= 0.05 <= high


@given(values, values)
def test_a_p_value_is_one(a: list[float], b: list[float]) -> None:
    assert 0 < rank_test.permutation_test(a, b) <= 1


def test_holm_against_the_worked_example() -> None:
    # R: p.adjust(c(.01, .04, .03, .005), "holm")
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(min_value=0, max_value=1), max_size=10))
def test_holm_keeps_the_order_and_only_raises(p_values: list[float]) -> None:
    told = stats.holm(p_values)
    assert all(corrected >= p for p, corrected in zip(p_values, told, strict=True))
    ranked = sorted(zip(p_values, told, strict=True))
    assert all(a[1] <= b[1] for a, b in itertools.pairwise(ranked))


def test_many_values_take_bounded_memory() -> None:
    a = [float(i) for i in range(1500)]
    assert rank_test.permutation_test(a, [x + 200 for x in a]) < 0.001
    assert stats.estimate(a).low is not None


def test_scipy_and_numpy_are_imported_on_use_only() -> None:
    code = """
import random, sys
from lab.figures import comparison, notes, rank_test, series, shapes, stats
from lab.show import table
a, b = ([random.lognormvariate(0, 0.1) for _ in range(10)] for _ in range(2))
stats.ratio(a, b), rank_test.permutation_test(a, b), shapes.shapes(a, range(10), "s", rows=1)
print({'scipy', 'numpy', 'plotly', 'lab.scenario', 'lab.driver'} & set(sys.modules))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout == "set()\n"
