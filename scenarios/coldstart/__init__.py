"""How long does a function's call take: cold, the first after its initialization, and warm?

| metric | start | end | unit |
|---|---|---|---|
| `cold_s` | just before the call's connection; every worker was ended before | its complete answer, the first of a worker never seen before | s |
| `first_s` | the same; a worker is initialized and has answered nobody | its complete answer, the first of that worker | s |
| `warm_s` | the same; the worker has answered before | its complete answer; the middle one of `warm` calls in a row | s |
| `direct_s` | just before a connection to that worker itself, past its platform, by the request that the platform would send it | its complete answer; the middle one of `warm` such calls in a row, after the warm ones | s |
| `phase_s` (`call`, `from`, `to`, `chain`) | the instant `from` of that call | the next one that was seen, `to` | s |
| `shown_s` (`call`, `to`, `source`) | just before the call's connection | the platform showed that instant of the new worker: `created`, `started`, `polled` | s |
| `kth_answer_s` (`k`, `burst`) | just before the first of `burst` calls, begun one right after the other at zero | the k-th of them has its complete answer | s |
| `burst_s` (`burst`) | the same | the last of them has its complete answer; absent where one failed | s |
| `burst_workers` (`burst`) | none | workers never seen before, after these calls | workers |
| `gap_call_s` (`gap`) | just before a call's connection, `gap` times the keep-alive after the answer before | its complete answer | s |
| `cold_after_gap` (`gap`) | none | 1: that call was answered first by a worker never seen before; 0: by the one before | share |
| `failed_calls` (`call`) | none | calls without an answer, or whose state was not proven | calls |

A call is one new connection and one request of /clock, without a second try. Each state is proven (docs/method.md,
rule 23), by a counter and a random token that live in the service's memory only, and by the platform's own names of
its workers: cold is no worker just before, the answer's counter at 1, its token never heard before *and* exactly one
worker never seen before; a runtime that is started anew in the same container counts from 1 as well, and is not cold.
First is a new worker that was there before the call, a counter at 1, and no other worker since. Warm is a counter above
1 and a token heard before. Direct is the only worker there is, the token of the call before it and a counter one
higher, so that what `warm_s` is longer than `direct_s` is the platform's own part; one is made only when the answer
before it is complete. A call whose proof fails is a failed call with its reason, never a sample, and where it is cold,
first or warm its launch is listed as failed.

The instants of `phase_s` are those of the service's chain, by its own clock where this call proves that it is the
host's: `request` (just before the connection), `main` and `listening` of a worker that was started for the call,
`handler` (the service reads its clock for the answer) and `answer`. What the platform shows (`shown_s`) is of another
chain, and never subtracted from these; of a platform that shows nothing it is absent.

Platforms whose worker cannot be asked otherwise (`Bypassed`) have no `direct_s`. Where warm calls take longer the more
there have been, `Info.facts["calls_per_worker"]` caps them, and more than that are refused before anything is launched.

Gaps need a platform that tells how long it keeps an idle worker (`Info.facts["keep_alive_s"]`); those above
`longest_gap_s` are left out, and told. Platforms that look for idle workers on a clock of their own keep them longer.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from lab.errors import MeasurementError, Unsupported
from lab.features import Bypassed, CallPhase, Feature, Initializes
from lab.figures.series import ABSENT
from lab.launch.session import Session
from lab.scenario import Bench
from scenarios.coldstart.calls import Call, Caller, Followed, Unproven, answered

_MOST_GAPS = 8
_MOST_GAP = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Coldstart:
    """One cold call, `warm` warm ones and as many direct ones, the first of an initialized worker, a burst from zero,
    and calls after gaps."""

    warm: Annotated[int, Field(ge=1, le=200)] = 5
    burst: Annotated[int, Field(ge=0, le=64)] = 8
    gaps: Annotated[str, Field(pattern=r"^(\d+(\.\d+)?(,\d+(\.\d+)?)*)?$", max_length=80)] = "0.5,0.9,1.1,2"
    longest_gap_s: Annotated[float, Field(gt=0, le=3600)] = 10.0
    within: Annotated[float, Field(gt=0, le=600)] = 30.0

    name: ClassVar[str] = "coldstart"
    question: ClassVar[str] = "How long does a function's call take: cold, the first after its start, and warm?"
    headline: ClassVar[str] = "cold_s"
    own_service: ClassVar[bool] = True
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.NETWORK, Feature.FUNCTION})
    calls_by: ClassVar[str] = "warm"

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if len(self._gaps()) > _MOST_GAPS or not all(0 < gap <= _MOST_GAP for gap in self._gaps()):
            raise ValueError(f"gaps are at most {_MOST_GAPS} numbers from above 0 to {_MOST_GAP:g}, such as 0.9,1.1")
        return self

    @property
    def launches(self) -> int:
        return 1

    @property
    def at_once(self) -> int:
        return max(1, self.burst)  # a platform may start a worker for each call

    @property
    def calls_per_worker(self) -> int:
        return 1 + 2 * self.warm  # the cold one, the warm ones, and as many direct ones

    @property
    def likely_s_per_round(self) -> float:
        return 2.0 + 2.0 * len(self._gaps())  # how long is kept what is idle, the platform tells later

    def measure(self, bench: Bench) -> None:
        with bench.session() as session:
            caller = Caller(session, bench.clock, timeout_s=self.within)
            failed = _Failures(bench)
            with failed.told("cold"):
                _emit_cold(bench, *caller.cold())
            with failed.told("warm"):
                warm = self._warm(bench, caller)
                if isinstance(caller.function, Bypassed):
                    with failed.told("direct"):
                        self._direct(bench, caller, warm)
            with failed.told("first"):
                self._first(bench, caller)
            if self.burst:
                with failed.told("burst"):
                    self._burst(bench, caller, failed)
            self._after_gaps(bench, caller, failed)
            failed.emit()
            session.require_alive()
            session.stop()
            _raise(session, failed)

    def _warm(self, bench: Bench, caller: Caller) -> Call:
        """The last of them."""
        calls = [caller.warm() for _ in range(self.warm)]
        _emit_middle(bench, calls, "warm")
        return calls[-1]

    def _direct(self, bench: Bench, caller: Caller, before: Call) -> None:
        calls: list[Call] = []
        for _ in range(self.warm):
            before = caller.direct(before)
            calls.append(before)
        _emit_middle(bench, calls, "direct")

    def _first(self, bench: Bench, caller: Caller) -> None:
        if not isinstance(caller.function, Initializes):
            bench.emit(ABSENT, 1, "", of="first_s", why="this platform initializes no worker before a call")
            return
        caller.to_zero()
        try:
            caller.function.initialize(timeout_s=self.within)
        except Unsupported as error:
            bench.emit(ABSENT, 1, "", of="first_s", why=error.brief)
            return
        call = caller.first()
        bench.emit("first_s", call.seconds, "s")
        _emit_phases(bench, call, "first")

    def _burst(self, bench: Bench, caller: Caller, failed: _Failures) -> None:
        caller.to_zero()
        attempted = caller.make(self.burst)
        new = caller.met()
        calls = answered(attempted)
        for why in (one.why for one in attempted if one.call is None):
            failed.add("burst", why)
        if not new or not any(caller.is_first(call) for call in calls):
            raise Unproven("no worker was there before, and none that was never seen before is there after")
        caller.learn(calls)
        begun_ns = min(call.begun_ns for call in calls)
        for k, call in enumerate(calls, 1):
            seconds = (call.received_ns - begun_ns) / 1e9
            bench.emit("kth_answer_s", seconds, "s", k=str(k), burst=str(self.burst))
        if len(calls) == self.burst:
            bench.emit("burst_s", (calls[-1].received_ns - begun_ns) / 1e9, "s", burst=str(self.burst))
        bench.emit("burst_workers", len(new), "workers", burst=str(self.burst))

    def _after_gaps(self, bench: Bench, caller: Caller, failed: _Failures) -> None:
        keep_alive_s = bench.info.facts.get("keep_alive_s")
        gaps = self._gaps()
        if not isinstance(keep_alive_s, int | float):
            if gaps:
                why = "its platform does not tell how long it keeps an idle worker"
                bench.emit(ABSENT, 1, "", of="gap_call_s", why=why)
            return
        kept = [gap for gap in gaps if gap * keep_alive_s <= self.longest_gap_s]
        if left_out := [f"{gap:g}" for gap in gaps if gap not in kept]:
            longer = f"{', '.join(left_out)} times its keep-alive of {keep_alive_s:g} s is longer than longest_gap_s"
            why = f"{longer}, which is {self.longest_gap_s:g}: docs/functions.md tells how to shorten it"
            bench.emit(ABSENT, 1, "", of="gap_call_s", why=why)
        bench.random().shuffle(kept)
        for gap in kept:
            with failed.told("gap"):
                _after_gap(bench, caller, gap, gap * keep_alive_s)

    def _gaps(self) -> list[float]:
        return [float(gap) for gap in self.gaps.split(",") if gap]


class _Failures:
    """The failed calls of one launch, by kind, each with its reason."""

    def __init__(self, bench: Bench) -> None:
        self.why: dict[str, list[str]] = {}
        self._bench = bench

    def add(self, kind: str, why: str) -> None:
        self.why.setdefault(kind, []).append(why)

    @contextmanager
    def told(self, kind: str) -> Iterator[None]:
        """A call of this kind that is not proven is a failed one, and the others go on."""
        self.why.setdefault(kind, [])
        try:
            yield
        except Unproven as error:
            self.add(kind, str(error))

    def emit(self) -> None:
        for kind, why in self.why.items():
            self._bench.emit("failed_calls", len(why), "calls", call=kind)


def _raise(session: Session, failed: _Failures) -> None:
    """Raises MeasurementError where a state was not proven; the stop was begun, so that what was stays."""
    told = [f"{kind}: {one}" for kind, why in failed.why.items() for one in why]
    if told:
        session.beside["failed_calls"] = told
    states = [f"{kind}: {one}" for kind in ("cold", "warm", "first") for one in failed.why.get(kind, ())]
    if states:
        raise MeasurementError(f"a call's state was not proven; {'; '.join(states)}")


def _emit_cold(bench: Bench, call: Call, followed: Followed) -> None:
    bench.emit("cold_s", call.seconds, "s")
    _emit_phases(bench, call, "cold")
    for shown in followed.seen.values():
        for phase in CallPhase:
            if phase in shown:
                ns, source = shown[phase]
                seconds = (ns - call.begun_ns) / 1e9
                bench.emit("shown_s", seconds, "s", call="cold", to=phase.value, source=source)


def _emit_middle(bench: Bench, calls: Sequence[Call], kind: str) -> None:
    for call in calls:
        bench.emit("request_s", call.seconds, "s", call=kind)
    middle = sorted(calls, key=lambda call: call.seconds)[(len(calls) - 1) // 2]
    bench.emit(f"{kind}_s", middle.seconds, "s")
    _emit_phases(bench, middle, kind)


def _emit_phases(bench: Bench, call: Call, kind: str) -> None:
    instants = [("request", call.begun_ns), *call.within(), ("answer", call.received_ns)]
    for (start, start_ns), (end, end_ns) in itertools.pairwise(instants):
        if end_ns < start_ns:
            raise MeasurementError(f"'{end}' of a {kind} call comes before '{start}', which it follows")
        told = {"call": kind, "from": start, "to": end, "chain": "service"}
        bench.emit("phase_s", (end_ns - start_ns) / 1e9, "s", **told)


def _after_gap(bench: Bench, caller: Caller, gap: float, seconds: float) -> None:
    """From zero, a call whose worker is then the only one; a pause, and a call."""
    caller.to_zero()
    before = answered(caller.make(1))
    if not before:
        raise Unproven("the call before the gap was not answered")
    caller.learn(before)
    caller.met()
    passed_s = (bench.clock.now_ns() - before[0].received_ns) / 1e9
    bench.clock.sleep(max(0.0, seconds - passed_s))
    calls = answered(caller.make(1))
    new = caller.met()
    if not calls:
        raise Unproven(f"the call after {gap:g} times the keep-alive was not answered")
    cold = caller.is_first(calls[0]) and bool(new)
    if not cold and not caller.is_warm(calls[0]):
        raise Unproven(f"after {gap:g} times the keep-alive it was neither cold nor warm")
    caller.learn(calls)
    bench.emit("gap_call_s", calls[0].seconds, "s", gap=f"{gap:g}")
    bench.emit("cold_after_gap", float(cold), "share", gap=f"{gap:g}")
