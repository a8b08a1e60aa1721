"""The scenario `containment`: what it does not make, and how it reads what became of everybody."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.driver import Info
from lab.errors import BadInput
from lab.features import Feature, GuestMemory, Role
from lab.figures import evidence
from lab.figures.evidence import Claims
from lab.host.facts import boot_id
from lab.host.limits import Toll
from lab.host.ownership import Owner
from lab.host.procs import Process
from lab.registry import make_scenario
from lab.scenario import Bench, Makes, Sized, Takes
from lab.service.serving import workload
from lab.service.task import TaskState
from lab.service.watch import Watched
from lab.spec import Endpoint, Spec
from lab.timeline import SystemClock
from lab.units import MIB
from scenarios.containment import Containment, clock
from scenarios.containment.outcome import Observed, Survival, by_whom, happened
from scenarios.containment.traces import Traces, left, left_said, settled
from scenarios.containment.troubles import TASKS, Trouble
from scenarios.containment.watching import Windows, said, unwatched

LIMITED = frozenset({Trouble.MEMORY, Trouble.FORKS, Trouble.CPU})
NETWORK = frozenset({Feature.NETWORK})
TASK = TaskState(
    kind="memory",
    running=False,
    pid=9,
    amount=256,
    started_ns=1_000_000_000,
    ended_ns=1_250_000_000,
    deadline_ns=3_000_000_000,
    exit_code=None,
    signal=signal.SIGALRM,
    made=0,
    refused=0,
    errno=0,
    bytes=256 * MIB,
    operations=0,
)


def state(**changes: Any) -> TaskState:
    return replace(TASK, **changes)


def observed(task: TaskState | None = TASK, **changes: Any) -> Observed:
    return Observed(**{"survival": Survival.SERVES, "state": task, "risen": {}, **changes})


# --- parameters


@pytest.mark.parametrize("given", ["memory,forks", "forks, memory", "memory,memory,forks"])
def test_troubles_are_given_as_a_list_and_made_in_one_order(given: str) -> None:
    made = Containment(troubles=given)
    assert made.chosen == [Trouble.FORKS, Trouble.MEMORY]
    assert Containment(troubles=made.troubles) == made
    assert Containment().chosen == list(Trouble)


@pytest.mark.parametrize("parameters", [{"troubles": "fire"}, {"troubles": ""}, {"seconds": "0"}, {"seconds": "31"}])
def test_other_parameters_are_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        make_scenario("containment", parameters)


def test_it_claims_and_plans() -> None:
    made = Containment(seconds=2, troubles="kill,panic")
    assert isinstance(made, Claims) and isinstance(made, Sized) and isinstance(made, Takes)
    assert (made.launches, made.at_once) == (3, 2)
    assert made.likely_s_per_round >= 2 * 2 * 2
    assert isinstance(made, Makes) and "kill, panic" in made.changes
    assert any("kill, panic" in sentence for sentence in made.done)
    assert all(evidence.meaning(made, f"{trouble}: the host") for trouble in Trouble)
    assert all(meaning.page.startswith("https://") for meaning in made.meanings.values())


# --- what is not made


class FakeService:
    """A service that tells what it is given, and remembers which tasks it was asked for."""

    def __init__(self, *, refuse: str = "", facts: Mapping[str, Any] | None = None) -> None:
        self.tasks: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told = {"boot_id": boot_id(), "pid": 7, "main_ns": 1, "now_ns": time.monotonic_ns()}
                self._answer(200, dict(facts) if facts and self.path == "/facts" else told)

            def do_POST(self) -> None:
                fake.tasks.append(self.path)
                self._answer(409, {"error": refuse})

            def _answer(self, status: int, told: Mapping[str, Any]) -> None:
                body = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = Endpoint("127.0.0.1", self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


class FakeBench:
    """A bench whose every launch is the fake service."""

    def __init__(self, service: FakeService, features: frozenset[Feature], instance: Any = None) -> None:
        self.spec = Spec(labels={"lab.run": "t", "lab.owner": str(Owner.current())}).for_launch()
        self.info = Info(engine="fake", version="1", isolation="none", features=features)
        self.clock = SystemClock()
        self.samples: list[tuple[str, float, dict[str, str]]] = []
        self.launched = 0
        self._instance = instance or SimpleNamespace()
        self._instance.endpoint = service.endpoint
        self._instance.logs = lambda: b""

    @contextlib.contextmanager
    def session(self, **changes: Any) -> Iterator[Any]:
        self.launched += 1
        yield SimpleNamespace(spec=replace(self.spec, **changes), instance=self._instance)

    def emit(self, metric: str, value: float, unit: str, **dimensions: str) -> None:
        self.samples.append((metric, value, dimensions))

    def said(self) -> dict[str, str]:
        return {told["probe"]: told["said"] for metric, _, told in self.samples if metric == "fact"}

    def figures(self) -> set[str]:
        return {metric for metric, _, _ in self.samples} - {"fact"}


@pytest.fixture
def service() -> Iterator[FakeService]:
    made = FakeService(refuse="/tmp is no tmpfs, whose size could be proven")
    yield made
    made.server.shutdown()
    made.server.server_close()


def run(bench: FakeBench, **parameters: Any) -> dict[str, str]:
    Containment(**parameters).measure(cast("Bench", bench))
    return bench.said()


def test_where_no_limit_can_be_proven_nothing_is_asked_for(service: FakeService) -> None:
    bench = FakeBench(service, NETWORK)
    told = run(bench, troubles=",".join(LIMITED), seconds=1)
    assert told == {
        f"{trouble}: the instance": "not made: no process of the instance is this host's, so that no limit can be "
        "read back"
        for trouble in LIMITED
    }
    assert service.tasks == []
    assert bench.figures() == set()


def test_a_process_of_the_hosts_own_cgroup_gets_no_trouble(service: FakeService) -> None:
    """This test's own process is in a cgroup with others, or in none with a limit."""
    instance = SimpleNamespace(host_pids=lambda: {os.getpid(): Role.SERVICE})
    bench = FakeBench(service, NETWORK | {Feature.HOST_PIDS}, instance)
    told = run(bench, troubles="forks,memory", seconds=1)
    assert all(words.startswith("not made: no cgroup of the instance's own") for words in told.values()), told
    assert service.tasks == []


