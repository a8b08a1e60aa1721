"""The scenario `coldstart`: what it takes for cold, first and warm, and what it does not, on functions that are
emulated in this process; and how its figures are shown."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from lab.driver import Context
from lab.errors import BadInput, Unsupported
from lab.features import Feature
from lab.figures.series import absences, call_chain, series_of
from lab.registry import make_scenario
from lab.show.report import render
from lab.show.table import render_run
from lab.spec import Endpoint
from lab.store.record import Outcome, RunRecord
from lab.testing import FakeDriver, FakeInstance
from lab.timeline import Phase
from scenarios.coldstart import Coldstart

Measure = Callable[..., RunRecord]
QUICK = Coldstart(burst=3, gaps="", within=5)
CREATED_S, STARTED_S, MAIN_S, LISTENING_S, ANSWER_S = 0.05, 0.1, 0.15, 0.01, 0.0005
PLATFORM_S = 0.008
COLD_S, KEEP_ALIVE_S = CREATED_S + STARTED_S + MAIN_S, 4.0
STATES = ("cold_s", "first_s", "warm_s")


Function = FakeInstance
"""One that keeps its word. The others are platforms that say cold of what is not."""


class SameContainer(FakeInstance):
    """It starts the runtime anew in the container that it had: the counter is 1 again, and the token another's."""

    def new_worker_name(self) -> str:
        return "the-only-container"


class NeverEnded(FakeInstance):
    """It forgets its worker's name, gives it a new one at the next call, and does nothing else."""

    def force_cold(self, *, timeout_s: float) -> None:
        self._replicas[0].name = ""

    def workers(self) -> Sequence[str]:
        return [name for name in super().workers() if name]

    def before_request(self) -> None:
        super().before_request()
        self._replicas[0].name = self._replicas[0].name or self.new_worker_name()


class StillThere(FakeInstance):
    """Its worker lives on under its name."""

    def force_cold(self, *, timeout_s: float) -> None:
        """It says that it did."""


class AskedBefore(FakeInstance):
    """It asks each worker itself whether it is well, before anybody else is answered."""

    def start_worker(self) -> None:
        super().start_worker()
        self._replicas[0].served = 1


class Restarted(FakeInstance):
    """Between two calls its runtime crashes, and is started anew."""

    def before_request(self) -> None:
        super().before_request()
        (replica,) = self._replicas
        if replica.served:
            replica.told["token"], replica.served = secrets.token_hex(16), 0


class TwoForOne(FakeInstance):
    """It starts two workers for each call."""

    def start_worker(self) -> None:
        super().start_worker()
        super().start_worker()


class NoInit(FakeInstance):
    def initialize(self, *, timeout_s: float) -> None:
        raise Unsupported("it says READY and starts nothing")


class InitForNothing(FakeInstance):
    """It says that a worker is ready, and starts it only with the call."""

    def initialize(self, *, timeout_s: float) -> None:
        """It says so."""


class Behind(FakeInstance):
    """Its platform takes PLATFORM_S of each call, and its worker can be asked without it; keeps who was under way."""

    direct = 0

    def workers(self) -> Sequence[str]:
        self.direct = 0
        return super().workers()

    def past_platform(self, path: str) -> tuple[Endpoint, bytes]:
        assert self.endpoint is not None
        self.direct = 1
        asked = f"GET {path} HTTP/1.1\r\nHost: worker\r\nX-Lab-Nonce: {self.id}\r\nConnection: close\r\n\r\n"
        return self.endpoint, asked.encode()

    def service_answer(self, body: bytes) -> bytes:
        return body

    def before_request(self) -> None:
        super().before_request()
        if not self.direct:
            self._engine.clock.advance(PLATFORM_S)


class OtherWorker(Behind):
    """Who is asked directly is not who answered the call before."""

    def past_platform(self, path: str) -> tuple[Endpoint, bytes]:
        self._replicas[0].told["token"] = secrets.token_hex(16)
        return super().past_platform(path)


class AskedMeanwhile(Behind):
    """Somebody else asks the worker too."""

    def past_platform(self, path: str) -> tuple[Endpoint, bytes]:
        self._replicas[0].served += 1
        return super().past_platform(path)


class NotAlone(Behind):
    """It has another worker by the time that the warm calls are over."""

    def workers(self) -> Sequence[str]:
        names = list(super().workers())
        return [*names, "another"] if names and self._replicas[0].served > QUICK.warm else names

    def past_platform(self, path: str) -> tuple[Endpoint, bytes]:
        raise AssertionError("a call may be under way at one of them")


