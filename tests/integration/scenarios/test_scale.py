"""Scaling on the fake engine in real time, by launches and by the engine."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.driver import Context, Instance, Mark
from lab.errors import LaunchError
from lab.features import Feature
from lab.figures.series import series_of
from lab.figures.stats import estimate
from lab.launch.census import Census
from lab.show.charts import growth
from lab.show.report import render
from lab.spec import Endpoint, Spec
from lab.store.record import Outcome, RunRecord, RunStatus
from lab.testing import FakeDriver, FakeEngine, WaitingClock
from lab.timeline import Phase
from scenarios.scale import Scale

Measure = Callable[..., RunRecord]


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    return FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path))


@pytest.fixture
def engine(driver: FakeDriver) -> FakeEngine:
    driver.engine.clock = WaitingClock()
    return driver.engine


def values(record: RunRecord, metric: str) -> dict[str, float]:
    return {one.dimensions.get("k", ""): one.value for one in record.samples if one.metric == metric}


def test_launches_at_the_same_time_overlap(driver: FakeDriver, engine: FakeEngine, measure: Measure) -> None:
    engine.main_s = 0.3
    record = measure(Scale(replicas=5, parallel=4), driver, engine.clock)
    assert len(record.launches) == 5
    asked = sorted(launch.timeline.mark(Phase.REQUESTED).ns for launch in record.launches)
    ready = sorted(launch.timeline.mark(Phase.READY).ns for launch in record.launches)
    assert ready[0] < asked[1] and asked[4] < ready[1]


def test_a_replica_that_fails_is_counted_and_recorded_and_the_others_count(
    driver: FakeDriver, engine: FakeEngine, measure: Measure
) -> None:
    class Third(FakeDriver):
        count = 0

        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            self.count += 1
            if self.count == 3:
                raise LaunchError("no room", details="said so")
            return super().launch(spec, endpoint, mark)

    third = Third("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    third.engine = engine
    record = measure(Scale(replicas=4), third, engine.clock)
    assert values(record, "failed_replicas")[""] == 1
    assert list(values(record, "kth_ready_s")) == ["1", "2", "3"]
    assert not {"scale_up_s", "scale_down_s"} & {one.metric for one in record.samples}
    failed = [launch for launch in record.launches if launch.outcome is Outcome.FAILED]
    assert len(failed) == 1 and "no room" in failed[0].error and len(record.launches) == 4
    assert not engine.instances


def test_an_error_in_the_round_blames_one_launch_and_keeps_no_samples(
    driver: FakeDriver, engine: FakeEngine, measure: Measure
) -> None:
    class Stuck(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            instance = super().launch(spec, endpoint, mark)
            if len(self.engine.instances) == 2:

                def stop(*, timeout_s: float) -> None:
                    instance.stop = original  # type: ignore[method-assign]
                    raise LaunchError("does not stop")

                original, instance.stop = instance.stop, stop  # type: ignore[method-assign]
            return instance

    stuck = Stuck("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    stuck.engine = engine
    record = measure(Scale(replicas=3), stuck, engine.clock)
    assert not record.samples
    assert sorted(launch.outcome for launch in record.launches) == [Outcome.FAILED, Outcome.OK, Outcome.OK]
    assert not engine.instances


def test_an_interrupt_among_launches_leaves_none_behind(
    driver: FakeDriver, engine: FakeEngine, measure: Measure
) -> None:
    class Interrupted(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            if len(self.engine.instances) >= 2 and not told:
                told.append(spec.nonce)
                os.kill(os.getpid(), signal.SIGINT)
                self.engine.clock.advance(0.3)  # an engine goes on with what it was asked for
            return super().launch(spec, endpoint, mark)

    told: list[str] = []
    interrupted = Interrupted("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    interrupted.engine = engine
    record = measure(Scale(replicas=8, parallel=2), interrupted, engine.clock)
    assert record.run.status is RunStatus.INTERRUPTED and not record.samples
    assert not engine.instances


def test_the_report_draws_the_growth(driver: FakeDriver, engine: FakeEngine, measure: Measure) -> None:
    record = measure(Scale(replicas=3), driver, engine.clock, rounds=2)
    rows = series_of(record)
    [line] = growth(rows, ["fake"]).to_dict()["data"]
    assert list(line["x"]) == [1, None, 2, 3]
    medians = [estimate(row.values).median for row in rows if row.metric == "kth_ready_s"]
    assert [y for y in line["y"] if y is not None] == pytest.approx(medians)
    page = render(record)
    assert 'id="growth"' in page and "From one replica to N" in page
    assert "Every launch: kth_ready_s" not in page


@pytest.mark.parametrize("seen_by", ["host-pids", "answers"])
def test_an_engine_is_asked_once_and_its_replicas_are_told_apart(
    driver: FakeDriver, engine: FakeEngine, measure: Measure, seen_by: str
) -> None:
    engine.features |= {Feature.REPLICAS} | ({Feature.HOST_PIDS} if seen_by == "host-pids" else set())
    engine.replica_s = 0.15
    record = measure(Scale(replicas=4), driver, engine.clock)
    kth = values(record, "kth_ready_s")
    assert list(kth) == ["1", "2", "3", "4"]
    # Never before the engine had it; how much later is up to the attempts that find it.
    assert all(kth[str(k)] >= 0.15 * (k - 1) for k in (2, 3, 4))
    assert kth["2"] < kth["3"] < kth["4"]
    assert len(record.launches) == 1
    [down] = [one for one in record.samples if one.metric == "scale_down_s"]
    assert down.dimensions["seen_by"] == seen_by and 0 <= down.value < 2


def test_replicas_that_an_engine_does_not_bring_are_counted(
    driver: FakeDriver, engine: FakeEngine, measure: Measure
) -> None:
    engine.features |= {Feature.REPLICAS, Feature.HOST_PIDS}
    engine.replica_s = 0.4
    record = measure(Scale(replicas=4, within=1.0), driver, engine.clock)
    found = values(record, "kth_ready_s")
    assert values(record, "failed_replicas")[""] == 4 - len(found) > 0
    assert not {"scale_up_s", "scale_down_s"} & {one.metric for one in record.samples}


def test_the_end_of_replicas_that_nobody_hears_any_more_is_not_timed(
    driver: FakeDriver, engine: FakeEngine, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Census):
        def __enter__(self) -> Census:
            if self._everyone:  # the one for scaling down
                [instance] = engine.instances.values()
                instance._keep(1)
            return super().__enter__()

    monkeypatch.setattr("scenarios.scale.Census", Late)
    engine.features |= {Feature.REPLICAS}
    record = measure(Scale(replicas=3, within=1.0), driver, engine.clock)
    assert record.launches[0].outcome is Outcome.OK, record.launches
    assert values(record, "failed_replicas")[""] == 0 and values(record, "scale_up_s")
    assert "scale_down_s" not in {one.metric for one in record.samples}
