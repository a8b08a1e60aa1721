"""Recovery on the fake engine, whose replicas are as alive as real processes that sleep."""

from __future__ import annotations

import errno
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from lab.driver import Context, Instance, Mark
from lab.features import Feature, Role
from lab.host.procs import Process
from lab.show.report import render
from lab.show.table import render_run
from lab.spec import Endpoint, Spec
from lab.store.record import Outcome, RunRecord
from lab.testing import FakeDriver, FakeEngine, WaitingClock
from scenarios.recover import Recover

Measure = Callable[..., RunRecord]


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    made = FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path)).engine
    made.clock = WaitingClock()
    made.features |= {Feature.HOST_PIDS, Feature.RESTART}
    return made


@pytest.fixture
def driver(tmp_path: Path, engine: FakeEngine) -> FakeDriver:
    return FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path))


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def told(record: RunRecord, metric: str) -> dict[str, float]:
    return {one.dimensions["restart"]: one.value for one in record.samples if one.metric == metric}


def test_recovery_is_timed_with_the_best_policy_and_never_is_censored_with_the_default(
    driver: FakeDriver, engine: FakeEngine, measure: Measure
) -> None:
    engine.restart_s = 0.3
    record = measure(Recover(within=2.0), driver, engine.clock)
    assert told(record, "recovered") == {"default": 0.0, "best": 1.0}
    assert list(told(record, "recover_s")) == ["best"]
    assert 0.3 <= told(record, "recover_s")["best"] < 2.0
    assert {one.dimensions["censored_at"] for one in record.samples} == {"2s"}
    policies = {one.dimensions["restart"]: one.dimensions["policy"] for one in record.samples}
    assert policies == {"default": "no", "best": "always"}
    assert [launch.outcome for launch in record.launches] == [Outcome.OK, Outcome.OK]


def test_those_that_never_came_back_are_counted_and_in_no_average(
    driver: FakeDriver, engine: FakeEngine, measure: Measure
) -> None:
    record = measure(Recover(within=1.0), driver, engine.clock, rounds=2)
    out = StringIO()
    Console(file=out, width=150).print(render_run(record))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert any(line.startswith("fake censored_at=1s policy=no restart=default 0 of 2") for line in lines)
    assert any(line.startswith("fake censored_at=1s policy=always restart=best 2 of 2") for line in lines)
    assert any("restart=default policy=no: 0 of 2 recovered within 1s" in line for line in lines)
    page = render(record)
    assert "0 of 2" in page and "2 of 2" in page and "Every launch: recovered" not in page


def test_an_engine_without_policies_is_measured_once(driver: FakeDriver, engine: FakeEngine, measure: Measure) -> None:
    engine.features -= {Feature.RESTART}
    record = measure(Recover(within=0.3), driver, engine.clock)
    assert told(record, "recovered") == {"default": 0.0} and len(record.launches) == 1


def test_an_engine_whose_best_policy_is_its_default_is_measured_once(
    driver: FakeDriver, engine: FakeEngine, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = driver.info()
    same = replace(info, facts={**info.facts, "restart": {"default": "always", "best": "always"}})
    monkeypatch.setattr(driver, "info", lambda: same)
    record = measure(Recover(within=0.3), driver, engine.clock)
    assert len(record.launches) == 1
    assert {one.dimensions["policy"] for one in record.samples} == {"always"}


def test_a_process_that_is_older_than_the_launch_is_not_killed(
    engine: FakeEngine, measure: Measure, bystander: subprocess.Popen[bytes]
) -> None:
    class Wrong(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            self.engine.clock.advance(0.1)  # the clock of processes' starts ticks 100 times a second
            instance = super().launch(spec, endpoint, mark)

            def host_pids() -> Mapping[int, Role]:
                return {bystander.pid: Role.SERVICE}

            instance.host_pids = host_pids  # type: ignore[attr-defined]
            return instance

    wrong = Wrong("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    wrong.engine = engine
    engine.clock.advance(0.1)
    record = measure(Recover(within=0.3), wrong, engine.clock)
    assert "older than this launch" in record.launches[0].error and not record.samples
    assert bystander.poll() is None


def test_a_process_of_another_user_is_a_failed_launch_with_its_remedy(
    driver: FakeDriver, engine: FakeEngine, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pidfd: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    record = measure(Recover(within=0.3), driver, engine.clock)
    [launch] = record.launches
    assert launch.outcome is Outcome.FAILED and "another user's" in launch.error and "with sudo" in launch.error
    assert not record.samples


def test_the_vmm_is_the_main_process_where_there_is_one(engine: FakeEngine, measure: Measure) -> None:
    killed: list[int] = []

    class Virtual(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            instance = super().launch(spec, endpoint, mark)
            [vmm] = instance.host_pids()  # type: ignore[attr-defined]
            helper = subprocess.Popen(["sleep", "60"])
            helpers.append(helper)
            killed.append(vmm)

            def host_pids() -> Mapping[int, Role]:
                return {helper.pid: Role.SERVICE, vmm: Role.VMM}

            instance.host_pids = host_pids  # type: ignore[attr-defined]
            return instance

    helpers: list[subprocess.Popen[bytes]] = []
    virtual = Virtual("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    virtual.engine = engine
    engine.features -= {Feature.RESTART}
    try:
        measure(Recover(within=0.3), virtual, engine.clock)
        assert Process.of(killed[0]) is None
        assert helpers[0].poll() is None
    finally:
        for helper in helpers:
            helper.kill()
            helper.wait()
