"""lab/figures/nights/night.py and conditions.py: a run as a night."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_run import make_record

from lab.figures.nights import robust
from lab.figures.nights.conditions import changes
from lab.figures.nights.night import CONFIRMS, figure_of, night_of, night_of_history, nights_of
from lab.figures.series import Series
from lab.store.history import HistoricRun, SeriesKey
from lab.store.record import Outcome, RunRecord, TargetRecord

ROW = Series(target="docker", label="docker", metric="boot_s", unit="s", dimensions={}, values=())


def as_history(record: RunRecord) -> HistoricRun:
    series: dict[SeriesKey, array[float]] = {}
    for sample in record.samples:
        if not sample.warmup:
            key = SeriesKey(sample.target, sample.metric, sample.unit, tuple(sorted(sample.dimensions.items())))
            series.setdefault(key, array("d")).append(sample.value)
    return HistoricRun(run=record.run, host=record.host, targets=record.targets, series=series, failures={})


def test_a_stored_run_and_a_loaded_one_are_the_same_night() -> None:
    record = make_record(n=8)
    assert night_of_history(as_history(record)) == night_of(record)


def test_repetitions_are_taken_together() -> None:
    both = night_of(make_record(n=8), make_record(n=8, seed=2))
    assert {figure.n for figure in both.figures.values() if figure.metric == "boot_s"} == {16}


def test_a_run_that_looks_into_a_suspicion_is_no_night() -> None:
    record = make_record(n=3)
    other = replace(record, run=replace(record.run, parameters={CONFIRMS: "a"}))
    assert len(nights_of([as_history(record), as_history(other)])) == 1


def test_values_that_are_not_finite_are_left_out_and_too_few_make_no_figure() -> None:
    found = figure_of(ROW, [1.0, math.nan, 1.0, math.inf, 1.0, -math.inf])
    assert found is not None and found.n == 3 and found.value == pytest.approx(1.0)
    assert figure_of(ROW, [1.0, 2.0]) is None
    assert figure_of(ROW, [math.nan] * 9) is None


def test_zero_has_no_logarithm() -> None:
    found = figure_of(ROW, [0.0, 1.0, 2.0])
    assert found is not None and found.log is None and found.value is None


def test_targets_without_a_figure_are_told_with_their_reason() -> None:
    record = make_record(n=3)
    gone = TargetRecord(target="swarm", outcome=Outcome.SKIPPED, reason="no daemon")
    assert night_of(replace(record, targets=[*record.targets, gone])).absent == {"swarm": "skipped: no daemon"}


def test_what_must_be_equal_and_what_may_differ() -> None:
    record = make_record(n=3)
    before = night_of(record)
    host = {**record.host, "kernel": {"release": "6.8.0"}, "cpu": {"microcode": "0x2f", "governors": ["performance"]}}
    tcg = replace(record.targets[2], info={**record.targets[2].info, "qualifiers": {"accel": "kvm"}})
    after = night_of(replace(record, host=host, targets=[*record.targets[:2], tcg]))
    assert before.group == after.group == {"scenario": "boot", "cpus": "1.0", "memory": str(128 << 20)}
    assert changes(before.conditions, after.conditions) == ["kernel 6.1.0 → 6.8.0", "accel of libvirt:q35 tcg → kvm"]
    assert changes(before.conditions, after.conditions, target="docker") == ["kernel 6.1.0 → 6.8.0"]


def test_company_is_a_condition_in_words() -> None:
    assert changes({"company": "docker, process"}, {"company": "process, swarm"}) == [
        "company: swarm ran as well and docker ran no more"
    ]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.floats(-1e3, 1e3))
@settings(max_examples=40, deadline=None)
def test_location_moves_with_its_values_and_lies_among_them(values: list[float], shift: float) -> None:
    found = robust.location(values)
    assert min(values) - 1e-6 <= found <= max(values) + 1e-6
    assert robust.location([value + shift for value in values]) == pytest.approx(found + shift, abs=1e-6, rel=1e-6)


def test_one_wild_value_of_ten_hardly_moves_the_location() -> None:
    values = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 0.99, 1.0, 50.0]
    assert robust.location(values) == pytest.approx(1.0, abs=0.02)


def test_spread_is_the_standard_deviation_of_normal_values_and_slope_that_of_a_line() -> None:
    from statistics import NormalDist

    values = [NormalDist(0, 3).inv_cdf((place + 0.5) / 400) for place in range(400)]
    assert robust.spread(values) == pytest.approx(3.0, rel=0.01)
    assert robust.spread([1.0]) == 0.0
    x = [float(place) for place in range(150)]
    wild = [0.5 * one + (100.0 if place % 10 == 0 else 0.0) for place, one in enumerate(x)]
    assert robust.slope(x, wild) == pytest.approx(0.5, abs=0.02)
    assert robust.slope([1.0, 1.0], [1.0, 2.0]) == 0.0
