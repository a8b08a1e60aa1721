"""Groups, drift, steps and outliers are found where they are, and nothing is told where they are not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from scipy import stats as scipy_stats

from lab.figures import notes, shapes
from lab.figures.compared import Verdict
from lab.figures.comparison import compare_runs
from lab.figures.series import series_of
from lab.figures.shapes import Drift, Groups, Outliers, Shape, Steps
from lab.show.table import render_comparison
from lab.store.record import RunRecord

Make = Callable[..., RunRecord]
ROWS = 4


def found(values: Sequence[float], unit: str = "s", *, rows: int = ROWS) -> list[Shape]:
    return shapes.shapes(values, range(len(values)), unit, rows=rows)


def rate(kind: type[Shape], make: Callable[[random.Random], Sequence[float]], unit: str = "s") -> float:
    return (
        sum(any(isinstance(one, kind) for one in found(make(random.Random(seed)), unit)) for seed in range(100)) / 100
    )


def near(chance: random.Random, value: float, noise: float = 0.05) -> float:
    return value * chance.lognormvariate(0, noise)


def late(chance: random.Random) -> list[float]:
    return [near(chance, 3.6 if i < 6 else 43.5) for i in range(20)]


def doubled(chance: random.Random) -> list[float]:
    """Memory, which is in pages, twice as much in two launches of five."""
    return [4096.0 * (2000 * (1 + (i % 5 in (1, 3))) + chance.randrange(5)) for i in range(20)]


def ticks(chance: random.Random) -> list[float]:
    return [chance.choice((0.25, 0.25, 1.25, 1.25, 2.25)) + chance.gauss(0, 0.03) for _ in range(20)]


def rising(chance: random.Random) -> list[float]:
    return [near(chance, 0.25 + 0.16 * i / 100) for i in range(100)]


def one_far(chance: random.Random) -> list[float]:
    return [near(chance, 0.9 if i == 12 else 0.3, 0.08) for i in range(20)]


@pytest.mark.parametrize(
    ("kind", "make", "unit"),
    [
        (Groups, late, "s"),
        (Groups, doubled, "bytes"),
        (Steps, ticks, "s"),
        (Drift, rising, "s"),
        (Outliers, one_far, "s"),
    ],
)
def test_what_is_there_is_found(kind: type[Shape], make: Callable[[random.Random], list[float]], unit: str) -> None:
    assert rate(kind, make, unit) >= 0.9


_HILLS: dict[str, Callable[[random.Random], float]] = {
    "lognormal": lambda chance: chance.lognormvariate(0, 0.08),
    "skewed": lambda chance: chance.lognormvariate(0, 0.5),
    "normal": lambda chance: chance.gauss(10, 1),
    "uniform": lambda chance: chance.uniform(1, 2),
    "exponential": lambda chance: chance.expovariate(1),
    "gamma": lambda chance: 0.5 + chance.gammavariate(2, 1),
}


@pytest.mark.parametrize("hill", _HILLS)
@pytest.mark.parametrize("n", [10, 20, 60])
def test_of_runs_without_any_at_most_one_in_twenty_is_told_something(hill: str, n: int) -> None:
    """All four tests on all four rows of a run; 150 runs, of which 16 would be chance once in a hundred times."""
    chance = random.Random(n)
    told = sum(any(found([_HILLS[hill](chance) for _ in range(n)]) for _ in range(ROWS)) for _ in range(150))
    assert told <= 15


def test_memory_in_pages_is_no_row_of_groups_nor_of_steps() -> None:
    chance = random.Random(1)
    told = sum(bool(found([4096.0 * (2000 + chance.randrange(4)) for _ in range(20)], "bytes")) for _ in range(200))
    assert told <= 20


def test_what_is_told_of_each() -> None:
    (groups,) = found(
        [3.6, 3.5, 3.7, 3.6, 3.65, 3.55, *(43.5 + i / 10 for i in (3, 1, 4, 0, 5, 9, 2, 6, 8, 7, 1, 3, 2, 5))]
    )
    assert isinstance(groups, Groups)
    assert groups.counts == (6, 14)
    assert groups.medians == (3.6, pytest.approx(43.85))
    assert groups.between == (3.7, 43.5)
    assert groups.change == (5, 6)
    (steps,) = found(ticks(random.Random(2)))
    assert isinstance(steps, Steps)
    assert steps.size == pytest.approx(1, rel=0.05)
    assert sum(count for _, count in steps.at) == 20
    (drift,) = found(rising(random.Random(2)))
    assert isinstance(drift, Drift)
    assert (drift.first, drift.last) == (pytest.approx(0.275, rel=0.1), pytest.approx(0.385, rel=0.1))
    (outliers,) = found(one_far(random.Random(2)))
    assert isinstance(outliers, Outliers)
    assert list(outliers.rounds) == [12]


def test_rounds_may_have_gaps_and_come_in_any_order() -> None:
    values = late(random.Random(1))
    told = shapes.shapes(values[::-1], [2 * i + 1 for i in range(20)][::-1], "s", rows=1)
    assert isinstance(told[0], Groups)
    assert told[0].change == (11, 13)


def test_few_values_and_equal_values_have_no_shape() -> None:
    assert found([1.0] * 4 + [9.0] * 5) == []
    assert found([1.0] * 50) == []
    assert shapes.shape_p([1.0] * 9, [2.0] * 50) is None


@pytest.mark.parametrize("n", [5, 6, 11, 40, 150])
@pytest.mark.parametrize("deviate", [1.5, 2.0, 3.0])
def test_a_deviates_probability_is_grubbs(n: int, deviate: float) -> None:
    if deviate >= (n - 1) / math.sqrt(n):
        return
    t = deviate * math.sqrt(n * (n - 2) / ((n - 1) ** 2 - n * deviate**2))
    expected = min(1.0, float(2 * n * scipy_stats.t.sf(t, n - 2)))
    assert shapes._deviate_p(deviate, n) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def _with(record: RunRecord, target: str, values: Sequence[float]) -> RunRecord:
    """`record`, whose totals of `target` are `values`, one a round."""
    given = iter(values)
    samples = [
        replace(one, value=next(given)) if (one.metric, one.target, one.warmup) == ("boot_s", target, False) else one
        for one in record.samples
    ]
    return replace(record, samples=samples)


def test_a_run_says_what_its_median_hides(make_record: Make) -> None:
    record = _with(make_record(n=20), "docker", late(random.Random(3)))
    told = notes.of_run(record, series_of(record))
    (line,) = [one for one in told if one.startswith("docker:")]
    assert line.startswith("docker: two groups, 3.")
    assert "s (6 of 20) and 4" in line
    assert "s (14 of 20); the change came between rounds 6 and 7" in line  # after one round of warm-up
    assert any("at most 5%" in one for one in told)
    record = _with(make_record(n=100), "docker", rising(random.Random(3)))
    (line,) = [one for one in notes.of_run(record, series_of(record)) if one.startswith("docker:")]
    assert "rise over the rounds, from 280 ms in the first third to 379 ms in the last" in line
    assert not [one for one in notes.of_run(make_record(), series_of(make_record())) if "two groups" in one]


def test_a_comparison_tells_values_that_differ_where_medians_do_not(make_record: Make) -> None:
    a, b = make_record("a", n=30, seed=1), make_record("b", n=30, seed=2)
    common = [1.0] * 30
    partly = [1.0] * 18 + [2.0] * 12
    compared = compare_runs(_with(a, "docker", common), _with(b, "docker", partly))
    (row,) = [one for one in compared.rows if (one.target, one.metric) == ("docker", "boot_s")]
    assert row.p_corrected is not None
    assert row.p_corrected < 0.001
    assert row.verdict is Verdict.SHAPE
    assert row in compared.alarms
    assert "differs in shape: docker" in notes.conclusion(compared)
    assert compared.to_json()["alarm"] is True
    assert render_comparison(compared)


def test_a_wider_spread_alone_is_told_and_alarms_nobody(make_record: Make) -> None:
    chance = random.Random(1)
    a, b = make_record("a", n=60, seed=1), make_record("b", n=60, seed=2)
    narrow, wide = ([near(chance, 0.3, noise) for _ in range(60)] for noise in (0.02, 0.3))
    compared = compare_runs(_with(a, "docker", narrow), _with(b, "docker", wide))
    (row,) = [one for one in compared.rows if (one.target, one.metric) == ("docker", "boot_s")]
    assert row.verdict is Verdict.SHAPE
    assert row not in compared.alarms
    assert compared.shapes == [row]
    assert "differ in shape though their medians do not: docker." in notes.conclusion(compared)
    assert "No difference seen in the totals." in notes.conclusion(compared)


def test_shapes_differ_by_chance_in_few_comparisons_of_equals() -> None:
    chance = random.Random(7)
    hills = (*_HILLS.values(), lambda chance: chance.choice((0.25, 1.25)) + chance.gauss(0, 0.02))
    told = [
        shapes.shape_p([hill(chance) for _ in range(20)], [hill(chance) for _ in range(20)])
        for hill in hills
        for _ in range(100)
    ]
    assert sum(p is not None and p <= 0.05 for p in told) <= 0.05 * len(told)
