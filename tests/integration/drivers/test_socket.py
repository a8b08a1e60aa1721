"""A function behind a socket: nothing runs at zero, a connection starts it, and none is lost around its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from drivers.socket import SocketDriver, activator
from drivers.socket.activator import ActivatedInstance
from drivers.socket.units import UnitInstance
from lab.driver import Context
from lab.errors import DriverError, LaunchError, Unsupported
from lab.features import CallPhase, Role, SleepState
from lab.host.procs import Process
from lab.launch.session import Session
from lab.spec import Restart, Spec
from lab.timeline import Phase, SystemClock

pytestmark = pytest.mark.engine("socket:activator")

CONNECTIONS = 65
KEPT_S = 0.04
"""For calls around the end: so short that many ends are met in few seconds."""


KEEPERS = [
    "activator",
    pytest.param("systemd", marks=pytest.mark.engine("socket:systemd")),
]
by_each_keeper = pytest.mark.parametrize("keeper", KEEPERS)


@pytest.fixture
def drivers(make_context: Callable[..., Context], labels: dict[str, str]) -> Iterator[Callable[..., SocketDriver]]:
    made: list[SocketDriver] = []

    def make(variant: str = "activator", *, kept_s: float = 60.0) -> SocketDriver:
        made.append(SocketDriver(variant, make_context()))
        made[-1]._keep_alive_s = kept_s  # shorter than users may ask for
        return made[-1]

    yield make
    last = make()
    for found in (last.list_instances, last.leftovers):
        for one in found({"lab.run": labels["lab.run"]}):
            one.delete()
    for driver in made:
        driver.close()


@contextlib.contextmanager
def launched(driver: SocketDriver, labels: Mapping[str, str], **changes: Any) -> Iterator[tuple[Session, Any]]:
    spec = Spec(labels={**labels, "lab.target": f"socket:{driver._variant}"}, **changes)
    driver.prepare(spec)
    with Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=60) as session:
        session.launch()
        yield session, session.instance


def connect(session: Session) -> socket.socket:
    assert session.instance is not None and session.instance.endpoint is not None
    return socket.create_connection((session.instance.endpoint.host, session.instance.endpoint.port), 20)


def ask(session: Session, connection: socket.socket, *, close: bool = True) -> Any:
    """What /clock tells on this connection."""
    ends = "Connection: close\r\n" if close else ""
    connection.sendall(f"GET /clock HTTP/1.1\r\nHost: x\r\n{ends}X-Lab-Nonce: {session.spec.nonce}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
        part = connection.recv(65536)
        assert part, f"the connection ended after {answer!r}"
        answer += part
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def call(session: Session) -> Any:
    with connect(session) as connection:
        return ask(session, connection)


def until(seen: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_first_connection_starts_it_and_it_ends_when_nobody_calls(
    drivers: Callable[..., SocketDriver], labels: dict[str, str]
) -> None:
    with launched(drivers(kept_s=0.3), labels, environment={"OWN": "1"}) as (session, instance):
        assert Phase.CREATED in session.timeline and Phase.STARTED in session.timeline
        assert session.answer is not None and session.answer.clock()["served"] == 1
        with connect(session) as held:  # while it is looked at, which may take longer than it is kept
            until(lambda: bool(instance.workers()))
            (worker,) = instance.workers()
            pid = int(worker.partition("-")[0])
            text = Path(f"/proc/{pid}/environ").read_text()
            given = dict(entry.partition("=")[::2] for entry in text.rstrip("\0").split("\0"))
            assert ask(session, held)["pid"] == pid
        assert set(given) == (
            {"OWN", "LAB_HOST", "LAB_PORT", "LAB_NONCE", "LAB_LABELS", "LAB_IDLE_MS", "LISTEN_PID", "LISTEN_FDS"}
        )
        assert (given["LISTEN_PID"], given["LISTEN_FDS"]) == (str(pid), "1")
        until(lambda: not instance.workers())
        assert list(instance.host_pids().values()) == [Role.SHIM], "only the socket's keeper is left"
        again = call(session)
        assert again["served"] == 1 and again["pid"] != pid


def test_a_launch_is_whole_though_the_activator_s_word_comes_after_the_answer(
    drivers: Callable[..., SocketDriver], labels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hear = activator._Keeper.hear

    def late(*words: Any) -> None:
        time.sleep(0.3)
        hear(*words)

    monkeypatch.setattr(activator._Keeper, "hear", late)
    with launched(drivers(kept_s=KEPT_S), labels) as (session, _):
        assert Phase.STARTED in session.timeline


def test_no_connection_is_lost_around_the_end_of_a_worker(
    drivers: Callable[..., SocketDriver], labels: dict[str, str]
) -> None:
    """Each comes between a quarter before and a quarter after the instant at which the worker before it ends."""
    with launched(drivers(kept_s=KEPT_S), labels) as (session, _):
        told = []
        for number in range(CONNECTIONS):
            told.append(call(session))
            time.sleep(KEPT_S * (0.75 + 0.5 * number / CONNECTIONS))
        workers = {one["token"] for one in told}
        assert len(told) == CONNECTIONS
        assert len(workers) > 10, "hardly any end was met"


@by_each_keeper
def test_a_connection_without_a_byte_wakes_it_and_is_not_dropped_for_idleness(
    drivers: Callable[..., SocketDriver], labels: dict[str, str], keeper: str
) -> None:
    with launched(drivers(keeper, kept_s=0.1), labels) as (session, instance):
        instance.force_cold(timeout_s=10)
        assert instance.workers() == []
        with connect(session) as slow:
            until(lambda: bool(instance.workers()))
            (worker,) = instance.workers()
            time.sleep(0.5)  # five times what an idle worker is kept
            told = ask(session, slow)
            assert told["served"] == 1 and worker.startswith(f"{told['pid']}-")


@by_each_keeper
def test_work_that_was_taken_is_done_before_it_ends(
    drivers: Callable[..., SocketDriver], labels: dict[str, str], keeper: str
) -> None:
    with launched(drivers(keeper, kept_s=0.1), labels) as (session, _), connect(session) as connection:
        head = f"GET /work?us=500000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Lab-Nonce: {session.spec.nonce}\r\n"
        connection.sendall(f"{head}\r\n".encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
        assert b" 200 " in answer.splitlines()[0], "a child of the worker answers, when no connection is the worker's"


@by_each_keeper
def test_what_is_forced_cold_is_gone_and_the_next_call_has_a_worker_of_its_own(
    drivers: Callable[..., SocketDriver], labels: dict[str, str], keeper: str
) -> None:
    with launched(drivers(keeper), labels) as (session, instance):
        before, told = instance.workers(), call(session)
        assert told["served"] == 2
        for _ in range(8):  # more often than a program may fail
            instance.force_cold(timeout_s=10)
            assert instance.workers() == []
            seen: list[tuple[str, CallPhase]] = []
            shown = 2 if keeper == "activator" else 0
            with instance.follow(lambda worker, phase, _, seen=seen: seen.append((worker, phase))):
                cold = call(session)
                until(lambda seen=seen, shown=shown: len(seen) == shown)
            (worker,) = instance.workers()
            assert seen == [(worker, CallPhase.CREATED), (worker, CallPhase.STARTED)][:shown]
            assert cold["served"] == 1 and cold["token"] != told["token"] and worker not in before
            before, told = [*before, worker], cold
        instance.sleep(SleepState.ZERO, timeout_s=10)
        assert instance.workers() == [] and instance.sleeps_on(SleepState.ZERO) == ()
        with pytest.raises(Unsupported, match="no state 'paused'"):
            instance.sleep(SleepState.PAUSED, timeout_s=1)


@by_each_keeper
def test_a_worker_can_be_had_before_any_call(
    drivers: Callable[..., SocketDriver], labels: dict[str, str], keeper: str
) -> None:
    with launched(drivers(keeper), labels) as (session, instance):
        instance.force_cold(timeout_s=10)
        instance.initialize(timeout_s=20)
        ready = instance.workers()
        assert len(ready) == 1
        assert call(session)["served"] == 1 and instance.workers() == ready
        with pytest.raises(DriverError, match="one serves all"):
            instance.initialize(timeout_s=20)


@by_each_keeper
def test_what_was_killed_is_told_and_the_next_connection_starts_it_anew(
    drivers: Callable[..., SocketDriver], labels: dict[str, str], keeper: str
) -> None:
    with launched(drivers(keeper), labels) as (session, instance):
        os.kill(call(session)["pid"], signal.SIGKILL)
        until(session._marks.failed_already.is_set)
        with pytest.raises(LaunchError, match="SIGKILL"):
            session.require_alive()
        assert call(session)["served"] == 1
    with launched(drivers(keeper), labels, restart=Restart.BEST) as (session, instance):
        os.kill(call(session)["pid"], signal.SIGKILL)
        until(lambda: not instance.workers())
        assert call(session)["served"] == 1
        session.require_alive()


def test_a_program_that_fails_at_each_connection_is_told_at_once_and_given_up(
    drivers: Callable[..., SocketDriver], labels: dict[str, str]
) -> None:
    with (
        pytest.raises(LaunchError, match="exit status 2"),
        launched(drivers(), labels, command=("load", "nonsense")) as _,
    ):
        pass
    spec = Spec(labels={**labels, "lab.target": "socket:activator"}, command=("load", "nonsense"), restart=Restart.BEST)
    with Session(driver := drivers(), driver.info(), spec.for_launch(), SystemClock(), timeout_s=60) as session:
        with pytest.raises(LaunchError, match="exit status 1"):  # the activator's own
            session.launch()
        assert b"ended 5 times within 10 s" in session.logs()


@by_each_keeper
def test_a_stop_ends_all_of_it_by_sigterm(
    drivers: Callable[..., SocketDriver], labels: dict[str, str], keeper: str
) -> None:
    with launched(drivers(keeper), labels) as (session, instance):
        pids = list(instance.host_pids())
        assert len(pids) == (2 if keeper == "activator" else 1)
        session.stop()
        assert not any(Process.of(pid) for pid in pids) and not instance.was_killed()
    with launched(drivers(keeper), labels) as (session, instance):
        pids = list(instance.host_pids())
        (worker,) = instance.workers()
        os.kill(int(worker.partition("-")[0]), signal.SIGSTOP)
        session.stop(timeout_s=5)
        assert not any(Process.of(pid) for pid in pids)


@pytest.mark.engine("socket:proxyd")
def test_for_proxyd_a_connection_that_is_kept_open_is_not_idle(
    drivers: Callable[..., SocketDriver], labels: dict[str, str]
) -> None:
    with launched(drivers("proxyd", kept_s=0.3), labels) as (session, instance):
        instance.force_cold(timeout_s=10)
        assert list(instance.host_pids().values()) == [Role.SHIM]
        with connect(session) as kept:
            assert ask(session, kept, close=False)["served"] == 1, "the proxy came after the service took connections"
            assert sorted(instance.host_pids().values()) == [Role.PROXY, Role.SERVICE, Role.SHIM]
            (worker,) = instance.workers()
            time.sleep(1)
            assert instance.workers() == [worker]
            assert ask(session, kept, close=False)["served"] == 2
        until(lambda: not instance.workers())
        assert list(instance.host_pids().values()) == [Role.SHIM], "the service ends with its proxy"
        assert call(session)["served"] == 1


def test_a_users_image_is_refused(drivers: Callable[..., SocketDriver], labels: dict[str, str]) -> None:
    with pytest.raises(Unsupported, match="root filesystem"):
        drivers().prepare(Spec(image="nginx:alpine", labels=labels))


@pytest.mark.parametrize(
    ("variants", "left"),
    [
        (["activator", "proxyd"], 3),  # the proxied one is at zero
        pytest.param(["systemd"], 1, marks=pytest.mark.engine("socket:systemd")),
    ],
)
def test_after_its_lab_was_killed_a_fresh_driver_finds_and_removes_all_of_it(
    drivers: Callable[..., SocketDriver], labels: dict[str, str], tmp_path: Path, variants: list[str], left: int
) -> None:
    driver = drivers()
    driver.prepare(Spec(labels=labels))
    script = textwrap.dedent("""
        import json, sys, time
        from pathlib import Path
        from drivers.socket import SocketDriver, activator
        from lab.driver import Context
        from lab.launch.session import Session
        from lab.spec import Spec
        from lab.timeline import SystemClock
        run_dir, cache_dir, labels, *variants = sys.argv[1:]
        sessions = []
        for variant in variants:
            driver = SocketDriver(variant, Context(run_dir=Path(run_dir), cache_dir=Path(cache_dir)))
            target = {"lab.target": f"socket:{variant}"}
            spec = Spec(labels={**json.loads(labels), **target}).for_launch()
            sessions.append(Session(driver, driver.info(), spec, SystemClock()))
            sessions[-1].launch()
        for session in sessions[1:]:
            session.instance.force_cold(timeout_s=10)
        told = [[one.instance.id, list(one.instance.host_pids()), str(one.instance.endpoint)] for one in sessions]
        print(json.dumps(told))
        sys.stdout.flush()
        time.sleep(120)
    """)
    lab = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), str(driver._context.cache_dir), json.dumps(labels), *variants],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    try:
        assert lab.stdout is not None
        told = json.loads(lab.stdout.readline())
    finally:
        lab.kill()
        lab.wait(10)
    pids = [pid for _, several, _ in told for pid in several]
    assert len(pids) == left and all(Process.of(pid) for pid in pids), "they outlive their lab"
    found = driver.list_instances({"lab.run": labels["lab.run"]})
    assert sorted((one.id, str(one.endpoint)) for one in found) == sorted((one[0], one[2]) for one in told)
    assert {pid for one in found for pid in one.host_pids()} == set(pids)  # type: ignore[attr-defined]
    assert all(one.labels["lab.owner"] == labels["lab.owner"] for one in found)
    for one in found:
        assert isinstance(one, ActivatedInstance | UnitInstance)
        one.force_cold(timeout_s=10)  # by whoever finds it
        assert one.workers() == [] and Role.SERVICE not in one.host_pids().values()
        one.delete()
    assert not any(Process.of(pid) for pid in pids)
    assert driver.list_instances({"lab.run": labels["lab.run"]}) == []
    assert driver.leftovers({"lab.run": labels["lab.run"]}) == []
