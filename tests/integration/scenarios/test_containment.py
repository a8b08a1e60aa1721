"""Trouble on real platforms: it ends where its limit is, by whom it must, and by itself though the lab is dead."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab.driver import Context, Driver
from lab.features import OnThisHost
from lab.figures.series import FACT
from lab.host.procs import Process
from lab.registry import make_driver
from lab.service.task import parse
from lab.spec import Target
from lab.store.record import Outcome, RunRecord
from lab.units import MIB
from scenarios.containment import Containment

pytestmark = pytest.mark.alone  # what it makes takes all that a limit leaves

Measure = Callable[..., RunRecord]

TRIES = 6
"""The machine is shared: a watcher that was late, as it says itself, is asked again."""
AVAILABLE = "available throughout"


@pytest.fixture
def driver(target: str, make_context: Callable[..., Context]) -> Iterator[Driver]:
    made = make_driver(Target.parse(target), make_context())
    yield made
    made.close()


def on(target: str) -> Any:
    return pytest.mark.parametrize("target", [pytest.param(target, marks=pytest.mark.engine(target))])


def facts(record: RunRecord) -> dict[str, str]:
    assert [launch.error for launch in record.launches if launch.outcome is not Outcome.OK] == []
    return {one.dimensions["probe"]: one.dimensions["said"] for one in record.samples if one.metric == FACT}


def figure(record: RunRecord, metric: str, **dimensions: str) -> float:
    wanted = dimensions.items()
    (found,) = [one.value for one in record.samples if one.metric == metric and wanted <= one.dimensions.items()]
    return found


def watched_calmly(measure: Measure, driver: Driver, trouble: str, *others: str) -> tuple[RunRecord, dict[str, str]]:
    """A run of all, and what it told; that of `trouble` from a watch that is evidence: the watcher was not late, and
    nothing was amiss in the quiet window."""
    first = measure(Containment(seconds=1, troubles=",".join([*others, trouble])), driver)
    told = facts(first)
    for _ in range(TRIES - 1):
        if not any("inconclusive" in words or "quiet window" in words for words in _watched(told, trouble)):
            break
        told |= facts(measure(Containment(seconds=1, troubles=trouble), driver))
    return first, told


def _watched(told: Mapping[str, str], trouble: str) -> tuple[str, str]:
    return told[f"{trouble}: the host"], told[f"{trouble}: the neighbour"]


@on("docker")
def test_a_containers_trouble_ends_at_its_cgroups_limits(driver: Driver, measure: Measure) -> None:
    record, told = watched_calmly(measure, driver, "forks", "disk", "memory", "panic")
    assert told["forks: the limit"].startswith("128 processes (pids.max")
    assert told["forks: the instance"].startswith("limited at 1") and "EAGAIN" in told["forks: the instance"]
    assert told["forks: by whom"] == "the host's kernel, at the limit of its cgroup (pids.events)"
    assert 100 <= figure(record, "reached_count", trouble="forks") < 128
    assert told["memory: the limit"].startswith("128 MiB and no swap (memory.")
    assert told["memory: the instance"] == "its process was killed; the service goes on"
    assert told["memory: by whom"] == "the host's kernel, at the limit of its cgroup (oom_kill)"
    assert 64 * MIB < figure(record, "reached_bytes", trouble="memory") <= 128 * MIB
    assert figure(record, "outcome_s", trouble="memory") > 0
    assert told["disk: the instance"] == "limited at 16 MiB (ENOSPC); the service goes on"
    assert told["panic: the instance"] == "not made: the kernel is the host's"
    for trouble in ("disk", "forks", "memory"):
        assert told[f"{trouble}: left behind"] == "nothing"
        assert figure(record, "left_processes", trouble=trouble) == 0
    assert _watched(told, "forks") == (AVAILABLE, AVAILABLE)


@on("libvirt:microvm")
def test_a_guests_trouble_is_its_own_kernels_and_its_panic_nobody_elses(driver: Driver, measure: Measure) -> None:
    _, told = watched_calmly(measure, driver, "panic", "memory")
    assert told["memory: the instance"] == "its process was killed; the service goes on"
    assert told["memory: by whom"].startswith("the guest's own kernel, on its console: Out of memory")
    assert "a kernel of its own (booted with panic=" in told["panic: the limit"]
    assert told["panic: the instance"].startswith("its kernel panicked: it is gone")
    assert "Kernel panic" in told["panic: by whom"]
    assert told["panic: left behind"] == "nothing: no process of it is left"
    assert _watched(told, "panic") == (AVAILABLE, AVAILABLE)


@on("process")
def test_the_control_gets_trouble_only_within_limits_that_were_proven(driver: Driver, measure: Measure) -> None:
    told = facts(measure(Containment(seconds=1, troubles="forks,disk,kill"), driver))
    if driver.info().facts["limits"]["pids"].startswith("not set"):
        assert told["forks: the instance"].startswith("not made: no cgroup of the instance's own")
    else:
        assert told["forks: the limit"].startswith("128 processes (pids.max")
        assert told["forks: the instance"].startswith("limited at 1")
    assert told["kill: the instance"] == "killed: it is gone, and was not started again meanwhile"
    assert told["kill: by whom"] == "SIGKILL from within"
    # However small it is, its /tmp is the host's, and is not filled.
    assert (
        told["disk: the instance"] == "not made: the instance has the host's own mounts, and so no /tmp but the host's"
    )


# --- the lab dies in the middle of each

SECONDS = 5
ENDS_WITHIN_NS = 20_000_000_000
"""After a deadline: the kernel's timer is punctual, and the service on a busy machine learns of it when it is run."""
KINDS = {"memory": 64, "forks": 50, "files": 256, "disk": 64, "cpu": 1}
DYING = """
import json, sys, time
from pathlib import Path
from lab.driver import Context
from lab.service.load import start_load, start_watch
from lab.store.place import cache_dir
from lab.registry import make_driver
from lab.launch.session import Session
from lab.spec import Spec, Target
from lab.service.task import Trouble, start_task
from lab.timeline import SystemClock
labels, kinds, run_dir = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
target, seconds, sessions = sys.argv[4], int(sys.argv[5]), []
driver = make_driver(Target.parse(target), Context(run_dir=run_dir, cache_dir=cache_dir()))
spec = Spec(labels=labels)
driver.prepare(spec)
for kind in kinds:
    sessions.append(Session(driver, driver.info(), spec.for_launch(), SystemClock()))
    sessions[-1].launch()
told = {}
for (kind, amount), session in zip(kinds.items(), sessions):
    start_task(session, Trouble(kind), seconds=seconds, amount=amount)
    told[kind] = [session.instance.endpoint.port, session.spec.nonce]
clients = [start(sessions[0].instance.endpoint, seconds=seconds, **more)
           for start, more in ((start_load, {"rate": 50}), (start_watch, {}))]
print(json.dumps([told, [client._process.pid for client in clients]]), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=pytest.mark.engine(name)) for name in ("process", "docker")]
)
def test_trouble_ends_by_itself_when_the_lab_is_killed(
    driver: Driver,
    target: str,
    labels: dict[str, str],
    make_context: Callable[..., Context],
    until: Callable[..., object],
) -> None:
    kinds = {kind: amount for kind, amount in KINDS.items() if target == "docker" or kind != "disk"}
    command = [sys.executable, "-c", DYING, json.dumps(labels), json.dumps(kinds)]
    lab = subprocess.Popen(
        [*command, str(make_context().run_dir), target, str(SECONDS)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert lab.stdout is not None
        told, clients = json.loads(lab.stdout.readline() or "[{}, []]")
        running = [Process.of(pid) for pid in clients]
        killed_ns = time.monotonic_ns()
        lab.send_signal(signal.SIGKILL)
        lab.wait()
        assert set(told) == set(kinds), "the lab ended by itself"
        for kind, where in told.items():
            _ends_by_itself(kind, killed_ns, *where)
        assert all(client is not None and client.wait(30) for client in running), "a load outlives its deadline"
        for instance in driver.list_instances({"lab.run": labels["lab.run"]}):
            assert isinstance(instance, OnThisHost)
            until(lambda one=instance: _services(one) == 1)  # killed ones are gone when they have been run once more
    finally:
        lab.kill()
        lab.communicate()
        for instance in driver.list_instances({"lab.run": labels["lab.run"]}):
            instance.delete()
        for leftover in driver.leftovers({"lab.run": labels["lab.run"]}):
            leftover.delete()


def _ends_by_itself(kind: str, killed_ns: int, port: int, nonce: str) -> None:
    """It was under way when the lab was killed, and ended at its own deadline, all by the clock that they share."""
    give_up = time.monotonic() + 60
    while (state := parse(_task(port, nonce))).running:
        assert time.monotonic() < give_up, f"{kind} outlives its deadline"
        time.sleep(0.1)
    assert state.kind == kind
    assert state.signal == signal.SIGALRM, state
    assert state.started_ns < killed_ns < state.deadline_ns, "the lab was not killed in the middle of it"
    assert state.ended_ns is not None
    assert 0 <= state.ended_ns - state.deadline_ns < ENDS_WITHIN_NS, state


def _task(port: int, nonce: str) -> Mapping[str, Any]:
    answer = httpx.get(f"http://127.0.0.1:{port}/task", headers={"X-Lab-Nonce": nonce}, timeout=30.0, trust_env=False)
    return dict(answer.json())


def _services(instance: OnThisHost) -> int:
    """How many processes run the service's program: it, and what it forked."""
    return sum(_name(pid).startswith("service") for pid in instance.host_pids())


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
