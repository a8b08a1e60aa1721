"""The ratio of a noisy window to the quiet ones around it, what makes it none, and the order of a round."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import BadInput, DriverError, MeasurementError, Unsupported
from lab.features import CPUS_CHOSEN_BY, Feature
from lab.figures.evidence import Claims, meaning
from lab.figures.series import Series, beside
from lab.host.strain import Gauge, Reading
from lab.launch.session import Session
from lab.registry import make_scenario
from lab.scenario import Bench, Sized, Takes
from lab.service.load import LoadResult, Request
from lab.service.task import Antagonist, TaskState
from lab.spec import Endpoint, Spec
from lab.units import MIB, RATIO
from scenarios import neighbour
from scenarios.neighbour import Neighbour
from scenarios.neighbour.trial import Effect, Trial, failed, slowdown

MS = 1_000_000
DONE = TaskState(
    kind="busy",
    running=False,
    pid=9,
    amount=1,
    started_ns=5 * MS,
    ended_ns=2005 * MS,
    deadline_ns=2005 * MS,
    exit_code=0,
    signal=None,
    made=1,
    refused=0,
    errno=0,
    bytes=0,
    operations=4000,
)
seconds = st.floats(min_value=1e-6, max_value=10)


def load(latency_ms: float, *, n: int = 400, late: int = 0, unserved: int = 0, at_ms: int = 0) -> LoadResult:
    """One request a ms from `at_ms` on, each as slow as the others."""
    return LoadResult(
        requests=[
            Request(
                intended_ns=(at_ms + i) * MS,
                sent_ns=(at_ms + i) * MS,
                done_ns=(at_ms + i) * MS + round(latency_ms * MS),
                status=200 if i >= unserved else "timeout",
                version="",
                late=i < late,
            )
            for i in range(n)
        ]
    )


def trial(a1: LoadResult, b: LoadResult, a2: LoadResult, state: TaskState = DONE, begun_ms: int = 0) -> Trial:
    return Trial(before=a1, during=b, after=a2, state=state, begun_ns=begun_ms * MS, seconds=2)


def test_the_slowdown_is_over_the_geometric_mean_of_the_quiet_windows() -> None:
    made = trial(load(2.0), load(9.0), load(4.5))
    assert made.problem == ""
    effect = made.effects()["p50"]
    assert effect == made.effects()["p99"]
    assert isinstance(effect, Effect)
    assert effect.slowdown == pytest.approx(3.0)
    assert effect.drift == pytest.approx(2.25)
    assert made.operations_per_s == pytest.approx(2000.0)
    assert made.effects()["p99_9"] == "400 requests are too few"


@given(quiet=seconds, factor=st.floats(min_value=0.1, max_value=100), drift=st.floats(min_value=0.2, max_value=5))
def test_a_drift_that_goes_on_evenly_cancels_out(quiet: float, factor: float, drift: float) -> None:
    found = slowdown(quiet, quiet * drift * factor, quiet * drift * drift)
    assert found == pytest.approx(factor)


def test_each_quantile_needs_its_requests_in_every_window() -> None:
    effects = trial(load(1.0, n=367), load(1.0), load(1.0)).effects()
    assert isinstance(effects["p50"], Effect)
    assert effects["p99"] == "367 requests are too few"
    long = trial(load(1.0, n=3688), load(2.0, n=3688), load(1.0, n=3688)).effects()
    assert long["p99_9"] == Effect(slowdown=pytest.approx(2.0), drift=pytest.approx(1.0))


def test_unserved_requests_are_endless_and_not_left_out() -> None:
    effects = trial(load(1.0), load(1.0, unserved=201), load(1.0)).effects()
    assert effects["p50"] == effects["p99"] == "too many requests were not served"
    effects = trial(load(1.0), load(1.0, unserved=100), load(1.0)).effects()
    assert isinstance(effects["p50"], Effect) and isinstance(effects["p99"], str)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"operations": 0}, "the antagonist did nothing"),
        ({"ended_ns": 2004 * MS}, "the antagonist ended before its deadline"),
        ({"ended_ns": None, "running": True, "exit_code": None}, "the antagonist still runs"),
        ({"exit_code": 1}, "the antagonist failed (exit status 1)"),
        ({"exit_code": None, "signal": 9}, "the antagonist failed (signal 9)"),
        ({}, ""),
    ],
)
def test_an_antagonist_proves_that_it_was_one_all_the_time(change: dict[str, Any], why: str) -> None:
    state = replace(DONE, **change)
    assert failed(state) == why
    assert trial(load(1.0), load(1.0), load(1.0), state).problem == why


def test_a_load_that_goes_on_after_the_antagonist_is_no_window_with_it() -> None:
    assert trial(load(1.0), load(1.0, at_ms=1600), load(1.0)).problem == ""
    assert trial(load(1.0), load(1.0, at_ms=1700), load(1.0)).problem == "the antagonist ended before the load did"
    assert trial(load(1.0), load(1.0, at_ms=1700), load(1.0), begun_ms=200).problem == ""


@pytest.mark.parametrize("window", [0, 1, 2])
def test_a_late_client_saw_nothing_for_certain(window: int) -> None:
    windows = [load(1.0), load(1.0), load(1.0)]
    windows[window] = load(1.0, late=20)
    assert trial(*windows).problem == ""
    windows[window] = load(1.0, late=21)
    assert trial(*windows).problem == "the load's own client was late"


class FakeBench:
    """A bench of which two instances are asked for at a time; what is done with them is noted in `log`."""

    def __init__(self, seed: int = 0) -> None:
        self.spec = Spec()
        self.info = SimpleNamespace(features=frozenset({Feature.OWN_KERNEL}), facts={})
        self.samples: list[tuple[str, float, dict[str, str]]] = []
        self.log: list[str] = []
        self._seed = seed

    @contextlib.contextmanager
    def session(self, *, cpuset: tuple[int, ...]) -> Iterator[Any]:
        self.log.append(f"launch on {cpuset[0]}")
        yield SimpleNamespace(spec=self.spec, instance=SimpleNamespace(endpoint=Endpoint("127.0.0.1", 1)))

    def random(self) -> random.Random:
        return random.Random(self._seed)

    def emit(self, metric: str, value: float, unit: str, **dimensions: str) -> None:
        self.samples.append((metric, value, dimensions))

    def of(self, metric: str) -> list[tuple[float, dict[str, str]]]:
        return [(value, told) for name, value, told in self.samples if name == metric]

    def absent(self) -> dict[str, str]:
        return {told["of"]: told["why"] for _, told in self.of("absent")}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> FakeBench:
    """Two cores; every window takes 1 ms a request, and 3 ms where an antagonist runs; `fsync` has no disk."""
    made, running = FakeBench(), [""]

    def run(endpoint: Endpoint, *, rate: int, seconds: float, cpus: Sequence[int]) -> LoadResult:
        made.log.append(f"{'B ' + running[0] if running[0] else 'A'} by {list(cpus)}")
        return load(3.0 if running[0] else 1.0)

    def start(session: object, kind: Antagonist, *, seconds: int, amount: int | None) -> Mapping[str, Any]:
        if kind is Antagonist.FSYNC:
            raise Unsupported("no disk")
        assert (amount is not None) == (kind is Antagonist.CACHE)
        running[0] = kind.value
        return {"amount": 7}

    def ended(session: object, deadline_s: float) -> TaskState:
        running[0] = ""
        return DONE

    monkeypatch.setattr(neighbour, "cores", lambda: [(0,), (1,)])
    monkeypatch.setattr(neighbour.serving, "machine", lambda _: (128 * MIB, "a machine"))
    monkeypatch.setattr(neighbour, "run_load", run)
    monkeypatch.setattr(neighbour, "start_task", start)
    monkeypatch.setattr(neighbour, "_ended", ended)
    monkeypatch.setattr(neighbour, "require_pinned", lambda _, cpuset: made.log.append(f"held to {cpuset[0]}"))
    monkeypatch.setattr(Gauge, "of", lambda _: SimpleNamespace(read=_Ticking(), pressure={}, whole_host=True))
    monkeypatch.setattr(neighbour.time, "sleep", lambda _: None)
    monkeypatch.setattr(neighbour.time, "monotonic_ns", lambda: 0)
    return made


class _Ticking:
    """A gauge's `read`, a ns later each time."""

    def __init__(self) -> None:
        self._at_ns = 0

    def __call__(self) -> Reading:
        self._at_ns += 1
        return Reading(at_ns=self._at_ns, throttled=None)


