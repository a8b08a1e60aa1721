"""How much slower does a noisy neighbour make the service?

Victim and antagonist are two instances of one target, each held to CPUs that are read back from the kernel. `cores` says
whether they have one CPU between them (shared) or a core each (apart; SMT siblings are one core). The victim answers an
open-loop load of `rate` requests of /healthz a second for `seconds`, three times for each `antagonist`, whose order is
shuffled: in A1 the antagonist's instance is idle, in B it does its worst, in A2 it is idle again.

| metric | what it is | unit |
|---|---|---|
| `slowdown_p50`, `slowdown_p99`, `slowdown_p99_9` | the latency's quantile in B over the geometric mean of that in A1 and that in A2; one ratio a round | x |
| `victim_p50_s`, `victim_p99_s`, `victim_p99_9_s` (`window`) | that quantile in A1, B or A2: from the instant at which a request was to be sent to its complete answer; an unserved one counts as endless | s |
| `drift_p50`, `drift_p99`, `drift_p99_9` | A2's quantile over A1's: what changed without the antagonist | x |
| `antagonist_ops_per_s` | what the antagonist did, by its own count, over the time that it lasted by its own clock | 1/s |
| `throttled_s`, `throttled_periods` | in B: how long, and in how many periods, the victim was held back by its own CPU quota (cpu.stat) | s, periods |
| `waited_share` (`of`, `whole`) | in B: share of the time in which some task of the victim's cgroup, or where that tells nothing of the whole host, waited for CPU, memory or I/O (PSI) | share |
| `steal_share` | in B: share of all CPUs' time that the host's own hypervisor took away | share |
| `late_share`, `unserved_requests` (`window`) | of the load's requests: during which its client was itself late, and which were missed, refused, broken, too late or answered with an error | share, requests |

A round gives one ratio, so that the interval of a row is over rounds. Every request is kept as `request_s`, raw. A
quantile needs its number of requests in each window (p50: 6, p99: 368, p99.9: 3,688). Where the client was itself late
for more than 5 % of a window's requests, that window has no latency, and there is no slowdown; nor where the antagonist
did nothing, ended early, or is refused, as `fsync` is by a target with no disk.

- The load's client has the cores that neither instance uses. Where there is none left it shares the victim's, in A and
  in B alike. In a target without a network it runs inside the victim, on its CPU and within its limits.
- `cache` has the same amount in all targets, whatever cache a guest believes in: the host's largest, 64 MiB at most, and
  no more than a quarter of the declared memory.
- Each antagonist is capped in amount and carries its deadline within its instance, whose memory and processes must be
  limited, which is read back from the kernel before any begins.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from lab.errors import DriverError, MeasurementError, Unsupported
from lab.features import CPUS_CHOSEN_BY, Execs, Feature, OnThisHost, Role
from lab.figures.evidence import Meaning, Seen, tell
from lab.figures.latency import latencies_s, quantile_s
from lab.figures.series import ABSENT
from lab.host import limits
from lab.host.limits import Held, Limit
from lab.host.pinning import (
    Placement,
    cores,
    cpu_list,
    in_common,
    largest_cache_bytes,
    pinned_to,
    placement,
    require_pinned,
)
from lab.host.strain import NO_GROUP, NO_PRESSURE, Gauge, Strain
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service import serving
from lab.service.load import LoadResult, run_load, run_load_inside
from lab.service.task import GRACE_S, MAX_SECONDS, Antagonist, TaskState, start_task, task
from lab.units import MIB, RATIO
from scenarios.neighbour import words
from scenarios.neighbour.trial import LONG, QUANTILES, Trial, failed, late

MIN_REQUESTS, MAX_REQUESTS = 6, 20_000
BIG_DRIFT = 1.5

_WARM_S = 0.5
_RAMP_S = 0.2  # from the antagonist's start to the load's, and from its end to the next
_SPARE_S = 1.0  # for starting it and the load's client
_POLL_S = 0.1
_ENDS_WITHIN_S = 20.0
_NEEDED = 368  # requests of a window for its p99 (docs/method.md, rule 8)

_CACHE_MOST_MIB = 64
_NO_LIMITS = "run the lab with sudo, or leave this target out"

Load = Callable[[float], LoadResult]


@plain_dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Victim and antagonist, launched and held, and how the victim is asked; `told` are the dimensions of all of it."""

    victim: Session
    antagonist: Session
    place: Placement
    load: Load
    told: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """`antagonists` by comma; `share` says whether victim and antagonist have one CPU between them: yes, no or both
    one after the other. `rate` requests a second for `seconds` in each of three windows."""

    antagonists: str = ",".join(Antagonist)
    share: Literal["yes", "no", "both"] = "both"
    rate: Annotated[int, Field(ge=1, le=5000)] = 200
    seconds: Annotated[float, Field(ge=0.2, le=60)] = 2.0

    name: ClassVar[str] = "neighbour"
    question: ClassVar[str] = "How much slower does a noisy neighbour make the service?"
    headline: ClassVar[str] = "slowdown_p99"
    own_service: ClassVar[bool] = True
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.PINNING, Feature.HOST_PIDS})
    claim: ClassVar[str] = words.CLAIM
    caveats: ClassVar[Sequence[str]] = words.CAVEATS
    meanings: ClassVar[Mapping[str, Meaning]] = words.MEANINGS

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        unknown = self._named - set(Antagonist)
        if unknown:
            raise ValueError(
                f"antagonists: there is no {', '.join(sorted(unknown))}; there are {', '.join(Antagonist)}"
            )
        if self.rate * self.seconds > MAX_REQUESTS:
            raise ValueError(f"rate times seconds must be at most {MAX_REQUESTS} requests")
        if self.rate * self.seconds < MIN_REQUESTS:
            raise ValueError(f"rate times seconds must be at least {MIN_REQUESTS} requests, which a median needs")
        return self

    @property
    def _named(self) -> set[str]:
        return {name.strip() for name in self.antagonists.split(",")}

    @property
    def kinds(self) -> list[Antagonist]:
        """The antagonists, each once, in their usual order."""
        return [kind for kind in Antagonist if kind in self._named]

    @property
    def task_seconds(self) -> int:
        """How long an antagonist lasts, in whole seconds as the service takes them."""
        return min(MAX_SECONDS, math.ceil(_RAMP_S + self.seconds + _SPARE_S))

    @property
    def sharing(self) -> list[bool]:
        """Whether they share a CPU, of each pair of instances."""
        return {"yes": [True], "no": [False], "both": [True, False]}[self.share]

    @property
    def done(self) -> Sequence[str]:
        where = {"yes": "on one CPU", "no": "on a core each", "both": "on one CPU, and another two on a core each"}
        requests = round(self.rate * self.seconds)
        few = f": too few for p99, which needs {_NEEDED}" if requests < _NEEDED else ""
        return (
            f"Two instances of each target were launched {where[self.share]}, which was read back from the kernel.",
            f"One of them, the victim, was sent {self.rate} requests a second for {self.seconds:g} s ({requests} "
            f"requests{few}), each at its time whether or not the last was answered.",
            f"This was done three times for each antagonist: with the other instance idle, with the antagonist in it, "
            f"which ended by its own deadline of {self.task_seconds} s, and idle again.",
            "The antagonists, in a shuffled order: "
            + "; ".join(f"{kind} {words.WORST[kind]}" for kind in self.kinds)
            + ". Each had to prove by its own count that it did.",
            "The slowdown is the quantile with the antagonist over the geometric mean of those without.",
        )

    @property
    def launches(self) -> int:
        return 2 * len(self.sharing)

    @property
    def at_once(self) -> int:
        return 2

    @property
    def likely_s_per_round(self) -> float:
        trial_s = 2 * self.seconds + self.task_seconds + 1.0
        return len(self.sharing) * (_WARM_S + len(self.kinds) * trial_s)

    def measure(self, bench: Bench) -> None:
        chance = bench.random()
        sharing, kinds = self.sharing, self.kinds
        chance.shuffle(sharing)
        for shared in sharing:
            chance.shuffle(kinds)
            with self._pair(bench, shared) as pair:
                if pair is None:
                    told, why = _why_no_pair(bench, shared)
                    for kind in kinds:
                        _absent(bench, kind, {"cores": told}, why)
                    continue
                pair.load(max(_WARM_S, 1 / self.rate))  # the first answers are of code that no cache has
                for kind in kinds:
                    self._trial(bench, pair, kind)
                _require_held(pair)

    @contextlib.contextmanager
    def _pair(self, bench: Bench, shared: bool) -> Iterator[Pair | None]:
        place = placement(shared=shared, by_core=cores())
        chosen = bench.info.facts.get(CPUS_CHOSEN_BY)
        if place is None or (chosen and shared):
            yield None
            return
        with (
            bench.session(cpuset=(place.victim,)) as victim,
            bench.session(cpuset=(place.antagonist,)) as antagonist,
        ):
            inside = victim.instance is not None and victim.instance.endpoint is None
            told = {"cores": "shared" if shared else "apart"} | ({"client": "inside"} if inside else {})
            place = _as_chosen(victim, antagonist) if chosen else place
            pair = Pair(victim=victim, antagonist=antagonist, place=place, load=self._load(victim, place), told=told)
            _require_held(pair)
            _require_limits(bench, antagonist)
            _tell_place(bench, pair)
            yield pair

    def _load(self, victim: Session, place: Placement) -> Load:
        instance = victim.instance
        endpoint = instance.endpoint if instance is not None else None
        if endpoint is not None:
            return lambda seconds: run_load(endpoint, rate=self.rate, seconds=seconds, cpus=place.client)
        if not isinstance(instance, Execs):
            raise Unsupported("an instance with neither a network nor a way in cannot be asked for anything")
        return lambda seconds: run_load_inside(instance, victim.spec.port, rate=self.rate, seconds=seconds)

    def _trial(self, bench: Bench, pair: Pair, kind: Antagonist) -> None:
        """A1, B, A2, and all that they come to."""
        gauge = Gauge.of(pair.victim.instance)
        before = pair.load(self.seconds)
        begun_ns = time.monotonic_ns()
        try:
            amount = _cache_mib(bench.spec.memory_bytes) if kind is Antagonist.CACHE else None
            started = start_task(pair.antagonist, kind, seconds=self.task_seconds, amount=amount)
        except Unsupported as refused:
            _absent(bench, kind, pair.told, refused.brief)
            return
        time.sleep(_RAMP_S)
        _require_held(pair)  # what the antagonist's instance has started by now included
        quiet = gauge.read()
        during = pair.load(self.seconds)
        strain = gauge.read().since(quiet)
        state = _ended(pair.antagonist, begun_ns / 1e9 + self.task_seconds)
        time.sleep(_RAMP_S)
        after = pair.load(self.seconds)

        trial = Trial(
            before=before, during=during, after=after, state=state, begun_ns=begun_ns, seconds=self.task_seconds
        )
        told = {"antagonist": kind.value, **pair.told}
        tell(bench, Seen.INSIDE, f"antagonist: {kind}", _had(kind, int(started["amount"]), state))
        if trial.problem:
            _absent(bench, kind, pair.told, trial.problem)
        else:
            _emit_effects(bench, trial, kind, pair.told)
            bench.emit("antagonist_ops_per_s", trial.operations_per_s, "1/s", **told, seen=Seen.INSIDE)
        for window, found in trial.windows.items():
            _emit_window(bench, found, {**told, "window": window})
        _emit_strain(bench, strain, gauge, told)


