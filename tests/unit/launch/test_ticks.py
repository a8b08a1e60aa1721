"""Engines that tick: what is timed begins at a random instant, and its interval is then one of a random moment's."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.driver import Context
from lab.features import Feature
from lab.figures import notes, series
from lab.figures.stats import estimate
from lab.launch.session import Session
from lab.launch.ticks import begin_at_random, tick_s
from lab.spec import Spec
from lab.store.record import RunRecord
from lab.testing import FakeDriver
from lab.timeline import Phase
from scenarios.boot import Boot
from scenarios.scale import Scale

TICK_S = 1.0
CREATED_S, STARTED_S = 0.010, 0.020
TRUE_MEDIANS_S = {"started": CREATED_S + STARTED_S + TICK_S / 2, "stopped": TICK_S / 2}
"""Of who asks at any moment: until the next tick it is, on the median, half of one."""
ROUNDS, RUNS = 20, 200


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    made = FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path))
    made.engine.tick_s, made.engine.created_s, made.engine.started_s = TICK_S, CREATED_S, STARTED_S
    made.engine.features = frozenset({Feature.MARKER, Feature.TICKS})
    return made


def times_of_a_run(driver: FakeDriver, *, seed: int, waits: bool) -> dict[str, list[float]]:
    """The times of `ROUNDS` launches, the service of which takes some 30 ms, as its machine has it."""
    jitter, chance = random.Random(f"{seed} jitter"), random.Random(seed)
    found: dict[str, list[float]] = {"started": [], "stopped": []}
    for _ in range(ROUNDS):
        driver.engine.main_s = max(0.0, jitter.gauss(0.030, 0.010))
        spec = Spec(labels={"lab.run": "r"}).for_launch()
        with Session(driver, driver.info(), spec, driver.engine.clock, chance=chance if waits else None) as session:
            session.launch()
            session.stop()
            timeline = session.timeline
            found["started"].append(timeline.duration_s(Phase.REQUESTED, Phase.STARTED))
            found["stopped"].append(timeline.duration_s(Phase.STOP_REQUESTED, Phase.STOPPED))
    return found


def coverage(driver: FakeDriver, name: str, *, waits: bool, runs: int = RUNS) -> float:
    """In which share of runs the interval of the median has the true one within."""
    hits = 0
    for seed in range(runs):
        found = estimate(times_of_a_run(driver, seed=seed, waits=waits)[name])
        assert found.low is not None and found.high is not None
        hits += found.low <= TRUE_MEDIANS_S[name] <= found.high
    return hits / runs


@pytest.mark.parametrize("name", ["started", "stopped"])
def test_with_the_wait_the_interval_covers_the_truth_at_its_level_and_without_it_does_not(
    driver: FakeDriver, name: str
) -> None:
    error = (0.95 * 0.05 / RUNS) ** 0.5
    assert coverage(driver, name, waits=True) >= 0.95 - 2 * error
    assert coverage(driver, name, waits=False, runs=RUNS // 5) == 0.0


def test_without_the_wait_a_launch_locks_onto_the_tick(driver: FakeDriver) -> None:
    """The fault that the wait mends, so that the test above is of something: three runs agree, and are wrong."""
    medians = [estimate(times_of_a_run(driver, seed=seed, waits=False)["stopped"]).median for seed in range(3)]
    assert max(medians) - min(medians) < 0.02 and min(medians) > 0.9


def test_the_wait_is_the_seeds_untimed_and_told(
    driver: FakeDriver, measure: Callable[..., RunRecord], tmp_path: Path
) -> None:
    driver.engine.features |= {Feature.NETWORK}
    record = measure(Boot(), driver, driver.engine.clock, rounds=8)
    told = [launch.facts["tick"] for launch in record.launches]
    assert {one["s"] for one in told} == {TICK_S}
    waits = [one["waited_s"][what] for one in told for what in ("launch", "stop")]
    assert len(set(waits)) == 16 and min(waits) >= 0.0 and max(waits) < TICK_S
    launch = record.launches[0]
    requested, deleted = launch.timeline.mark(Phase.REQUESTED).ns, launch.timeline.mark(Phase.DELETED).ns
    assert (deleted - requested) / 1e9 < 2 * TICK_S + waits[1] + 0.1, "the wait before the launch is not in its times"
    assert {sample.dimensions["clock"] for sample in record.samples} == {"1 s tick"}
    assert any(
        "fake" in text and "every 1 s" in text and "random" in text
        for text in notes.of_run(record, series.series_of(record))
    )


def test_of_launches_in_a_row_only_the_first_is_waited_for(
    driver: FakeDriver, measure: Callable[..., RunRecord]
) -> None:
    """Their times are from the first that is asked for, so that waits between them would be in the figure."""
    driver.engine.features |= {Feature.NETWORK}
    record = measure(Scale(replicas=4), driver, driver.engine.clock)
    assert ["tick" in launch.facts for launch in record.launches].count(True) == 1
    (up,) = [sample.value for sample in record.samples if sample.metric == "scale_up_s"]
    assert up < 4 * TICK_S  # three launches, each of which locks onto the tick after the one before


def test_an_engine_that_does_not_tick_is_not_waited_for(driver: FakeDriver) -> None:
    driver.engine.features -= {Feature.TICKS}
    before_ns = driver.engine.clock.now_ns()
    assert begin_at_random(driver.info(), driver.engine.clock, random.Random(1)) == 0.0
    assert driver.engine.clock.now_ns() == before_ns and tick_s(driver.info()) == 0.0
