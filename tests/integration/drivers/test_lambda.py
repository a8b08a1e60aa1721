"""Functions by the Lambda API on a MiniStack of the lab's own: what only they do."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from host_view import listeners, sockets_of
from rigs import new_run_dir

from drivers.awslambda import LambdaDriver, server
from drivers.awslambda.emulator import provide_rie
from drivers.awslambda.function import Function
from lab.driver import Context
from lab.errors import DriverError
from lab.features import CallPhase, SleepState
from lab.host import procs
from lab.image import service_archive
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service.build import build_service
from lab.spec import Spec
from lab.store.place import cache_dir
from lab.timeline import Phase, Source, SystemClock
from scenarios.coldstart.calls import Call, Caller
from scenarios.limits import Limits

pytestmark = pytest.mark.engine("lambda")

WAIT_S = 60.0
Until = Callable[..., object]


@dataclass
class Launched:
    """One function that has answered once, and what it was launched with."""

    context: Context
    labels: Mapping[str, str]
    session: Session

    @property
    def function(self) -> Function:
        assert isinstance(self.session.instance, Function)
        return self.session.instance

    def ask(self, path: str = "/clock") -> tuple[int, Mapping[str, str], bytes]:
        return ask(self.function, self.session.spec.nonce, path)


def ask(function: Function, nonce: str, path: str) -> tuple[int, Mapping[str, str], bytes]:
    """A request as a program without the lab sends it: its status, headers and body."""
    where = function.endpoint
    assert where is not None
    connection = http.client.HTTPConnection(where.host, where.port, timeout=WAIT_S)
    try:
        connection.request("GET", path, headers={"Host": where.authority, "X-Lab-Nonce": nonce})
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def asked_directly(launched: Launched) -> list[Mapping[str, Any]]:
    """What /clock tells where the worker is asked without its platform, one call after the other, each proven to be of
    the worker that answered the one before."""
    _, _, body = launched.ask()
    caller = Caller(launched.session, SystemClock(), timeout_s=WAIT_S)
    last = Call(begun_ns=0, sent_ns=0, received_ns=0, told=json.loads(body))
    told = []
    for _ in range(2):
        last = caller.direct(last)
        told.append(last.told)
    return told


def session_of(context: Context, labels: Mapping[str, str], **changes: Any) -> Session:
    driver = LambdaDriver("", context)
    spec = Spec(labels={**labels, "lab.target": "lambda"}, **changes)
    driver.prepare(spec)
    return Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=WAIT_S)


def remove_all(context: Context, labels: Mapping[str, str]) -> list[str]:
    """By a driver that launched nothing: what it removed, by kind or name."""
    cleaner = LambdaDriver("", context)
    run = {"lab.run": labels["lab.run"]}
    gone = []
    for found in (cleaner.list_instances, cleaner.leftovers):
        for thing in found(run):
            thing.delete()
            gone.append(getattr(thing, "kind", "instance"))
    assert not [*cleaner.list_instances(run), *cleaner.leftovers(run)]
    cleaner.close()
    return sorted(gone)


@pytest.fixture(scope="module")
def launched() -> Iterator[Launched]:
    run_dir = new_run_dir()
    context = Context(run_dir=Path(run_dir.id), cache_dir=cache_dir())
    try:
        with session_of(context, run_dir.labels) as session:
            session.launch()
            yield Launched(context, run_dir.labels, session)
    finally:
        remove_all(context, run_dir.labels)
        run_dir.delete()


def test_a_function_is_there_before_any_worker_and_its_first_call_starts_one(launched: Launched) -> None:
    seen = {(mark.phase, mark.source): mark.ns for mark in launched.session.timeline}
    created, started = seen[Phase.CREATED, Source.RETURN], seen[Phase.STARTED, Source.EVENT]
    assert seen[Phase.REQUESTED, Source.LAB] < created < started < seen[Phase.READY, Source.LAB]
    assert created < seen[Phase.MAIN, Source.SERVICE] < seen[Phase.READY, Source.LAB]
    assert len(launched.function.workers()) == 1


def test_its_row_says_whose_contract_it_is_and_what_is_missing(launched: Launched) -> None:
    info = LambdaDriver("", launched.context).info()
    assert info.engine == "Lambda contract on MiniStack" and info.qualifiers["platform"].endswith("MiniStack 1.5")
    assert "AWS" not in f"{info.engine}{info.qualifiers}"
    assert {limit for limit, said in info.facts["limits"].items() if said.startswith("not set")} == {
        "swap",
        "cpus",
        "pids",
    }


def test_nothing_of_it_listens_beyond_loopback(launched: Launched) -> None:
    run = {"lab.run": launched.labels["lab.run"]}
    pids = set(server.engine_pids(run)) | {
        pid
        for pid in launched.function.host_pids()
        if Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    }
    open_ones = sockets_of(pids)
    own = [one for one in listeners() if one.inode in open_ones]
    assert len(own) >= 2, "the server, and the proxy of the worker's port"
    assert not [one for one in own if one.beyond_loopback]


def test_a_forced_cold_call_has_a_worker_never_seen_before_and_warm_ones_do_not(launched: Launched) -> None:
    before = set(launched.function.workers()) or {"none"}
    launched.function.force_cold(timeout_s=WAIT_S)
    assert not launched.function.workers() and not launched.function.host_pids()
    seen: list[tuple[str, CallPhase]] = []
    with launched.function.follow(lambda worker, phase, _: seen.append((worker, phase))):
        _, headers, _ = launched.ask()
        assert headers["x-lab-call"] == "1"
        (worker,) = launched.function.workers()
        assert worker not in before
        _, headers, _ = launched.ask()
    assert headers["x-lab-call"] == "2" and launched.function.workers() == [worker]
    assert [told["served"] for told in asked_directly(launched)] == [4, 5], "the same worker's next answers"
    assert launched.function.workers() == [worker]
    assert seen == [(worker, CallPhase.CREATED), (worker, CallPhase.STARTED), (worker, CallPhase.POLLED)]


def test_a_runtime_that_is_started_again_counts_from_one_in_the_same_worker(launched: Launched, until: Until) -> None:
    launched.ask()
    (worker,) = launched.function.workers()
    service = [pid for pid, role in launched.function.host_pids().items() if role.value == "service"]
    for pid in service:
        os.kill(pid, signal.SIGKILL)
    until(lambda: launched.ask()[0] == 200)
    assert launched.function.workers() == [worker]
    assert int(launched.ask()[1]["x-lab-call"]) <= 3


def test_calls_at_once_have_a_worker_each(launched: Launched) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(launched.ask("/function/sleep?ms=3000")[0])) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200, 200]
    assert len(launched.function.workers()) == 2


def test_asleep_nothing_of_it_runs_and_a_request_wakes_it(launched: Launched) -> None:
    assert launched.function.sleep_states() == {SleepState.ZERO: ""}
    launched.function.sleep(SleepState.ZERO, timeout_s=WAIT_S)
    assert not launched.function.host_pids() and not launched.function.sleeps_on(SleepState.ZERO)
    launched.function.wake(SleepState.ZERO)
    assert not launched.function.workers()
    assert launched.ask()[0] == 200
    with pytest.raises(DriverError, match="cannot be paused"):
        launched.function.sleep(SleepState.PAUSED, timeout_s=1)


def test_more_than_the_contract_lets_be_sent_is_refused_in_one_line(launched: Launched) -> None:
    told = launched.function.call("/function/event", pad_to=6_291_556)
    assert json.loads(json.loads(told.payload)["body"])["event_bytes"] == 6_291_556
    with pytest.raises(DriverError, match="6291557 bytes is more than the contract's 6291556") as raised:
        launched.function.call("/function/event", pad_to=6_291_557)
    assert "\n" not in raised.value.brief
    over = launched.function.call("/function/answer", query="bytes=6295652")
    assert over.error and "ResponseSizeTooLarge" in over.said


class OneFunction:
    """A bench whose every session is the function that is there, as it was at first; keeps what is emitted."""

    clock = SystemClock()

    def __init__(self, launched: Launched) -> None:
        self.spec = launched.session.spec
        self.emitted: list[tuple[str, float, Mapping[str, str]]] = []
        self._launched = launched

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        yield self._launched.session
        function = self._launched.function
        assert function._api is not None
        function._api.reserve(function.id, None)
        function.limit(timeout_s=60)

    def emit(self, metric: str, value: float, _unit: str, **dimensions: str) -> None:
        self.emitted.append((metric, value, dimensions))


def test_each_limit_is_tried_and_told_beside_what_is_promised(launched: Launched) -> None:
    bench = OneFunction(launched)
    Limits().measure(cast(Bench, bench))
    held = {told["limit"]: value for metric, value, told in bench.emitted if metric == "limit_held"}
    assert held == {"timeout": 1, "request": 0, "response": 1, "memory": 1, "concurrency": 1, "/tmp": 1}
    said = {told["probe"]: told["said"] for metric, _, told in bench.emitted if metric == "fact"}
    assert {f"{limit}: the contract" for limit in held} | {f"{limit}: here" for limit in held} == set(said)
    assert "6,291,556 bytes arrived whole; 4,096 more: taken, and cut short" in said["request: here"]
    assert "429 TooManyRequestsException" in said["concurrency: here"]
    assert "of the same worker" in said["memory: here"]
    met = {told["limit"]: value for metric, value, told in bench.emitted if metric.startswith("limit_met")}
    assert met["/tmp"] == bench.spec.scratch_bytes and 1 <= met["timeout"] < 10


def test_a_user_s_image_that_speaks_the_runtime_api_keeps_its_entrypoint(launched: Launched, tmp_path: Path) -> None:
    archive = tmp_path / "function.tar"
    archive.write_bytes(
        service_archive(
            build_service(cache_dir()),
            tag="somebody/function:1",
            labels={"of": "somebody"},
            entrypoint=["/rie", "/service", "bridge"],
            beside={"rie": provide_rie(launched.context)},
        )
    )
    changes = {"image": str(archive), "ready_path": "/healthz", "environment": {"LAB_PORT": "8001"}}
    with session_of(launched.context, launched.labels, **changes) as session:
        session.launch()
        assert session.answer is not None and session.answer.status == 200
        assert isinstance(session.instance, Function)
        (container,) = session.instance._workers.containers({"lab.launch": session.spec.labels["lab.launch"]})
        assert b"polled" in container.logs()


def test_kill_9_of_server_and_lab_leaves_nothing_that_another_lab_does_not_find(until: Until) -> None:
    run_dir = new_run_dir()
    context = Context(run_dir=Path(run_dir.id), cache_dir=cache_dir())
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from test_lambda import session_of
from lab.driver import Context
context = Context(run_dir=Path({run_dir.id!r}), cache_dir=Path({str(cache_dir())!r}))
session = session_of(context, {dict(run_dir.labels)!r})
session.launch()
print("ready", flush=True)
import time
time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    lab = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    try:
        assert lab.stdout is not None and lab.stdout.readline() == b"ready\n"
        run = {"lab.run": run_dir.labels["lab.run"]}
        (serving,) = server.servers(run)
        (found,) = LambdaDriver("", context).list_instances(run)
        processes = list(procs.present(found.host_pids()))  # type: ignore[attr-defined]
        assert processes
        lab.kill()
        lab.wait(WAIT_S)
        assert [one.id for one in LambdaDriver("", context).list_instances(run)] == [found.id]
        serving.process.send(signal.SIGKILL)
        assert serving.process.wait(WAIT_S)
        (orphan,) = LambdaDriver("", context).list_instances(run)
        assert (orphan.id, dict(orphan.labels)) == (found.id, dict(found.labels))
        assert orphan.logs()
        assert remove_all(context, run_dir.labels) == ["image", "instance"]
        assert not procs.all_ended(processes, WAIT_S)
    finally:
        lab.kill()
        lab.wait(WAIT_S)
        if lab.stdout is not None:
            lab.stdout.close()
        remove_all(context, run_dir.labels)
        run_dir.delete()
