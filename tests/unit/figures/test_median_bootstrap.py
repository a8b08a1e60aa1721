"""The exact bootstrap of medians: against resampling itself, and against what an earlier lab drew."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from made_pairs import pair

from lab.figures import median_bootstrap, stats

ROOT = Path(__file__).parents[3]
EARLIER = json.loads((ROOT / "tests" / "data" / "earlier" / "figures.json").read_text())["rows"]


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7, 20, 41, 300])
def test_the_law_of_a_resampled_median_is_that_of_resampling(n: int) -> None:
    law = median_bootstrap.law(n)
    assert math.fsum(weight for _, _, weight in law) == pytest.approx(1)
    drawn = np.sort(np.random.default_rng(n).integers(0, n, size=(40_000, n)), axis=1)
    lower, upper = drawn[:, (n - 1) // 2], drawn[:, n // 2]
    for i, j, weight in law:
        seen = float(((lower == i) & (upper == j)).mean())
        assert seen == pytest.approx(weight, abs=5 * math.sqrt(weight / 40_000) + 1e-4)


@pytest.mark.parametrize("row", EARLIER, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}")
def test_an_earlier_labs_9999_resamples_gave_the_same_interval(row: list[float]) -> None:
    """To within the chance of 9,999 resamples: four standard errors of a share of 2.5 %."""
    seed, _, _, _, value, *ends = row
    a, b = map(sorted, pair(int(seed)))
    assert stats.ratio(a, b).value == pytest.approx(value)
    for of, (low, high) in (
        (median_bootstrap.of_ratio, ends[:2]),
        (median_bootstrap.of_difference, ends[2:]),
    ):
        chance = 4 * math.sqrt(0.025 * 0.975 / 9999)
        wide, narrow = of(a, b, 0.95 + 2 * chance), of(a, b, 0.95 - 2 * chance)
        rounding = 1e-6 * (high - low)
        assert wide[0] - rounding <= low <= narrow[0] + rounding
        assert narrow[1] - rounding <= high <= wide[1] + rounding


def test_few_and_many_values_are_computed_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (sorted(np.random.default_rng(seed).lognormal(0, 0.1, 60).tolist()) for seed in (1, 2))
    by_hand = median_bootstrap.of_ratio(a, b, 0.95)
    monkeypatch.setattr(median_bootstrap, "_BY_HAND", 0)
    assert median_bootstrap.of_ratio(a, b, 0.95) == pytest.approx(by_hand, rel=1e-9)


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert median_bootstrap.of_ratio([2.0] * 9, [3.0] * 9, 0.95) == (1.5, 1.5)
    assert median_bootstrap.of_difference([2.0] * 9, [3.0] * 9, 0.95) == (1.0, 1.0)
