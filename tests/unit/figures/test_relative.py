"""Runs of two hosts are compared over the bare process of each, and never as they stand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from made_run import INSTANTS

from lab.errors import IncomparableRuns
from lab.figures import notes, relative, series
from lab.figures.compared import Verdict
from lab.figures.comparison import compare_runs
from lab.store.record import RunRecord
from lab.units import RATIO


def on(record: RunRecord, host: str, times: float = 1.0) -> RunRecord:
    """The run as a host takes it that is so many times as slow."""
    samples = [replace(one, value=one.value * times) for one in record.samples]
    run = replace(record.run, host_id=host, host_name=f"{host}-name")
    return replace(record, run=run, samples=samples)


def test_a_slower_host_is_no_regression_of_anything(make_record: Any) -> None:
    a = on(make_record("a", n=20, seed=1), "one")
    b = on(make_record("b", n=20, seed=2), "other", times=3.0)
    found = compare_runs(a, b)
    assert not found.alarms and not found.regressions
    assert "two hosts, one-name and other-name" in notes.conclusion(found)
    compared = [row for row in found.rows if row.ratio is not None]
    assert {row.metric for row in compared} >= {"boot_s", "stop_s"}
    for row in compared:
        assert row.unit == RATIO and row.dimensions[relative.OVER] == series.CONTROL and row.target != series.CONTROL
        assert row.ratio is not None and row.ratio.value == pytest.approx(1.0, abs=0.25)
    (control,) = [row for row in found.rows if row.target == series.CONTROL and row.metric == "boot_s"]
    assert control.verdict is Verdict.NOT_COMPARED and control.ratio is None and control.p is None
    assert control.a is not None and control.b is not None and control.b.median > 2 * control.a.median
    on_one = compare_runs(a, on(b, "one"))
    assert on_one.regressions and not on_one.hosts, "as they stand, they differ"


def test_what_got_slower_over_its_control_is_seen_on_a_quicker_host(make_record: Any) -> None:
    slower = {"docker": INSTANTS["docker"]["ready"]}  # twice as long
    a = on(make_record("a", n=20, seed=1), "one")
    b = on(make_record("b", n=20, seed=2, delays_ms=slower), "other", times=0.3)
    found = compare_runs(a, b)
    assert [(row.target, row.metric) for row in found.regressions] == [("docker", "boot_s")]
    (row,) = found.regressions
    assert row.ratio is not None and row.ratio.value == pytest.approx(2.0, rel=0.2)


def test_a_ratio_is_of_one_round(make_record: Any) -> None:
    record = make_record(n=3, noise=0.3)
    boots = {one.target: one for one in series.series_of(record) if one.metric == "boot_s"}
    (docker,) = [
        one
        for one in relative.over_control(series.series_of(record))
        if (one.target, one.metric) == ("docker", "boot_s")
    ]
    control = dict(zip(boots["process"].rounds, boots["process"].values, strict=True))
    own = dict(zip(boots["docker"].rounds, boots["docker"].values, strict=True))
    assert dict(zip(docker.rounds, docker.values, strict=True)) == {place: own[place] / control[place] for place in own}


def test_without_a_control_two_hosts_are_not_compared(make_record: Any) -> None:
    alone = {name: at for name, at in INSTANTS.items() if name != series.CONTROL}
    a, b = on(make_record("a"), "one"), on(make_record("b", instants=alone), "other")
    for pair in ((a, b), (b, a)):
        with pytest.raises(IncomparableRuns, match=r"run b is of another host \(other-name\) and has no 'process'"):
            compare_runs(*pair)
    control_only = {series.CONTROL: INSTANTS[series.CONTROL]}
    pair = (on(make_record("a", instants=control_only), "one"), on(make_record("b", instants=control_only), "other"))
    with pytest.raises(IncomparableRuns, match="no row in common: over the control of each host"):
        compare_runs(*pair)


def test_a_host_that_is_not_known_is_no_other_host(make_record: Any) -> None:
    a, b = make_record("a", n=12, seed=1), on(make_record("b", n=12, seed=2), "other")
    assert not compare_runs(a, b).hosts