def _why_no_pair(bench: Bench, shared: bool) -> tuple[str, str]:
    """How its CPUs were to be, and why it cannot be."""
    if shared:
        chosen = bench.info.facts.get(CPUS_CHOSEN_BY)
        return "shared", f"{chosen} gives each instance CPUs of its own, and shares none between two"
    return "apart", "this machine has only one core to run on"


def _as_chosen(victim: Session, antagonist: Session) -> Placement:
    """Where the engine has put them, each on a CPU of its own; the client has the others. Raises MeasurementError where
    it has not."""
    one, other = pinned_to(victim.instance), pinned_to(antagonist.instance)
    if len(one) != 1 or len(other) != 1 or one == other:
        held = f"the victim may run on CPU {cpu_list(one)}, the antagonist on CPU {cpu_list(other)}"
        raise MeasurementError(f"the engine was to give each a CPU of its own, and {held}")
    (first,), (second,) = one, other
    taken = [core for core in cores() if first in core or second in core]
    free = [cpu for core in cores() if core not in taken for cpu in core]
    return Placement(victim=first, antagonist=second, client=tuple(free) or (first,))


def _ended(session: Session, deadline_s: float) -> TaskState:
    """The antagonist's state once it has ended; it is not asked before `deadline_s` (CLOCK_MONOTONIC), and a service
    whose disk or CPU is still busy may not answer at once. Raises MeasurementError, DriverError where it outlives its
    deadline by far."""
    last_s = deadline_s + GRACE_S + _ENDS_WITHIN_S
    time.sleep(max(0.0, deadline_s - time.monotonic()))
    while True:
        try:
            state = task(session)
        except DriverError:
            if time.monotonic() > last_s:
                raise
            time.sleep(_POLL_S)  # one that is dead refuses at once
            continue
        if not state.running:
            return state
        if time.monotonic() > last_s:
            raise MeasurementError(f"the antagonist '{state.kind}' outlives its deadline")
        time.sleep(_POLL_S)


