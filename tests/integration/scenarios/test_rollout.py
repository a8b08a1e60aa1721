"""Rolling out on the fake engine under real load, over its real schedule."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.driver import Context
from lab.errors import LabError
from lab.features import Feature
from lab.launch.session import Session
from lab.launch.spread import Spreader
from lab.launch.waiter import reserve_port
from lab.service.load import run_load, start_load, start_watch
from lab.spec import Endpoint, Spec
from lab.store.record import Outcome, RunRecord
from lab.testing import FakeDriver, FakeEngine, WaitingClock
from scenarios.rollout import Rollout

Measure = Callable[..., RunRecord]


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    made = FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path)).engine
    made.clock = WaitingClock()
    return made


@pytest.fixture
def driver(tmp_path: Path, engine: FakeEngine) -> FakeDriver:
    return FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path))


@pytest.fixture(autouse=True)
def _client_may_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests share their CPUs with others; what lateness means is tested by itself."""
    monkeypatch.setattr("lab.service.load.LATE_SHARE", 1.0)


def one(record: RunRecord, metric: str, window: str | None = None) -> float:
    [found] = [s.value for s in record.samples if s.metric == metric and s.dimensions.get("window") == window]
    return found


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Bound, so that nobody else listens there, and not listened at."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_a_load_on_nothing_is_refused_request_by_request(closed_port: int) -> None:
    result = run_load(Endpoint("127.0.0.1", closed_port), rate=50, seconds=0.2)
    assert len(result.requests) == 10 == result.failed
    assert {request.status for request in result.requests} == {"refused"}


def test_a_client_ends_when_told_and_when_left(closed_port: int) -> None:
    endpoint = Endpoint("127.0.0.1", closed_port)
    with start_watch(endpoint, seconds=60, interval_s=0.02) as watch, start_load(endpoint, rate=1, seconds=60) as load:
        assert len(watch.stop().requests) == 3000
    assert load._process.returncode is not None


def test_bad_arguments_and_loads_without_bound_are_refused() -> None:
    with pytest.raises(LabError, match="status 2"):
        run_load(Endpoint("no-number", 1), rate=1, seconds=1)
    with pytest.raises(LabError, match="too long"):
        run_load(Endpoint("127.0.0.1", 1), rate=1000, seconds=3600)


def test_by_hand_the_gap_is_seen(driver: FakeDriver, engine: FakeEngine, measure: Measure) -> None:
    engine.main_s = 0.5
    record = measure(Rollout(seconds=1.5), driver, engine.clock)
    assert [launch.outcome for launch in record.launches] == [Outcome.OK, Outcome.OK], record.launches
    assert one(record, "rolled_out") == 1.0
    assert 0.5 <= one(record, "rollout_s") < 1.5
    assert one(record, "requests_failed", "quiet") == 0
    # Half a second without a service at 50 requests a second; some may be late to notice.
    assert one(record, "requests_failed", "rollout") >= 20
    assert one(record, "requests_sent", "quiet") == pytest.approx(75, abs=3)
    [rollout] = [sample for sample in record.samples if sample.metric == "rollout_s"]
    assert rollout.dimensions["way"] == "restart" and rollout.dimensions["order"] == "stop-first"
    first, second = record.launches
    assert first.facts["address"] == second.facts["address"]


def test_by_the_engine_nobody_notices(driver: FakeDriver, engine: FakeEngine, measure: Measure) -> None:
    engine.features |= {Feature.REPLICAS}
    engine.replica_s = 0.2
    record = measure(Rollout(seconds=1.5, replicas=3), driver, engine.clock)
    assert len(record.launches) == 1 and record.launches[0].outcome is Outcome.OK, record.launches
    assert one(record, "rolled_out") == 1.0
    # The third takes over after 0.6 s, and the one that it replaces had every third request until then.
    assert one(record, "rollout_s") >= 0.5
    assert one(record, "requests_failed", "rollout") == 0
    [rollout] = [sample for sample in record.samples if sample.metric == "rollout_s"]
    assert rollout.dimensions["order"] == "start-first" and rollout.dimensions["replicas"] == "3"


def test_what_does_not_end_in_its_window_is_not_rolled_out(
    driver: FakeDriver, engine: FakeEngine, measure: Measure
) -> None:
    engine.features |= {Feature.REPLICAS}
    engine.replica_s = 1.0
    record = measure(Rollout(seconds=1.0, replicas=2), driver, engine.clock)
    assert one(record, "rolled_out") == 0.0
    assert "rollout_s" not in {sample.metric for sample in record.samples}


def test_the_spreader_adds_no_failure_of_its_own(driver: FakeDriver, engine: FakeEngine, tmp_path: Path) -> None:
    spec = Spec(labels={"lab.run": "r"}, environment={"LAB_VERSION": "1"})
    ports = [Endpoint("127.0.0.1", reserve_port()) for _ in range(2)]
    info = driver.info()
    with contextlib.ExitStack() as stack:
        for endpoint in ports:
            session = stack.enter_context(Session(driver, info, spec.for_launch(), engine.clock, port=endpoint.port))
            session.launch()
        front = stack.enter_context(Spreader(lambda: ports)).endpoint
        result = start_watch(front, seconds=1.5, interval_s=0.010).result()
    assert len(result.requests) == 150 and result.failed == 0
