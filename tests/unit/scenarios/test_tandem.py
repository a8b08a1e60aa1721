"""The scenario `tandem`: who does which turn, what a turn does and in which order, what is a job done and what is not,
and what it refuses."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest

from lab.errors import BadInput, MeasurementError, Unsupported
from lab.features import Feature, Role, SleepState
from lab.launch.session import Session
from lab.registry import make_scenario
from lab.scenario import Bench
from lab.service.load import LoadResult, Request
from lab.spec import Endpoint, Spec
from lab.testing.clocks import FakeClock
from lab.timeline import SystemClock
from lab.units import MIB
from scenarios import tandem
from scenarios.tandem import Tandem, arrangement, steady
from scenarios.tandem.arrangement import Function, Name, Plain, Woken
from scenarios.tandem.burst import Burst, Done, Job, burst, joined
from scenarios.tandem.holding import BUSY_SHARE, IDLE_SHARE, Holding, Look
from scenarios.tandem.steady import Window

SPEC = Spec(labels={"lab.run": "r", "lab.target": "docker"}).for_launch()
MS = 1_000_000
FUNCTION = frozenset({Feature.NETWORK, Feature.FUNCTION})
PLAIN = frozenset({Feature.NETWORK})
SLEEPER = frozenset({Feature.NETWORK, Feature.SLEEP})


class FakeBench:
    """A bench of a target, among others; what it emits is in `samples`."""

    def __init__(self, target: str, features: frozenset[Feature] = PLAIN) -> None:
        self.driver = SimpleNamespace()
        self.spec = Spec(labels={"lab.run": "r", "lab.target": target})
        self.info = SimpleNamespace(features=features, facts={}, qualifiers={})
        self.clock = FakeClock()
        self.beside: list[FakeBench] = []
        self.samples: list[tuple[str, float, dict[str, str]]] = []

    def others(self) -> Sequence[FakeBench]:
        return self.beside

    def random(self) -> Any:
        return SimpleNamespace(shuffle=lambda _: None)

    @contextlib.contextmanager
    def session(self, **_: Any) -> Iterator[Any]:
        yield session_of(instance=SimpleNamespace(endpoint=Endpoint("127.0.0.1", 1)))

    def emit(self, metric: str, value: float, unit: str, **dimensions: str) -> None:
        self.samples.append((metric, value, dimensions))

    def found(self, metric: str, **told: str) -> list[float]:
        return [value for name, value, own in self.samples if name == metric and told.items() <= own.items()]


def session_of(*, instance: Any, spec: Spec = SPEC) -> Any:
    return SimpleNamespace(instance=instance, spec=spec, answer=None, beside={})


def among(*benches: FakeBench) -> FakeBench:
    """The first of them, with the others beside it."""
    for bench in benches:
        bench.beside = [one for one in benches if one is not bench]
    return benches[0]


def turn_of(bench: FakeBench, monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> list[tuple[str, str]]:
    """Whose service and which arrangement a target's turn measures."""
    done: list[tuple[str, str]] = []

    @contextlib.contextmanager
    def arranged(own: Any, service: Any, name: Name, *, guests: int) -> Iterator[Any]:
        yield SimpleNamespace(name=name)

    class Turn:
        def __init__(self, plan: Any, own: Any, served: Any, made: Any) -> None:
            self.name = made.name

        def run(self) -> None:
            done.append((service.spec.labels["lab.target"], self.name))

    scenario = Tandem(**parameters)
    service = scenario._service(cast("Bench", bench))
    monkeypatch.setattr(tandem, "arranged", arranged)
    monkeypatch.setattr(tandem, "_Turn", Turn)
    scenario.measure(cast("Bench", bench))
    return done


def test_the_services_turn_is_within_and_beside_and_each_other_targets_is_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service, function = FakeBench("docker"), FakeBench("lambda", FUNCTION)
    assert turn_of(among(service, function), monkeypatch) == [("docker", "within"), ("docker", "beside")]
    assert turn_of(function, monkeypatch) == [("docker", "function")]
    guest = FakeBench("libvirt:q35", SLEEPER)
    among(service, function, guest)
    assert turn_of(guest, monkeypatch, service="docker") == [("docker", "woken")]
    assert turn_of(guest, monkeypatch, service="libvirt:q35") == [("libvirt:q35", "within"), ("libvirt:q35", "beside")]


