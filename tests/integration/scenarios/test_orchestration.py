"""Scaling, rolling out and recovering on real engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lab.driver import Context, Driver
from lab.features import Feature, Replicates
from lab.launch.census import Census, identity
from lab.launch.session import Session
from lab.registry import driver_names, make_driver
from lab.spec import Spec, Target
from lab.store.record import Outcome, RunRecord
from lab.timeline import Phase, SystemClock
from scenarios.recover import Recover
from scenarios.rollout import Rollout
from scenarios.scale import Scale

Measure = Callable[..., RunRecord]

BY_LAUNCHES = ["process", "docker", "oci", "libvirt:microvm"]
BY_ENGINE = ["swarm", "kubernetes:deployment"]
WINDOWS_S = {
    "process": (1.0, 4.0),
    "libvirt:microvm": (8.0, 14.0, 40.0),
    "swarm": (7.0, 14.0, 40.0),
    "kubernetes:deployment": (30.0, 60.0),
}
"""The later ones, where the machine was too busy with others' work for the first."""
RATES_PER_S = {"process": 200}
"""So that requests fall into the short while in which nobody listens."""


def on(*targets: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Parametrizes a test over `targets`, each marked with its engine; drivers that are not installed are left out."""
    there = set(driver_names())
    return pytest.mark.parametrize(
        "target",
        [pytest.param(one, marks=pytest.mark.engine(one)) for one in targets if one.partition(":")[0] in there],
    )


@pytest.fixture
def driver(target: str, make_context: Callable[..., Context]) -> Iterator[Driver]:
    made = make_driver(Target.parse(target), make_context())
    yield made
    made.close()


def values(record: RunRecord, metric: str, **dimensions: str) -> list[float]:
    wanted = dimensions.items()
    return [s.value for s in record.samples if s.metric == metric and wanted <= s.dimensions.items()]


def failures(record: RunRecord) -> list[str]:
    target = [one.reason for one in record.targets if one.outcome is not Outcome.OK]
    return target + [f"{one.error}\n{one.logs}" for one in record.launches if one.outcome is not Outcome.OK]


@on(*BY_LAUNCHES, *BY_ENGINE)
def test_scale_up_and_down(driver: Driver, measure: Measure, target: str) -> None:
    record = measure(Scale(replicas=3, parallel=2), driver)
    assert not failures(record)
    kth = [values(record, "kth_ready_s", k=str(k)) for k in (1, 2, 3)]
    assert all(len(found) == 1 and found[0] > 0 for found in kth)
    assert kth[1] <= kth[2] == values(record, "scale_up_s")
    assert values(record, "failed_replicas") == [0]
    assert values(record, "scale_down_s")[0] > 0
    by_engine = Feature.REPLICAS in driver.info().features
    assert len(record.launches) == (1 if by_engine else 3)
    assert {s.dimensions["way"] for s in record.samples} == {"engine" if by_engine else "launches"}
    assert all(Phase.DELETED in launch.timeline for launch in record.launches)


@on(*BY_LAUNCHES, *BY_ENGINE)
def test_roll_out_under_load(driver: Driver, measure: Measure, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.service.load.LATE_SHARE", 1.0)  # these tests may share their CPUs
    rate = RATES_PER_S.get(target, 20)
    for window_s in WINDOWS_S.get(target, (2.0, 8.0, 20.0)):
        record = measure(Rollout(seconds=window_s, rate=rate), driver)
        assert not failures(record)
        [told] = [s.dimensions for s in record.samples if s.metric == "rolled_out"]
        by_restart = told["way"] == "restart"
        if values(record, "rolled_out") == [1.0] and (not by_restart or _failed(record)):
            break
    assert values(record, "rolled_out") == [1.0]
    assert 0 < values(record, "rollout_s")[0] < window_s
    sent = values(record, "requests_sent", window="quiet") + values(record, "missed_sends", window="quiet")
    assert sum(sent) == pytest.approx(rate * window_s, abs=rate / 2)
    assert all(told[key] for key in ("order", "readiness", "grace", "pre_stop"))
    if by_restart:
        assert _failed(record) > 0
        assert len({launch.facts["address"] for launch in record.launches}) == 1 and len(record.launches) == 2


def _failed(record: RunRecord) -> float:
    return values(record, "requests_failed", window="rollout")[0]


@on(*BY_ENGINE)
def test_scaling_up_replaces_no_replica_that_runs(driver: Driver, labels: dict[str, str], target: str) -> None:
    driver.prepare(Spec(labels=labels))
    clock = SystemClock()
    with Session(driver, driver.info(), Spec(labels=labels).for_launch(), clock) as session:
        session.launch()
        assert isinstance(session.instance, Replicates)
        first = identity(session.answer)
        with Census(session.instance, session.spec, clock, known=frozenset({first}), everyone=True) as census:
            session.instance.scale(2)
            assert census.look(lambda: len(census.first_ns) == 1, timeout_s=60)
            assert not census.look(lambda: len(census.first_ns) > 1, timeout_s=4)
            asked_ns = clock.now_ns()
            assert census.look(lambda: census.last_ns.get(first, 0) > asked_ns, timeout_s=10)
    for leftover in driver.leftovers(labels):
        leftover.delete()


@on("docker")
def test_docker_recovers_only_with_a_policy(driver: Driver, measure: Measure, target: str) -> None:
    record = measure(Recover(within=4.0), driver)
    assert not failures(record)
    assert values(record, "recovered", restart="default", policy="no") == [0.0]
    assert values(record, "recovered", restart="best", policy="always") == [1.0]
    assert len(values(record, "recover_s")) == 1


@on("process", "oci", "libvirt:microvm")
def test_what_nobody_restarts_is_censored(driver: Driver, measure: Measure, target: str) -> None:
    record = measure(Recover(within=1.5), driver)
    assert not failures(record)
    assert values(record, "recovered", censored_at="1.5s", policy="none") == [0.0]
    assert not values(record, "recover_s") and len(record.launches) == 1


@on(*BY_ENGINE)
def test_orchestrators_recover(driver: Driver, measure: Measure, target: str) -> None:
    if Feature.HOST_PIDS not in driver.info().features:
        pytest.skip("its processes are not this host's")
    record = measure(Recover(within=60.0), driver)
    assert not failures(record)
    assert values(record, "recovered")[-1] == 1.0