@pytest.fixture
def run(tmp_path: Path, measure: Measure) -> Callable[..., RunRecord]:
    """Measures functions of a class for some rounds, on a clock that only they and waiting advance."""

    def measured(
        of: type[FakeInstance],
        scenario: Coldstart = QUICK,
        rounds: int = 1,
        keep_alive_s: float | None = KEEP_ALIVE_S,
    ) -> RunRecord:
        context = Context(run_dir=tmp_path, cache_dir=tmp_path / secrets.token_hex(4))
        driver = type("Emulated", (FakeDriver,), {"made": of})("", context)
        driver.engine.features = frozenset({Feature.NETWORK, Feature.FUNCTION})
        driver.engine.created_s, driver.engine.started_s, driver.engine.main_s = CREATED_S, STARTED_S, MAIN_S
        driver.engine.listening_s, driver.engine.ready_s = LISTENING_S, ANSWER_S
        driver.engine.keep_alive_s = keep_alive_s
        return measure(scenario, driver, driver.engine.clock, rounds)

    return measured


def values(record: RunRecord, metric: str, **told: str) -> list[float]:
    return [
        one.value for one in record.samples if one.metric == metric and told.items() <= dict(one.dimensions).items()
    ]


def test_each_state_takes_what_its_function_takes_and_every_phase_is_on_one_timeline(
    run: Callable[..., RunRecord],
) -> None:
    record = run(Function, rounds=2)
    assert [launch.outcome for launch in record.launches] == [Outcome.OK] * 2
    for metric, seconds in (("cold_s", COLD_S + LISTENING_S + ANSWER_S), ("first_s", ANSWER_S), ("warm_s", ANSWER_S)):
        assert values(record, metric) == pytest.approx([seconds] * 2, abs=1e-6), metric
    assert values(record, "request_s", call="warm") == pytest.approx([ANSWER_S] * 10, abs=1e-6)
    assert values(record, "shown_s", to="created", source="event") == pytest.approx([CREATED_S] * 2)
    assert values(record, "shown_s", to="started") == pytest.approx([CREATED_S + STARTED_S] * 2)
    assert not values(record, "shown_s", to="polled"), "what was not seen is absent"
    rows = series_of(record)
    cold = {(step.start, step.end): step.median for step in call_chain(rows, "fake", "cold")}
    assert list(cold) == [
        ("request", "main"),
        ("main", "listening"),
        ("listening", "handler"),
        ("handler", "answer"),
    ]
    assert cold["request", "main"] == pytest.approx(COLD_S) and cold["main", "listening"] == pytest.approx(LISTENING_S)
    assert sum(cold.values()) == pytest.approx(values(record, "cold_s")[0])
    assert [step.end for step in call_chain(rows, "fake", "warm")] == ["handler", "answer"], "its main was long before"
    assert set(values(record, "failed_calls")) == {0}


@pytest.mark.parametrize(
    ("platform", "kind", "why"),
    [
        (SameContainer, "cold", "its worker had been seen before"),
        (NeverEnded, "cold", "it was the answer 2 of its worker"),
        (StillThere, "cold", "workers were there after they were ended"),
        (AskedBefore, "cold", "it was the answer 2 of its worker"),
        (TwoForOne, "cold", "one call was answered with 2 new workers"),
        (Restarted, "warm", "it was the answer 1 of a worker that had not answered before"),
        (InitForNothing, "first", "no worker was initialized"),
    ],
)
def test_a_call_whose_state_is_not_proven_is_a_recorded_failure_and_no_sample(
    run: Callable[..., RunRecord], platform: type[FakeInstance], kind: str, why: str
) -> None:
    record = run(platform)
    (launch,) = record.launches
    assert launch.outcome is Outcome.FAILED and f"{kind}: {why}" in launch.error
    assert any(one.startswith(f"{kind}: {why}") for one in launch.facts["failed_calls"])
    assert not values(record, f"{kind}_s") and not values(record, "phase_s", call=kind)
    assert values(record, "failed_calls", call=kind) == [1]
    for metric in STATES:
        if f"{metric.removesuffix('_s')}: " not in launch.error:
            assert len(values(record, metric)) == 1, "what was proven stays"


def test_a_worker_that_can_be_asked_without_its_platform_tells_what_the_platform_takes(
    run: Callable[..., RunRecord],
) -> None:
    record = run(Behind, rounds=2)
    assert [launch.outcome for launch in record.launches] == [Outcome.OK] * 2
    assert values(record, "warm_s") == pytest.approx([PLATFORM_S + ANSWER_S] * 2, abs=1e-6)
    assert values(record, "direct_s") == pytest.approx([ANSWER_S] * 2, abs=1e-6)
    assert len(values(record, "request_s", call="direct")) == 2 * QUICK.warm
    assert len(call_chain(series_of(record), "fake", "direct")) == 2
    assert values(record, "failed_calls", call="direct") == [0, 0]
    console = Console(file=StringIO(), width=100)
    console.print(render_run(record))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "direct_s" in shown and "warm_s" in shown
    plain = run(Function)
    assert not [one for one in plain.samples if "direct" in (one.metric, one.dimensions.get("call"))]