def _require_held(pair: Pair) -> None:
    require_pinned(pair.victim.instance, (pair.place.victim,))
    require_pinned(pair.antagonist.instance, (pair.place.antagonist,))


def _require_limits(bench: Bench, session: Session) -> None:
    """Raises Unsupported unless memory and processes are limited: by the kernel, or by the guest's own machine."""
    if Feature.OWN_KERNEL in bench.info.features:
        machine = serving.machine(session)
        if isinstance(machine, str):
            raise Unsupported(f"no antagonist is started outside limits: {machine}", resolution=_NO_LIMITS)
        tell(bench, Seen.OUTSIDE, "limits", machine[1])
        return
    instance = session.instance
    pids: Mapping[int, Role] = instance.host_pids() if isinstance(instance, OnThisHost) else {}
    works = [pid for pid, role in pids.items() if role in (Role.SERVICE, Role.VMM)]
    found = [limits.held(limit, works, pids) for limit in (Limit.MEMORY, Limit.PIDS)]
    missing = [one for one in found if not isinstance(one, Held)]
    if missing:
        raise Unsupported(
            f"no antagonist is started outside limits: {missing[0]}",
            resolution=_NO_LIMITS,
        )
    tell(bench, Seen.OUTSIDE, "limits", "; ".join(str(one) for one in found))