def test_a_service_that_is_not_to_be_told_or_not_there_is_said_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    docker, guest = FakeBench("docker"), FakeBench("libvirt:q35", SLEEPER)
    with pytest.raises(BadInput, match="which target is the service, docker, libvirt:q35") as caught:
        turn_of(among(docker, guest), monkeypatch)
    assert caught.value.resolution == "give -p service=docker"
    with pytest.raises(BadInput, match="podman, which is none of the targets that run"):
        turn_of(docker, monkeypatch, service="podman")
    with pytest.raises(BadInput, match="no target that runs can be the service"):
        turn_of(among(FakeBench("lambda", FUNCTION)), monkeypatch)
    monkeypatch.setattr(tandem, "_SIZES", {("r", 50): 1})  # something was measured, and then it was given up
    with pytest.raises(Unsupported, match="no target that runs can be the service"):
        turn_of(among(FakeBench("lambda", FUNCTION)), monkeypatch)
    with pytest.raises(Unsupported, match="neither the service, nor a function"):
        turn_of(among(FakeBench("process"), docker), monkeypatch, service="docker")


def test_a_job_that_fits_in_no_instance_is_refused_with_the_memory_that_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(BadInput, match="a job of 105 MiB fits in no instance") as caught:
        turn_of(FakeBench("docker"), monkeypatch, mib=105)
    assert "--memory 129M" in caught.value.resolution


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"bursts": "0,4"}, "different numbers from 1 to 64"),
        ({"bursts": "4,4"}, "different numbers from 1 to 64"),
        ({"bursts": "64", "ms": "1000"}, "60 s of CPU time"),
        ({"bursts": "a"}, "bursts"),
        ({"pause": "1,2,3,4,5"}, "pause"),
        ({"rate": "5000", "after": "60"}, "100,000 requests"),
    ],
)
def test_what_is_out_of_bounds_is_refused(parameters: Mapping[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make_scenario("tandem", parameters)


class FakeArrangement:
    """Each burst takes 0.1 s a job by the bench's clock; `done` says what was asked for, and when it was to rest."""

    name = Name.FUNCTION
    limit = "as many as come"

    def __init__(self, clock: FakeClock, failing: int = 0) -> None:
        self.parts: Sequence[Session] = ()
        self.done: list[str] = []
        self._clock = clock
        self._failing = failing

    def burst(self, job: Job, count: int, *, timeout_s: float) -> Burst:
        begun_ns = self._clock.now_ns()
        jobs = []
        for number in range(count):
            self._clock.advance(0.1)
            why = "a status 503" if number < self._failing else ""
            told = {} if why else {"cpu_ns": 50 * MS}
            jobs.append(Done(received_ns=0 if why else self._clock.now_ns(), told=told, why=why))
        self.done.append(f"burst {count}")
        return Burst(begun_ns=begun_ns, asked_ns=begun_ns, ended_ns=self._clock.now_ns(), jobs=jobs)

    def to_rest(self) -> None:
        self.done.append("rest")

    def settle(self) -> None:
        self.done.append("settle")

    def cold_starts(self) -> int:
        return 1 if self.done[-2:-1] == ["rest"] else 0

    def files(self) -> Sequence[Path]:
        return ()


def run_turn(monkeypatch: pytest.MonkeyPatch, failing: int = 0, **parameters: Any) -> tuple[FakeBench, FakeArrangement]:
    """One turn, beside a load whose requests take 1 ms, and 20 ms while jobs are done."""
    bench = FakeBench("lambda", FUNCTION)
    made = FakeArrangement(bench.clock, failing)
    monkeypatch.setattr(tandem, "_steps", lambda *_: 1000)
    turn: Any = tandem._Turn(
        Tandem(**parameters),
        cast("Bench", bench),
        session_of(instance=SimpleNamespace(endpoint=Endpoint("127.0.0.1", 1))),
        made,
    )
    begun_ns = bench.clock.now_ns()

    class Client:
        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None: ...

        def prefer(self) -> None: ...

        def stop(self) -> LoadResult:
            instants = range(begun_ns, bench.clock.now_ns(), 2 * MS)
            during = [(one.begun_ns, one.ended_ns) for one in turn.windows if one.told["window"] == "during"]
            slow = [any(begun <= at < end for begun, end in during) for at in instants]
            return LoadResult(
                requests=[request(at, 20 if held else 1) for at, held in zip(instants, slow, strict=True)]
            )

    monkeypatch.setattr(tandem, "start_load", lambda *_, **__: Client())
    turn.run()
    return bench, made


def request(at_ns: int, ms: float, *, status: int | str = 200, late: bool = False) -> Request:
    done_ns = at_ns + round(ms * MS)
    return Request(intended_ns=at_ns, sent_ns=at_ns, done_ns=done_ns, status=status, version="", late=late)


def test_a_turn_rests_before_each_size_and_bursts_after_a_long_pause_and_after_each_given_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, made = run_turn(monkeypatch, bursts="2,4", pause="1,3")
    each = ["burst {0}", "settle"] * 3
    assert made.done == ["rest", *(one.format(2) for one in each), "rest", *(one.format(4) for one in each)]
    for pause in ("long", "1", "3"):
        told = {"arrangement": "function", "burst": "4", "pause": pause}
        assert bench.found("jth_job_s", **told) == pytest.approx([0.1, 0.2, 0.3, 0.4])
        assert bench.found("first_job_s", **told) == pytest.approx([0.1])
        assert bench.found("half_job_s", **told) == pytest.approx([0.2])
        assert bench.found("last_job_s", **told) == pytest.approx([0.4])
        assert bench.found("failed_jobs", **told) == [0]
        assert bench.found("steady_p99_s", window="during", **told) == pytest.approx([0.020])
        assert bench.found("cold_starts", **told) == [1 if pause == "long" else 0]
    around = {"arrangement": "function", "burst": "4"}
    assert bench.found("steady_p99_s", window="before", **around) == pytest.approx([0.001])
    assert bench.found("steady_p99_s", window="after", **around) == pytest.approx([0.001])


def test_the_window_of_a_short_burst_is_long_enough_for_a_p99_and_ends_where_the_next_burst_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, _ = run_turn(monkeypatch, bursts="1", pause="0.2", rate=500)
    long, cut = (bench.found("late_share", window="during", pause=pause) for pause in ("long", "0.2"))
    assert len(long) == len(cut) == 1
    assert not bench.found("steady_p99_s", window="during", pause="long"), "150 requests are too few"
    assert bench.found("steady_p99_s", window="during", pause="0.2") == pytest.approx([0.020])
    absent = [told["why"] for name, _, told in bench.samples if name == "absent" and "pause=long" in told["of"]]
    assert absent == ["150 requests are too few"]


def test_a_burst_with_a_job_that_failed_has_no_end_and_tells_why(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, _ = run_turn(monkeypatch, failing=2, bursts="4", pause="")
    assert bench.found("failed_jobs") == [2] and not bench.found("last_job_s")
    assert bench.found("half_job_s") == pytest.approx([0.4]), "half of them were done"
    absent = {told["of"]: told["why"] for name, _, told in bench.samples if name == "absent"}
    assert absent["last_job_s arrangement=function burst=4 pause=long"] == "2 of 4 jobs: a status 503"
    facts = [told["said"] for name, _, told in bench.samples if name == "fact"]
    assert facts == ["as many as come", "a status 503"]


def test_a_window_in_which_the_client_was_late_has_no_p99(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = FakeBench("docker")
    load = LoadResult(requests=[request(2 * MS * at, 1, late=at % 10 == 0) for at in range(400)])
    window = Window(begun_ns=0, ended_ns=800 * MS, told={"window": "during"})
    steady.emit(cast("Bench", bench), load, [window])
    assert bench.found("late_share") == [0.1] and not bench.found("steady_p99_s")
    assert [name for name, _, _ in bench.samples].count("absent") == 1


def test_an_unserved_request_counts_as_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = FakeBench("docker")
    answered = [request(2 * MS * at, 1, status="timeout" if at < 10 else 200) for at in range(400)]
    steady.emit(cast("Bench", bench), LoadResult(requests=answered), [Window(begun_ns=0, ended_ns=800 * MS, told={})])
    assert bench.found("unserved_requests") == [10]
    assert not bench.found("steady_p99_s") and not bench.found("steady_worst_s")


class JobServer:
    """Answers /job as the service does, but for the first ones, which get what is `wrong`: status and fields."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.token = "t1"
        self.wrong: list[tuple[int, dict[str, Any]]] = []
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                with lock:
                    outer.asked.append(told)
                    status, changed = outer.wrong.pop(0) if outer.wrong else (200, {})
                answer = {"nonce": SPEC.nonce, "steps": int(told["steps"]), "mib": int(told.get("mib", 0))}
                body = json.dumps(answer | {"cpu_ns": 1000, "token": outer.token, "served": 1} | changed).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = Endpoint("127.0.0.1", self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[JobServer]:
    made = JobServer()
    yield made
    made.close()


def asked(server: JobServer, job: Job, count: int) -> Burst:
    session = session_of(instance=SimpleNamespace(endpoint=server.endpoint))
    return burst(session, job, count, SystemClock(), timeout_s=20)


def test_each_job_is_asked_for_once_and_counts_from_the_bursts_begin(server: JobServer) -> None:
    found = asked(server, Job(steps=7, mib=3), 5)
    room = SPEC.memory_bytes // MIB - 24
    assert server.asked == [{"steps": "7", "mib": "3", "room": str(room)}] * 5
    seconds = found.seconds()
    assert len(seconds) == 5 and seconds == sorted(seconds) and seconds[0] > 0
    assert found.begun_ns <= found.asked_ns <= found.ended_ns and not found.reasons


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ((503, {}), "a status 503"),
        ((200, {"steps": 6}), "an answer that does not say that the job was done"),
        ((200, {"cpu_ns": 0}), "an answer that does not say that the job was done"),
        ((200, {"nonce": "another"}), "another launch's answer 200"),
    ],
)
def test_only_an_answer_that_says_so_is_a_job_done(
    server: JobServer, wrong: tuple[int, dict[str, Any]], why: str
) -> None:
    server.wrong = [wrong]
    found = asked(server, Job(steps=7, mib=0), 3)
    assert len(found.seconds()) == 2 and found.reasons == {why: 1}


def test_what_several_did_of_one_burst_counts_from_its_begin() -> None:
    parts = [
        Burst(begun_ns=20, asked_ns=25, ended_ns=40, jobs=[Done(received_ns=40, told={})]),
        Burst(begun_ns=10, asked_ns=12, ended_ns=30, jobs=[Done(received_ns=30, told={})]),
    ]
    whole = joined(parts, 5)
    assert whole.seconds() == pytest.approx([25e-9, 35e-9]) and whole.ended_ns == 40


class FakeFunction:
    """Its workers are what a test says; `ended` counts how often all were."""

    endpoint = None

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.stay = False

    def workers(self) -> Sequence[str]:
        return list(self.names)

    def force_cold(self, *, timeout_s: float) -> None:
        self.names = self.names if self.stay else []

    def follow(self, seen: Callable[..., None]) -> Any:
        return contextlib.nullcontext()


def test_cold_starts_are_workers_that_were_never_seen_before() -> None:
    function = FakeFunction("at launch")
    made = Function(cast("Bench", FakeBench("lambda", FUNCTION)), session_of(instance=function))
    made.to_rest()
    function.names = ["one", "two"]
    assert made.cold_starts() == 2
    assert made.cold_starts() == 0, "they are known now"
    function.names = ["two", "three"]
    assert made.cold_starts() == 1
    made.to_rest()
    with pytest.raises(MeasurementError, match="none that is new after it"):
        made.cold_starts()
    function.names, function.stay = ["three"], True
    with pytest.raises(MeasurementError, match="workers were there after they were ended: three"):
        made.to_rest()


class FakeGuest:
    """Saved and woken as it is asked; `said` are the calls."""

    endpoint = Endpoint("127.0.0.1", 1)

    def __init__(self) -> None:
        self.said: list[str] = []

    def sleep_states(self) -> Mapping[SleepState, str]:
        return {SleepState.SAVED: ""}

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        self.said.append(f"sleep {state}")

    def wake(self, state: SleepState) -> None:
        self.said.append(f"wake {state}")

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:
        return (Path("/saved"),)


class FakeWaiter:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def start(self, endpoint: Endpoint | None) -> None: ...
    def attempt(self) -> None: ...
    def wait(self, timeout_s: float) -> None: ...
    def cancel(self) -> None: ...


def guests(monkeypatch: pytest.MonkeyPatch, count: int, token: str = "") -> tuple[Woken, list[FakeGuest], list[int]]:
    shares: list[int] = []

    def by_jobs(session: Any, job: Job, share: int, clock: Any, *, timeout_s: float) -> Burst:
        shares.append(share)
        jobs = [Done(received_ns=9, told={"token": token}) for _ in range(share)]
        return Burst(begun_ns=5, asked_ns=5, ended_ns=9, jobs=jobs)

    monkeypatch.setattr(arrangement, "Waiter", FakeWaiter)
    monkeypatch.setattr(arrangement, "burst", by_jobs)
    made = [FakeGuest() for _ in range(count)]
    bench = FakeBench("libvirt:q35", SLEEPER)
    return Woken(cast("Bench", bench), [session_of(instance=one) for one in made]), made, shares


def test_guests_share_a_burst_and_only_those_that_are_needed_wake_and_are_saved_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    woken, made, shares = guests(monkeypatch, 3)
    woken.to_rest()
    assert [one.said for one in made] == [["sleep saved"]] * 3
    found = woken.burst(Job(steps=1, mib=0), 5, timeout_s=1)
    assert sorted(shares) == [1, 2, 2] and len(found.jobs) == 5 and woken.cold_starts() == 3
    woken.settle()
    woken.burst(Job(steps=1, mib=0), 2, timeout_s=1)
    woken.settle()
    assert woken.cold_starts() == 2
    assert [len(one.said) for one in made] == [5, 5, 3]
    assert all(one.said[-1] == "sleep saved" for one in made)
    assert woken.files() == [Path("/saved")] * 3


def test_a_guest_that_was_started_anew_is_no_guest_that_woke(monkeypatch: pytest.MonkeyPatch) -> None:
    woken, _, _ = guests(monkeypatch, 1, token="another")
    with pytest.raises(MeasurementError, match="started anew"):
        woken.burst(Job(steps=1, mib=0), 1, timeout_s=1)


def test_a_target_whose_instances_cannot_be_saved_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = FakeBench("docker:other", SLEEPER)
    monkeypatch.setattr(FakeGuest, "sleep_states", lambda _: {SleepState.SAVED: "no criu here"})

    @contextlib.contextmanager
    def session(**_: Any) -> Iterator[Any]:
        yield session_of(instance=FakeGuest())

    monkeypatch.setattr(bench, "session", session)
    with (
        pytest.raises(Unsupported, match="cannot be saved and woken: no criu here"),
        arrangement.arranged(cast("Bench", bench), session_of(instance=None), Name.WOKEN, guests=1),
    ):
        pass


def test_a_peak_is_the_most_of_a_span_and_a_mean_counts_each_look_until_the_next() -> None:
    holding = Holding([], FakeClock())
    holding.looks = [
        Look(at_ns=at, pss_bytes=held, took_s=0.1) for at, held in ((0, 10), (10, 90), (20, 30), (99, 500))
    ]
    assert holding.peak(0, 30) == 90 and holding.peak(40, 50) is None
    assert holding.mean(0, 40) == pytest.approx((10 * 10 + 90 * 10 + 30 * 20) / 40)
    assert holding.mean(15, 40) is None, "one look is no mean"


def test_what_is_held_is_of_all_instances_together() -> None:
    class Here:
        def __init__(self, pid: int) -> None:
            self.pid = pid

        def host_pids(self) -> Mapping[int, Role]:
            return {self.pid: Role.SERVICE}

    with subprocess.Popen(["sleep", "60"]) as child:
        own, other = (session_of(instance=Here(pid)) for pid in (os.getpid(), child.pid))
        alone, both = (Holding(sessions, SystemClock()) for sessions in ([other], [own, other]))
        looks = [one.look() for one in (alone, both)]
        child.kill()
    assert alone.whole and both.whole
    assert looks[0] is not None and looks[1] is not None
    assert looks[1].pss_bytes > looks[0].pss_bytes + MIB > MIB, "this process and its child, not one of them"
    assert [one.at_ns for one in both.looks] == [looks[1].at_ns]


def test_instances_whose_processes_are_not_this_hosts_are_not_counted_as_nothing() -> None:
    elsewhere = session_of(instance=SimpleNamespace())
    with Holding([elsewhere], FakeClock()) as holding:
        assert not holding.whole
    assert not holding.looks


def test_a_plain_arrangement_holds_what_is_beside_the_service() -> None:
    one = session_of(instance=None)
    assert Plain(one, FakeClock(), beside=True).parts == [one]
    assert Plain(one, FakeClock(), beside=False).parts == []


@pytest.mark.parametrize(("busy", "share"), [(True, BUSY_SHARE), (False, IDLE_SHARE)])
def test_looks_take_no_more_of_the_time_than_their_share(
    monkeypatch: pytest.MonkeyPatch, busy: bool, share: float
) -> None:
    def dear(_: object) -> dict[int, object]:
        time.sleep(0.02)
        return {1: SimpleNamespace(pss_bytes=1)}

    monkeypatch.setattr("scenarios.tandem.holding.standing", dear)
    holding = Holding([], SystemClock())
    holding.busy = busy
    with holding:
        deadline = time.monotonic() + 30
        while len(holding.looks) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(holding.looks) >= 3
    for look, later in itertools.pairwise(holding.looks):
        assert (later.at_ns - look.at_ns) / 1e9 >= look.took_s / share * 0.99