@pytest.mark.parametrize(
    ("platform", "why"),
    [
        (OtherWorker, "it was answered by another worker"),
        (AskedMeanwhile, "it was the answer 8 of its worker, and not 7"),
        (NotAlone, "there is not one worker to be asked directly, but 2"),
    ],
)
def test_a_direct_call_that_is_not_the_next_of_the_same_worker_is_no_sample_and_the_others_stay(
    run: Callable[..., RunRecord], platform: type[FakeInstance], why: str
) -> None:
    record = run(platform)
    (launch,) = record.launches
    assert launch.outcome is Outcome.OK
    assert any(one.startswith(f"direct: {why}") for one in launch.facts["failed_calls"])
    assert not values(record, "direct_s") and not values(record, "request_s", call="direct")
    assert values(record, "failed_calls", call="direct") == [1] and len(values(record, "warm_s")) == 1


def test_one_worker_gets_no_more_calls_than_are_said_before_the_run(run: Callable[..., RunRecord]) -> None:
    most: list[int] = []

    class Counted(Behind):
        def before_request(self) -> None:
            super().before_request()
            most.append(self._replicas[0].served + 1)

    scenario = Coldstart(warm=7, burst=3, gaps="0.5", longest_gap_s=5, within=5)
    run(Counted, scenario)
    assert max(most) == scenario.calls_per_worker


def test_no_seed_of_a_platform_that_keeps_its_container_gives_a_cold_call(run: Callable[..., RunRecord]) -> None:
    record = run(SameContainer, rounds=3)
    assert not values(record, "cold_s") and not values(record, "burst_s")
    assert len(record.launches) == 3 and all(one.outcome is Outcome.FAILED for one in record.launches)
    assert record.targets[0].outcome is Outcome.FAILED, "and after three in a row it is given up"


def test_a_burst_tells_when_each_was_answered_and_how_many_workers_there_were(run: Callable[..., RunRecord]) -> None:
    record = run(Function, Coldstart(burst=4, gaps="", within=5))
    kth = [values(record, "kth_answer_s", k=str(k))[0] for k in range(1, 5)]
    assert kth == sorted(kth) and kth[0] >= COLD_S + LISTENING_S
    assert values(record, "burst_s", burst="4") == [kth[-1]]
    assert values(record, "burst_workers") == [1]
    assert not values(run(Function, Coldstart(burst=0, gaps="", within=5)), "burst_workers")


def test_gaps_are_times_of_the_keep_alive_and_what_cannot_be_waited_for_is_told(run: Callable[..., RunRecord]) -> None:
    record = run(Function, Coldstart(burst=0, gaps="0.5,1.1,3", longest_gap_s=5, within=5))
    assert values(record, "cold_after_gap", gap="0.5") == [0] and values(record, "cold_after_gap", gap="1.1") == [1]
    assert values(record, "gap_call_s", gap="0.5") == pytest.approx([ANSWER_S], abs=1e-6)
    assert values(record, "gap_call_s", gap="1.1") == pytest.approx([COLD_S + LISTENING_S + ANSWER_S], abs=1e-6)
    assert "3 times its keep-alive of 4 s" in absences(record)["fake", "gap_call_s"]
    record = run(Function, Coldstart(burst=0, within=5), keep_alive_s=None)
    assert not values(record, "gap_call_s") and "does not tell" in absences(record)["fake", "gap_call_s"]


def test_a_platform_that_initializes_nothing_has_no_first_call_and_says_why(run: Callable[..., RunRecord]) -> None:
    record = run(NoInit)
    assert absences(record)["fake", "first_s"] == "it says READY and starts nothing"
    assert record.launches[0].outcome is Outcome.OK and values(record, "cold_s")


def test_its_figures_are_in_the_table_and_the_report(run: Callable[..., RunRecord]) -> None:
    record = run(Function, Coldstart(burst=2, gaps="1.1", longest_gap_s=5, within=5), rounds=2)
    console = Console(file=StringIO(), width=100)
    console.print(render_run(record))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for line in (
        "request → created",
        "handler → answer",
        "burst of 2, new workers",
        "1.1 times the keep-alive, 2 of 2",
    ):
        assert line in shown
    page = render(record)
    assert '<div id="calls"' in page and '<div id="burst"' in page
    assert "fake cold, 310 ms" in page and "created, as shown" in page
    assert Phase.READY in record.launches[0].timeline


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"burst": "65"}, "burst"),
        ({"warm": "0"}, "warm"),
        ({"gaps": "1;2"}, "gaps"),
        ({"gaps": "0"}, "gaps are at most"),
        ({"gaps": "1,1,1,1,1,1,1,1,1"}, "gaps are at most"),
        ({"longest_gap_s": "0"}, "longest_gap_s"),
    ],
)
def test_its_parameters_are_bounded(given: Mapping[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make_scenario("coldstart", given)
