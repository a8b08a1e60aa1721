"""Intervals of what is reckoned from measured means hold as often as they claim."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from lab.figures.cost import uncertain
from lab.figures.cost.uncertain import known, mean, reckoned


def test_the_figure_is_of_the_means_themselves() -> None:
    a, b = mean([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], name="a"), mean([2.0] * 6, name="b")
    assert reckoned(lambda x, y: x / y, a, b).figure == pytest.approx(1.75)


def test_n_is_the_smallest_of_those_behind_it() -> None:
    a, b = mean([1.0] * 6, name="a"), mean([2.0] * 40, name="b")
    assert reckoned(lambda x, y, z: x * y * z, a, b, known(3)).n == 6
    assert known(3).n is None
    assert known(3).interval is None


def test_the_same_values_give_the_same_interval() -> None:
    chance = random.Random(1)
    values = [chance.lognormvariate(0, 1) for _ in range(12)]
    assert mean(values, name="a").interval == mean(values, name="a").interval
    assert mean(values, name="a").interval != mean(values, name="b").interval


def test_below_six_there_is_none() -> None:
    assert mean([1.0, 2.0, 3.0, 4.0, 5.0], name="a").interval is None
    assert mean([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], name="a").interval is not None


def test_an_endless_draw_leaves_an_end_open_and_is_never_averaged() -> None:
    found = reckoned(_endless, mean([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], name="a"))
    assert found.interval is not None
    assert math.isinf(found.interval[1])


def _endless(x: object) -> object:
    import numpy as np

    return np.where(np.asarray(x) > 3.4, np.inf, x)


@pytest.mark.parametrize("n,spread", [(8, 0.2), (10, 0.2), (30, 0.5)])
def test_of_a_hundred_intervals_some_ninety_five_hold(n: int, spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ratio of two means of skewed values; 400 made experiments with fixed seeds, of which 5 to 7 % miss in the
    long run. A plain percentile interval misses 10 % and more of those with few values."""
    monkeypatch.setattr(uncertain, "DRAWS", 1_999)
    chance = random.Random(f"{n} {spread}")
    truth = math.exp(spread**2 / 2)  # of a lognormal's mean over a constant's
    missed = 0
    for number in range(400):
        values = [chance.lognormvariate(0, spread) for _ in range(n)]
        others = [chance.gauss(1, 0.05) for _ in range(n)]
        ratio = reckoned(lambda x, y: x / y, mean(values, name=f"{number}"), mean(others, name=f"other {number}"))
        assert ratio.interval is not None
        low, high = ratio.interval
        missed += not low <= truth <= high
        assert low <= statistics.fmean(values) / statistics.fmean(others) <= high
    assert missed <= 30