def measure(bench: FakeBench, **parameters: Any) -> None:
    Neighbour(**parameters).measure(cast("Bench", bench))


def test_each_antagonist_is_between_two_quiet_windows_on_the_cpus_that_were_declared(bench: FakeBench) -> None:
    measure(bench, antagonists="busy,cache", share="no")
    assert bench.log[:2] == ["launch on 0", "launch on 1"]
    windows = [line for line in bench.log if line[0] in "AB"]
    order = [told["antagonist"] for _, told in bench.of("slowdown_p50")]
    assert windows == ["A by [0]", *(f"{w} by [0]" for kind in order for w in ("A", f"B {kind}", "A"))]
    assert sorted(order) == ["busy", "cache"]
    for at, line in enumerate(bench.log):
        if line.startswith("B"):
            assert bench.log[at - 2 : at] == ["held to 0", "held to 1"], "also while the antagonist runs"
    assert bench.log[-2:] == ["held to 0", "held to 1"]
    assert [value for value, _ in bench.of("slowdown_p50")] == [pytest.approx(3.0)] * 2
    assert [told["window"] for _, told in bench.of("victim_p50_s")] == ["A1", "B", "A2"] * 2
    assert len(bench.of("request_s")) == 2 * 3 * 400
    told = {told["probe"]: told["said"] for _, told in bench.of("fact")}
    assert told["cores: apart"].startswith("victim on CPU 0, antagonist on CPU 1, the load's client on CPU 0;")
    assert told["antagonist: cache"] == "7 MiB; ended by itself at its deadline"


