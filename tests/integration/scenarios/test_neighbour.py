"""A noisy neighbour on real platforms: held to its CPU, seen to have worked, and ended though the lab is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.driver import Context, Driver
from lab.features import OnThisHost, Role
from lab.figures.series import ABSENT, FACT
from lab.host.procs import Process, all_ended
from lab.host.strain import Gauge
from lab.launch.session import Session
from lab.registry import make_driver
from lab.run.clean import find, sweep
from lab.service.task import Antagonist, start_task
from lab.spec import Spec, Target
from lab.store.record import Outcome, RunRecord
from lab.timeline import SystemClock
from scenarios.neighbour import Neighbour, trial

pytestmark = pytest.mark.alone  # how much of a CPU is left is what is measured

Measure = Callable[..., RunRecord]
WINDOWS_S = (0.4, 1.0, 2.0)
"""One after the other, where the machine was too busy with others' work for the one before."""
SHARES = 2.0
"""What no share reaches; above 1 it comes of readings of counter and clock that were a moment apart."""
OTHERS = ("the antagonist ended before the load did", "too many requests were not served")

# As `lab run` does, but for the lock, which another run may hold; its only line is the run's id.
LAB = """
import sys
from unittest.mock import Mock
from lab.cli.options import RunOptions
from lab.registry import make_scenario
from lab.cli.start import execute, intent
from lab.store.database import Store
parameters = {"antagonists": "busy", "share": "yes", "seconds": "1", "rate": "50"}
options = RunOptions(targets=["docker"], rounds=1, warmup=0, param=parameters)
with Store.open(sys.argv[1]) as store, intent(make_scenario("neighbour", parameters), options, {}) as plan:
    print(plan.run.id, flush=True)
    execute(plan, store, Mock())
"""


@pytest.fixture
def driver(target: str, make_context: Callable[..., Context]) -> Iterator[Driver]:
    made = make_driver(Target.parse(target), make_context())
    yield made
    made.close()


@pytest.fixture(autouse=True)
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LATE_SHARE", 1.0)  # these tests may share their CPUs


def values(record: RunRecord, metric: str, **dimensions: str) -> list[float]:
    wanted = dimensions.items()
    return [s.value for s in record.samples if s.metric == metric and wanted <= s.dimensions.items()]


def facts(record: RunRecord) -> dict[str, str]:
    return {s.dimensions["probe"]: s.dimensions["said"] for s in record.samples if s.metric == FACT}


def absent(record: RunRecord) -> dict[str, str]:
    return {s.dimensions["of"]: s.dimensions["why"] for s in record.samples if s.metric == ABSENT}


@pytest.mark.parametrize(
    ("target", "kinds", "share"),
    [
        pytest.param("process", "cache", "no", marks=pytest.mark.engine("process")),
        pytest.param("docker", "fsync", "yes", marks=pytest.mark.engine("docker")),
        pytest.param("docker:none", "busy", "yes", marks=pytest.mark.engine("docker")),
        pytest.param("libvirt:microvm", "busy,fsync", "yes", marks=pytest.mark.engine("libvirt:microvm")),
    ],
)
def test_each_antagonist_worked_on_its_cpu_or_says_why_not(
    driver: Driver, measure: Measure, target: str, kinds: str, share: str
) -> None:
    for window in WINDOWS_S:
        scenario = Neighbour(antagonists=kinds, share=share, rate=100, seconds=window)  # type: ignore[arg-type]
        record = measure(scenario, driver)
        assert [launch.error for launch in record.launches if launch.outcome is not Outcome.OK] == []
        told, missing = facts(record), absent(record)
        if not set(OTHERS) & set(missing.values()):
            break
    for cores in ("shared" if shared else "apart" for shared in scenario.sharing):
        if cores == "apart" and len(os.sched_getaffinity(0)) < 2:
            assert "only one core" in missing[f"slowdown by {kinds}, apart"]
            return
        assert ("the CPU itself" in told[f"cores: {cores}"]) == (cores == "shared")
        for kind in scenario.kinds:
            if why := missing.get(f"slowdown by {kind}, {cores}"):
                assert (kind, target) == ("fsync", "libvirt:microvm") and "no disk" in why
                continue
            requests = round(100 * window)
            _figures_agree(record, requests, antagonist=kind, cores=cores)
            assert missing[f"slowdown_p99 by {kind}, {cores}"] == f"{requests} requests are too few"
            assert "ended by itself" in told[f"antagonist: {kind}"]
    assert told["limits"]
    clients = {s.dimensions.get("client") for s in record.samples if s.metric == "slowdown_p50"}
    assert clients == ({"inside"} if target == "docker:none" else {None})


def _figures_agree(record: RunRecord, requests: int, **told: str) -> None:
    (operations,), (ratio,) = values(record, "antagonist_ops_per_s", **told), values(record, "slowdown_p50", **told)
    assert operations > 0
    a1, b, a2 = values(record, "victim_p50_s", **told)
    assert ratio == pytest.approx(b / (a1 * a2) ** 0.5)
    assert len(values(record, "request_s", **told)) + sum(values(record, "unserved_requests", **told)) == 3 * requests
    assert all(0 <= share < SHARES for share in values(record, "waited_share", **told))


@pytest.mark.parametrize("target", [pytest.param("process", marks=pytest.mark.engine("process"))])
def test_a_victim_that_its_own_quota_holds_back_is_seen_to_be(
    driver: Driver, labels: dict[str, str], until: Callable[..., Any]
) -> None:
    spec = Spec(labels=labels, cpus=0.1, cpuset=(min(os.sched_getaffinity(0)),))
    driver.prepare(spec)
    with Session(driver, driver.info(), spec.for_launch(), SystemClock()) as session:
        session.launch()
        assert session.instance is not None
        gauge = Gauge.of(session.instance)
        before = gauge.read()
        start_task(session, Antagonist.BUSY, seconds=60)  # or until the session ends
        if gauge.groups:
            until(lambda: gauge.read().since(before).throttled_s)
        strain = gauge.read().since(before)
        if gauge.groups:
            assert strain.throttled_periods is not None and strain.throttled_periods > 0
        assert all(0 <= share < SHARES for share in strain.waited.values())


@pytest.mark.parametrize("target", [pytest.param("docker", marks=pytest.mark.engine("docker"))])
def test_an_antagonist_ends_by_its_own_deadline_though_the_lab_is_dead(
    driver: Driver, tmp_path: Path, until: Callable[..., Any]
) -> None:
    command = [sys.executable, "-c", LAB, str(tmp_path / "s.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        run = {"lab.run": lab.stdout.readline().strip()}
        try:
            service, task = until(lambda: _task_of(driver, run))
            lab.send_signal(signal.SIGKILL)
            lab.wait(timeout=10)
            assert all(process.alive() for process in task), "it was killed in the middle"
            assert all_ended(task, 30.0) == []
            assert service.alive(), "which would have taken it along"
        finally:
            lab.kill()
            lab.wait(timeout=10)
            assert sweep([driver], run, quiet_s=0.3).problems == []
    assert not find([driver], run).found


def _task_of(driver: Driver, run: dict[str, str]) -> tuple[Process, list[Process]] | None:
    """A service of the run that runs a task, and the task's processes."""
    for instance in driver.list_instances(run):
        pids = instance.host_pids() if isinstance(instance, OnThisHost) else {}
        alive = (Process.of(pid) for pid, role in pids.items() if role is Role.SERVICE)
        service, *task = sorted(filter(None, alive)) or [None]
        if task:
            return service, task
    return None