def test_what_takes_a_kernel_of_its_own_is_refused_before_any_launch_for_it(service: FakeService) -> None:
    bench = FakeBench(service, NETWORK)
    told = run(bench, troubles="panic,clock", seconds=1)
    assert told == {
        "panic: the instance": "not made: the kernel is the host's",
        "clock: the instance": "not made: the clock is the host's",
    }
    assert bench.launched == 1  # the neighbour
    assert service.tasks == []


def test_what_the_service_refuses_is_not_made_in_its_own_words(service: FakeService) -> None:
    bench = FakeBench(service, NETWORK)
    told = run(bench, troubles="disk", seconds=1)
    assert service.tasks == ["/task/start?kind=disk&seconds=1&amount=128"]
    assert "not made" in told["disk: the instance"] and "/tmp is no tmpfs" in told["disk: the instance"]
    assert bench.figures() == set()


def test_no_tmpfs_is_filled_that_the_host_could_not_bear(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.host.limits.available_bytes", lambda: 100 * MIB)
    told = run(FakeBench(service, NETWORK), troubles="disk", seconds=1)
    assert told["disk: the instance"].startswith("not made: its limit of 128 MiB is more than the 100 MiB")
    assert service.tasks == []


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"boot_id": boot_id(), "memory_total": "100000 kB"}, "the host's boot id"),
        ({"boot_id": "another", "memory_total": "999999999 kB"}, "more memory than the 128 MiB"),
        ({"boot_id": "another"}, "more memory than the 128 MiB"),
    ],
)
def test_a_guest_must_prove_that_it_is_one(facts: Mapping[str, Any], why: str) -> None:
    service = FakeService(facts=facts)
    memory = GuestMemory(declared_bytes=128 * MIB, balloon="none", free_page_reporting=False)
    guest = SimpleNamespace(guest_memory=lambda: memory, host_pids=lambda: {os.getpid(): Role.VMM})
    told = run(FakeBench(service, NETWORK | {Feature.OWN_KERNEL}, guest), troubles="memory", seconds=1)
    assert told["memory: the instance"].startswith("not made: ") and why in told["memory: the instance"]
    assert service.tasks == []
    service.server.shutdown()
    service.server.server_close()


def test_the_workload_is_the_service_and_else_its_vmm() -> None:
    assert workload({1: Role.SHIM, 2: Role.SERVICE, 3: Role.SERVICE, 4: Role.VMM}) == [2, 3]
    assert workload({1: Role.SHIM, 4: Role.VMM, 5: Role.HELPER}) == [4]
    assert workload({1: Role.PROXY}) == []


