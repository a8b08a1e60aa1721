"""What stored runs tell of a target that its cost depends on; runs of other hosts or services are not put together."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.errors import BadInput, IncomparableRuns
from lab.figures import series
from lab.figures.comparison import EQUAL_SPEC
from lab.figures.cost.uncertain import Uncertain, mean
from lab.host.ownership import Owner
from lab.spec import Target
from lab.store.record import Outcome, RunRecord, RunStatus

MEMORY, WAKE, OVERHEAD, COLDSTART = "memory", "wake", "overhead", "coldstart"
SCENARIOS = (MEMORY, WAKE, OVERHEAD, COLDSTART)
"""Those whose runs tell something here."""

_AWAKE_MEMORY = "awake_pss_bytes"  # of `wake`: the same as `memory` has, where that was not run
IDLE_MEMORY, IDLE_CPUS, CALL = "pss_bytes", "idle_cpus", "request_s"
INIT, WARM = "init", "warm"
CALLS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    INIT: ("phase_s", {"call": "cold", "from": "main", "to": "listening"}),
    WARM: ("request_s", {"call": "warm"}),
}
"""Which samples of `coldstart` tell these times: their metric and dimensions. A call is timed by its client, so that
what leads to the function is within it, which no provider would bill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One target's own. What no run told is absent; times are in seconds, by round, one for each call, since each
    call of a function is rounded up by itself."""

    target: str
    label: str
    emulated: bool
    function: bool
    means: Mapping[str, Uncertain] = field(default_factory=dict)
    times_s: Mapping[str, Mapping[int, Sequence[float]]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    """By scenario, why its run has no figure of this target."""

    @property
    def driver(self) -> str:
        """Which driver launched it."""
        return Target.parse(self.target).driver

    def billed_s(self, step_s: float, first: str, *more: str) -> Uncertain:
        """The mean of what is billed of a call that takes these times together, each call rounded up to whole steps:
        those of `first`, each with one of the same round of every other."""
        means = []
        for iteration, calls in self.times_s[first].items():
            others = [itertools.cycle(self.times_s[name].get(iteration, ())) for name in more]
            billed = [_rounded_up(sum(call), step_s) for call in zip(calls, *others, strict=False)]
            if billed:
                means.append(statistics.fmean(billed))
        return mean(means, name=" ".join([self.label, first, *more]))

    def has_times(self, *names: str) -> bool:
        """Whether some round has all of them."""
        return bool(set.intersection(*(set(self.times_s.get(name, ())) for name in names)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """All that the runs tell: by target, and what was the same for all of them."""

    runs: Sequence[str]
    host: Mapping[str, Any]
    cpus: float
    memory_bytes: int
    image: str
    targets: Sequence[Measured]
    scenarios: frozenset[str]


def host_of(record: RunRecord) -> tuple[object, ...]:
    """What tells a run's host from another: the machine's id, or its boot where it has none, and what it is made of."""
    cpu, memory = (record.host.get(name) or {} for name in ("cpu", "memory"))
    made_of = cpu.get("model"), cpu.get("threads_online"), memory.get("memory_total_bytes")
    try:
        owner = Owner.parse(record.run.owner)
    except BadInput:
        return ("unknown", *made_of)
    return (owner.machine if owner.names_machine else owner.boot, *made_of)


def basis_of(records: Sequence[RunRecord]) -> Basis:
    """What `records` tell together.

    Raises BadInput for a run that tells nothing of cost and for two of one scenario, IncomparableRuns for other hosts,
    images or sizes.
    """
    if not records:
        raise BadInput("no run tells anything of cost", resolution=_REMEDY)
    first = records[0]
    for record in records:
        if record.run.scenario not in SCENARIOS:
            raise BadInput(
                f"run {record.run.id} is of {record.run.scenario}, which tells nothing of cost",
                resolution=f"name runs of {', '.join(SCENARIOS[:-1])} or {SCENARIOS[-1]}",
            )
        _check(first, record)
    scenarios = [record.run.scenario for record in records]
    if twice := next((name for name in scenarios if scenarios.count(name) > 1), None):
        raise BadInput(f"two runs of {twice} are named", resolution="name one run of each scenario")
    spec = _spec(first)
    return Basis(
        runs=[_named_run(record) for record in records],
        host=first.host,
        cpus=float(spec.get("cpus") or 1),
        memory_bytes=int(spec.get("memory_bytes") or 0),
        image=str(spec.get("image", "")),
        targets=list(_targets(records)),
        scenarios=frozenset(scenarios),
    )


def _named_run(record: RunRecord) -> str:
    """A run with its scenario, and how it ended where that was not well."""
    told = f"{record.run.scenario} {record.run.id}"
    return told if record.run.status is RunStatus.DONE else f"{told} ({record.run.status})"


def _check(first: RunRecord, record: RunRecord) -> None:
    pair = f"runs {first.run.id} and {record.run.id}"
    if host_of(first) != host_of(record):
        raise IncomparableRuns(f"{pair} are of different hosts", resolution="name runs of one host")
    for key in EQUAL_SPEC:
        one, other = _spec(first).get(key), _spec(record).get(key)
        if one != other:
            what = key.removesuffix("_bytes")
            raise IncomparableRuns(
                f"{pair} differ in {what}: {one} and {other}", resolution=f"run both with one --{what}"
            )


def _spec(record: RunRecord) -> Mapping[str, Any]:
    found = record.run.parameters.get("spec")
    return found if isinstance(found, Mapping) else {}


def _targets(records: Sequence[RunRecord]) -> Iterator[Measured]:
    """Every target of every run by its label, which holds its qualifiers: an emulated guest is not the other one."""
    labels = {series.label(target): target.target for record in records for target in record.targets}
    for label, target in labels.items():
        means: dict[str, Uncertain] = {}
        times: dict[str, Mapping[int, Sequence[float]]] = {}
        skipped: dict[str, str] = {}
        emulated = function = False
        for record in records:
            about = next((one for one in record.targets if series.label(one) == label), None)
            if about is None:
                continue
            emulated |= (about.info.get("qualifiers") or {}).get("accel") == "tcg"
            function |= record.run.scenario == COLDSTART
            if about.outcome is not Outcome.OK:
                skipped[record.run.scenario] = f"{about.outcome} in run {record.run.id}: {about.reason}"
            if record.run.scenario == COLDSTART:
                times |= _call_times(record, target)
            for metric in _OF.get(record.run.scenario, ()):
                if rounds := _by_round(record, target, metric):
                    of_rounds = [statistics.fmean(values) for values in rounds.values()]
                    means[metric] = mean(of_rounds, name=f"{record.run.id} {label} {metric}")
        awake = means.pop(_AWAKE_MEMORY, None)
        if awake is not None:
            means.setdefault(IDLE_MEMORY, awake)
        yield Measured(
            target=target,
            label=label,
            emulated=emulated,
            function=function,
            means=means,
            times_s=times,
            skipped=skipped,
        )


def _by_round(record: RunRecord, target: str, metric: str, **dimensions: str) -> dict[int, list[float]]:
    """The values by round, warm-up left out: those of one launch depend on each other, rounds do not."""
    found: dict[int, list[float]] = {}
    for sample in record.samples:
        if (
            sample.target == target
            and sample.metric == metric
            and not sample.warmup
            and all(sample.dimensions.get(key) == value for key, value in dimensions.items())
        ):
            found.setdefault(sample.iteration, []).append(sample.value)
    return found


def _call_times(record: RunRecord, target: str) -> dict[str, Mapping[int, Sequence[float]]]:
    found = {name: _by_round(record, target, metric, **told) for name, (metric, told) in CALLS.items()}
    return {name: rounds for name, rounds in found.items() if rounds}


def _rounded_up(seconds: float, step_s: float) -> float:
    """To whole steps; what is one but for the binary fraction stays one."""
    return math.ceil(seconds / step_s - 1e-9) * step_s


_OF = {MEMORY: (IDLE_MEMORY, IDLE_CPUS), WAKE: (_AWAKE_MEMORY,), OVERHEAD: (CALL,)}
_REMEDY = "lab run memory -t …; lab run overhead -t … with the same targets; functions: lab run coldstart"