def test_sharing_keeps_the_client_away_and_the_order_is_the_seeds(bench: FakeBench) -> None:
    orders = set()
    for seed in range(12):
        bench._seed = seed
        bench.samples.clear()
        measure(bench)
        orders.add(tuple((told["cores"], told["antagonist"]) for _, told in bench.of("slowdown_p50")))
    assert len(orders) > 6 and {order[0][0] for order in orders} == {"shared", "apart"}
    bench.log.clear()
    measure(bench, antagonists="busy", share="yes")
    assert bench.log[:2] == ["launch on 0", "launch on 0"] and "B busy by [1]" in bench.log


def test_what_cannot_be_is_absent_with_its_reason(bench: FakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(bench, antagonists="fsync,busy", share="yes")
    assert bench.absent() == {
        "slowdown by fsync, shared": "no disk",
        "throttled_s": neighbour.NO_GROUP,
        "waited_share": neighbour.NO_PRESSURE,
    }
    assert [told["antagonist"] for _, told in bench.of("slowdown_p50")] == ["busy"]
    bench.samples.clear()
    monkeypatch.setattr(neighbour, "cores", lambda: [(0, 1)])
    measure(bench, antagonists="busy", share="no")
    assert bench.absent() == {"slowdown by busy, apart": "this machine has only one core to run on"}


def test_an_engine_that_chooses_the_cpus_has_both_apart_where_it_has_put_them(
    bench: FakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.info.facts[CPUS_CHOSEN_BY] = "the kubelet"
    placed = iter([frozenset({3}), frozenset({5})])
    monkeypatch.setattr(neighbour, "cores", lambda: [(0, 1), (2, 3), (4, 5), (6, 7)])
    monkeypatch.setattr(neighbour, "pinned_to", lambda _: next(placed))
    measure(bench, antagonists="busy", share="both")
    assert "the kubelet gives each instance CPUs of its own" in bench.absent()["slowdown by busy, shared"]
    assert {told["cores"] for _, told in bench.of("slowdown_p50")} == {"apart"}
    assert {"held to 3", "held to 5", "B busy by [0, 1, 6, 7]"} <= set(bench.log)


@pytest.mark.parametrize("placed", [({1}, {1}), ({0, 1}, {2}), ({1}, {2, 3})])
def test_an_engine_that_has_not_given_each_its_own_is_no_measurement(
    bench: FakeBench, monkeypatch: pytest.MonkeyPatch, placed: tuple[set[int], set[int]]
) -> None:
    bench.info.facts[CPUS_CHOSEN_BY] = "the kubelet"
    told = iter(map(frozenset, placed))
    monkeypatch.setattr(neighbour, "pinned_to", lambda _: next(told))
    with pytest.raises(MeasurementError, match="a CPU of its own"):
        measure(bench, antagonists="busy", share="no")


def test_a_window_whose_client_was_late_has_no_latency(bench: FakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour, "run_load", lambda *_, **__: load(1.0, late=21))
    measure(bench, antagonists="busy", share="yes")
    assert bench.absent()["slowdown by busy, shared"] == "the load's own client was late"
    assert not [name for name, _, _ in bench.samples if name.startswith(("slowdown", "drift", "victim", "request_s"))]
    assert [value for value, _ in bench.of("late_share")] == [pytest.approx(21 / 400)] * 3


def test_a_service_that_is_too_busy_to_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[TaskState | DriverError] = [DriverError("timed out"), replace(DONE, running=True), DONE]

    def answer(session: object) -> TaskState:
        given = answers.pop(0)
        if isinstance(given, DriverError):
            raise given
        return given

    monkeypatch.setattr(neighbour, "task", answer)
    slept: list[float] = []
    monkeypatch.setattr(neighbour.time, "sleep", slept.append)
    assert neighbour._ended(cast("Session", None), time.monotonic()) == DONE
    assert not answers
    assert slept[1:] == [neighbour._POLL_S] * 2, "it asks without a pause"


@pytest.mark.parametrize("answer", [DriverError("timed out"), replace(DONE, running=True)])
def test_an_antagonist_that_outlives_its_deadline_is_an_error(
    answer: TaskState | DriverError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(session: object) -> TaskState:
        if isinstance(answer, DriverError):
            raise answer
        return answer

    monkeypatch.setattr(neighbour, "task", ask)
    with pytest.raises(DriverError if isinstance(answer, DriverError) else MeasurementError):
        neighbour._ended(cast("Session", None), -1000.0)


def test_a_lost_pinning_fails_the_round(bench: FakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(instance: object, cpuset: object) -> None:
        raise MeasurementError("may run on 0,1")

    monkeypatch.setattr(neighbour, "require_pinned", lost)
    with pytest.raises(MeasurementError):
        measure(bench)
    assert not bench.of("slowdown_p50")


@pytest.mark.parametrize("features", [frozenset(), frozenset({Feature.OWN_KERNEL})])
def test_antagonists_outside_limits_are_refused(
    bench: FakeBench, features: frozenset[Feature], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.info = SimpleNamespace(features=features, facts={})
    monkeypatch.setattr(neighbour.serving, "machine", lambda _: "it tells the host's boot id")
    with pytest.raises(Unsupported, match="no antagonist is started outside limits"):
        measure(bench)
    assert not bench.of("request_s")


def test_a_slowdown_stands_beside_the_controls_under_the_same_antagonist_only() -> None:
    def row(target: str, metric: str = "slowdown_p50", unit: str = RATIO, **told: str) -> Series:
        return Series(target=target, label=target, metric=metric, unit=unit, dimensions=told, values=(1.0,))

    control = [row("process", cores="shared", antagonist="busy"), row("process", cores="apart", antagonist="busy")]
    assert beside(control, row("docker", antagonist="busy", cores="apart")) is control[1]
    assert beside(control, row("docker", antagonist="cache", cores="apart")) is None
    timed = row("process", "recover_s", "s", policy="no")
    assert beside([timed], row("docker", "recover_s", "s", policy="always")) is timed


@pytest.mark.parametrize(
    "parameters",
    [
        {"antagonists": "busy,nosuch"},
        {"antagonists": ""},
        {"share": "maybe"},
        {"rate": "5000", "seconds": "5"},
        {"rate": "5", "seconds": "1"},
    ],
)
def test_parameters_are_checked(parameters: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        make_scenario("neighbour", parameters)


def test_its_plan_and_its_words_are_of_its_parameters() -> None:
    made = make_scenario("neighbour", {"antagonists": "fsync, busy", "share": "yes", "rate": "100", "seconds": "1.5"})
    assert isinstance(made, Claims) and isinstance(made, Sized) and isinstance(made, Takes)
    assert isinstance(made, Neighbour)
    assert (made.launches, made.at_once, made.task_seconds) == (2, 2, 3)
    assert made.likely_s_per_round > 2 * (2 * 1.5 + 3)
    done = " ".join(made.done)
    assert "on one CPU," in done and "150 requests: too few for p99" in done
    assert "fsync appends" in done and "cache writes" not in done
    assert Neighbour().launches == 4 and "too few" not in " ".join(Neighbour().done)
    for probe in ("cores: shared", "limits", "pressure", "antagonist: busy", "drift: busy, shared"):
        assert meaning(made, probe) is not None, probe