# --- what became of it


@pytest.mark.parametrize(
    ("trouble", "seen", "instance", "whom"),
    [
        (
            Trouble.MEMORY,
            observed(state(signal=9, bytes=127 * MIB), risen={"oom_kill": 1}),
            "its process was killed; the service goes on",
            "the host's kernel, at the limit of its cgroup (oom_kill)",
        ),
        (
            Trouble.MEMORY,
            observed(state(signal=9), own_kernel=True, console=["Out of memory: Killed process 61 (service)"]),
            "its process was killed; the service goes on",
            "the guest's own kernel, on its console: Out of memory: Killed process (service)",
        ),
        (
            Trouble.MEMORY,
            observed(),
            "not stopped: 256 MiB, all that it was to take; the service goes on",
            "nobody, as far as the kernel's counters tell",
        ),
        (
            Trouble.MEMORY,
            observed(None, survival=Survival.RESTARTED, risen={"oom_kill": 2}),
            "not told by the service any more: its engine started the service again",
            "the host's kernel, at the limit of its cgroup (oom_kill)",
        ),
        (
            Trouble.FORKS,
            observed(state(made=126, refused=40, errno=errno.EAGAIN), risen={"max": 40}),
            "limited at 126 processes (EAGAIN); the service goes on",
            "the host's kernel, at the limit of its cgroup (pids.events)",
        ),
        (
            Trouble.FORKS,
            observed(state(made=256), own_kernel=True),
            "not stopped: 256 processes, all that it was to take; the service goes on",
            "nobody, as far as the kernel's counters tell",
        ),
        (
            Trouble.FORKS,
            observed(state(made=100)),
            "not stopped: 100 processes, until its deadline; the service goes on",
            "nobody, as far as the kernel's counters tell",
        ),
        (
            Trouble.FILES,
            observed(state(made=253, refused=1, errno=errno.EMFILE)),
            "limited at 253 open files (EMFILE); the service goes on",
            "the host's kernel, which refused it",
        ),
        (
            Trouble.DISK,
            observed(state(bytes=16 * MIB, refused=1, errno=errno.ENOSPC), own_kernel=True),
            "limited at 16 MiB (ENOSPC); the service goes on",
            "its own kernel, which refused it",
        ),
        (
            Trouble.CPU,
            observed(risen={"nr_throttled": 9, "nr_periods": 10}),
            "throttled; the service goes on",
            "the host's kernel, by the quota of its cgroup (cpu.stat: nr_throttled)",
        ),
        (
            Trouble.MEMORY,
            observed(state(signal=signal.SIGBUS, bytes=9 * MIB)),
            "its process ended by signal 7, and not at its limit nor its deadline; the service goes on",
            "nobody, as far as the kernel's counters tell",
        ),
        (
            Trouble.CPU,
            observed(own_kernel=True, risen={"nr_throttled": 3}),
            "throttled; the service goes on",
            "the host's kernel, by the quota of its cgroup (cpu.stat: nr_throttled)",
        ),
        (
            Trouble.CPU,
            observed(own_kernel=True),
            "ran until its deadline; the service goes on",
            "nobody: it had its machine's virtual CPUs, and no more",
        ),
        (
            Trouble.KILL,
            observed(None, survival=Survival.GONE, killed_from_outside=True),
            "killed: it is gone, and was not started again meanwhile",
            "SIGKILL from the host",
        ),
        (
            Trouble.PANIC,
            observed(None, survival=Survival.GONE, own_kernel=True, console=["Kernel panic - not syncing: x"]),
            "its kernel panicked: it is gone, and was not started again meanwhile",
            "the guest's own kernel, on its console: Kernel panic - not syncing: x",
        ),
        (
            Trouble.PANIC,
            observed(None, survival=Survival.SERVES, own_kernel=True, console=["lab-guest refused"]),
            "no panic was seen: the service goes on",
            "nothing that the guest's console told",
        ),
    ],
)
def test_what_became_of_the_instance_and_by_whom(trouble: Trouble, seen: Observed, instance: str, whom: str) -> None:
    assert happened(trouble, seen) == instance
    assert by_whom(trouble, seen) == whom