def _tell_place(bench: Bench, pair: Pair) -> None:
    place = pair.place
    client = "inside the victim" if "client" in pair.told else f"on CPU {cpu_list(place.client)}"
    common = ", ".join(in_common(place.victim, place.antagonist)) or "no core, cache or socket"
    said = (
        f"victim on CPU {place.victim}, antagonist on CPU {place.antagonist}, the load's client {client}; "
        f"the first two share {common}"
    )
    tell(bench, Seen.OUTSIDE, f"cores: {pair.told['cores']}", said)
    gauge = Gauge.of(pair.victim.instance)
    whose = "the whole host's" if gauge.whole_host else "the victim's own"
    tell(bench, Seen.OUTSIDE, "pressure", whose if gauge.pressure else NO_PRESSURE)


def _cache_mib(memory_bytes: int) -> int:
    """The host's largest cache, as much of it as fits beside a service and a guest's kernel."""
    return max(1, min(largest_cache_bytes() // MIB, _CACHE_MOST_MIB, memory_bytes // 4 // MIB))


def _had(kind: Antagonist, amount: int, state: TaskState) -> str:
    one, many = words.UNITS.get(kind, ("MiB", "MiB"))
    return f"{amount} {one if amount == 1 else many}; {failed(state) or 'ended by itself at its deadline'}"


def _emit_window(bench: Bench, found: LoadResult, told: Mapping[str, str]) -> None:
    bench.emit("late_share", found.late_share, "", **told)
    bench.emit("unserved_requests", sum(not one.served for one in found.requests), "requests", **told)
    if late(found):
        return
    latencies = latencies_s(found)
    for latency_s in filter(math.isfinite, latencies):
        bench.emit("request_s", latency_s, "s", **told)
    for name, q in QUANTILES.items():
        value = quantile_s(latencies, q)
        if not isinstance(value, str):
            bench.emit(f"victim_{name}_s", value, "s", **told, seen=Seen.OUTSIDE)


def _emit_strain(bench: Bench, strain: Strain, gauge: Gauge, told: Mapping[str, str]) -> None:
    if strain.throttled_s is None or strain.throttled_periods is None:
        bench.emit(ABSENT, 1, "", of="throttled_s", why=NO_GROUP)
    else:
        bench.emit("throttled_s", strain.throttled_s, "s", **told, seen=Seen.OUTSIDE)
        bench.emit("throttled_periods", strain.throttled_periods, "periods", **told, seen=Seen.OUTSIDE)
    if not strain.waited:
        bench.emit(ABSENT, 1, "", of="waited_share", why=NO_PRESSURE)
    for resource, share in strain.waited.items():
        whole = "host" if gauge.whole_host else "cgroup"
        bench.emit("waited_share", share, "", **told, of=resource, whole=whole, seen=Seen.OUTSIDE)
    if strain.stolen is not None:
        bench.emit("steal_share", strain.stolen, "", **told, seen=Seen.OUTSIDE)


def _emit_effects(bench: Bench, trial: Trial, kind: Antagonist, place: Mapping[str, str]) -> None:
    told = {"antagonist": kind.value, **place}
    for name, effect in trial.effects().items():
        if isinstance(effect, str):
            if name != LONG:
                _absent(bench, kind, place, effect, f"slowdown_{name}")
            continue
        bench.emit(f"slowdown_{name}", effect.slowdown, RATIO, **told, seen=Seen.OUTSIDE)
        bench.emit(f"drift_{name}", effect.drift, RATIO, **told, seen=Seen.OUTSIDE)
        if name == "p50" and not 1 / BIG_DRIFT <= effect.drift <= BIG_DRIFT:
            said = f"A1 and A2 differ by more than {BIG_DRIFT:g} times: this slowdown says little"
            tell(bench, Seen.OUTSIDE, f"drift: {kind}, {place['cores']}", said)


def _absent(bench: Bench, kind: Antagonist, place: Mapping[str, str], why: str, metric: str = "slowdown") -> None:
    bench.emit(ABSENT, 1, "", of=f"{metric} by {kind}, {place['cores']}", why=why)
