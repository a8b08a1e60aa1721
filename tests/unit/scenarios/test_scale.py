"""Scaling by launches on the fake engine's own clock; and the parameters of scenarios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab.cli.options import read_options
from lab.driver import Context
from lab.errors import BadInput
from lab.registry import make_scenario
from lab.scenario import Sized
from lab.store.record import RunRecord
from lab.testing import FakeDriver
from lab.timeline import Phase
from scenarios.scale import Scale

Measure = Callable[..., RunRecord]


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    return FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path))


def values(record: RunRecord, metric: str) -> dict[str, float]:
    return {one.dimensions.get("k", ""): one.value for one in record.samples if one.metric == metric}


def test_launches_are_asked_for_in_a_row_and_each_is_waited_for(driver: FakeDriver, measure: Measure) -> None:
    record = measure(Scale(replicas=4), driver, driver.engine.clock)
    kth = values(record, "kth_ready_s")
    assert list(kth) == ["1", "2", "3", "4"]
    # The clock moves only with launches and answers: none serves before its own launch is over.
    assert kth["1"] == pytest.approx(0.0615)
    assert all(kth[str(k)] >= 0.061 * (k - 1) for k in (2, 3, 4))
    assert kth["4"] == pytest.approx(3 * 0.0615, abs=0.003)
    assert values(record, "scale_up_s")[""] == kth["4"]
    assert values(record, "failed_replicas")[""] == 0
    assert values(record, "scale_down_s")[""] >= 0
    assert len(record.launches) == 4
    assert all(Phase.DELETED in launch.timeline for launch in record.launches)
    assert {one.dimensions["way"] for one in record.samples} == {"launches"}


def test_parameters_are_validated_by_the_scenario() -> None:
    assert make_scenario("scale", {"replicas": "8"}) == Scale(replicas=8)
    with pytest.raises(BadInput, match=r"replicas.*greater than or equal to 2"):
        make_scenario("scale", {"replicas": "1"})
    with pytest.raises(BadInput, match="no parameter 'replica'") as known:
        make_scenario("scale", {"replica": "8"})
    assert "replicas, parallel, within" in known.value.resolution
    with pytest.raises(BadInput, match="boot has no parameter 'x'"):
        make_scenario("boot", {"x": "1"})
    with pytest.raises(BadInput, match="--param: write KEY=VALUE"):
        read_options({"targets": ["process"], "param": ["replicas"]}, None)


def test_the_plan_knows_how_many_live_at_once() -> None:
    scenario = make_scenario("scale", {"replicas": "8"})
    assert isinstance(scenario, Sized) and (scenario.launches, scenario.at_once) == (8, 8)
    assert not isinstance(make_scenario("boot"), Sized)


def test_a_scenario_cannot_be_changed_once_made() -> None:
    assert replace(Scale(), replicas=3).replicas == 3
    with pytest.raises(AttributeError):
        Scale().replicas = 3  # type: ignore[misc]