def test_only_what_was_killed_has_a_time() -> None:
    assert observed(state(signal=9)).killed_after_s == pytest.approx(0.25)
    assert observed(state(signal=signal.SIGBUS)).killed_after_s == pytest.approx(0.25)
    assert observed().killed_after_s is None
    assert observed(None).killed_after_s is None


def watched(**changes: Any) -> Watched:
    return Watched(**{"asked": 100, "answered": 100, "late_share": 0.0, "gaps": (), **changes})


@pytest.mark.parametrize(
    ("quiet", "during", "words"),
    [
        (watched(), watched(), "available throughout"),
        (watched(), watched(answered=90), "10 of 100 requests were not answered within 1 s"),
        (
            watched(answered=99),
            watched(),
            "available throughout (and in the quiet window before 1 of 100 requests were not answered within 1 s)",
        ),
        (watched(), watched(late_share=0.06), "inconclusive: the watcher was late too often"),
        (watched(), "it did not span", "inconclusive: it did not span"),
        (
            watched(late_share=0.06),
            watched(),
            "available throughout (the quiet window before is inconclusive: the watcher was late too often)",
        ),
    ],
)
def test_a_late_watcher_never_passes(quiet: Watched | str, during: Watched | str, words: str) -> None:
    assert said(Windows(connections="new", quiet=quiet, trouble=during)) == words


def traces(pids: range, charged: int | None, scratch: int | None = None) -> Traces:
    members = frozenset(Process(1, pid) for pid in pids)
    return Traces(processes=members, charged_bytes=charged, scratch_bytes=scratch, toll=Toll({}), console=b"")


def test_what_is_left_is_what_was_not_there_before() -> None:
    before = traces(range(2), 10 * MIB, 0)
    assert left(before, traces(range(2), 9 * MIB, 0)) == {"processes": 0, "charged": -MIB, "scratch": 0}
    assert left_said(left(before, traces(range(1), 11 * MIB, 0)), gone=False) == "nothing"
    more = left(before, traces(range(1, 5), 90 * MIB, 4096))
    assert more == {"processes": 3, "charged": 80 * MIB, "scratch": 4096}
    words = left_said(more, gone=False)
    assert "3 processes" in words and "memory" in words and "/tmp" in words
    assert left(before, traces(range(0), None)) == {"processes": 0}
    assert left_said({"processes": 0}, gone=True) == "nothing: no process of it is left"


def test_a_guests_clock_is_as_wrong_as_it_was_to_be_or_not() -> None:
    assert clock.clock_said(-86_400, -86_402.1) == "serves, its clock 24 h slow"
    assert clock.clock_said(-86_400, 0.3) == "serves, its clock 0 s off and not -86400 s"


def test_every_task_is_one_that_the_service_knows() -> None:
    from lab.service.task import Trouble as Task

    assert {trouble.value for trouble in Trouble} - {one.value for one in Task} == {"clock"}
    assert {trouble.value for trouble in TASKS} <= {one.value for one in Task}


@pytest.mark.parametrize(("gives_back", "left_bytes"), [(True, 0), (False, 8 * MIB)])
def test_memory_that_the_kernel_gives_back_in_its_own_time_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch, gives_back: bool, left_bytes: int
) -> None:
    before, more = traces(range(1), 0), traces(range(1), 8 * MIB)
    looks = iter([more, more, before])
    monkeypatch.setattr("scenarios.containment.traces.look", lambda *_: next(looks) if gives_back else more)
    monkeypatch.setattr("scenarios.containment.traces._LOOK_S", 0.01)
    monkeypatch.setattr("scenarios.containment.traces._SETTLES_WITHIN_S", 10 if gives_back else 0.1)
    assert left(before, settled(None, before))["charged"] == left_bytes


@pytest.mark.parametrize(
    ("features", "most", "why"),
    [
        (NETWORK, None, ""),
        (NETWORK, 200, ""),
        (NETWORK, 100, "200 calls of one worker, and at most 100 are to be compared on e: "),
        (frozenset(), None, "without a network it answers nobody"),
    ],
)
def test_a_neighbour_that_is_not_to_be_asked_so_often_is_not_watched(
    features: frozenset[Feature], most: int | None, why: str
) -> None:
    info = Info(engine="e", version="1", isolation="none", features=features, facts={"calls_per_worker": most})
    assert (why in unwatched(info)) and bool(unwatched(info)) == bool(why)
