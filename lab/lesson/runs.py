"""Which stored run a step is about, and whether it is one that the step can stand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lab.errors import with_remedy
from lab.lesson.command import Command
from lab.lesson.plausible import faults
from lab.lesson.record import Check, Mistake, State
from lab.lesson.words import Words
from lab.spec import SERVICE_IMAGE, Ready
from lab.store.database import Store
from lab.store.record import Outcome, Run, RunRecord, RunStatus

_LOOKED_AT = 5
"""So many of the newest runs are loaded at most to find one that passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a step's run has to be: of this command, on this host, begun no earlier than `since` (when the student had
    predicted, or began the lesson). `begun` is when the lesson was begun."""

    command: Command
    host_id: str
    since: str
    begun: str
    predicted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The run, and what was found of it; without a run, what is missing."""

    record: RunRecord | None
    checks: Sequence[Check]
    since: int = 0

    @property
    def passed(self) -> bool:
        return self.record is not None and all(check.state is State.PASSED for check in self.checks)


def find(store: Store, ground: Ground, words: Words, *, wanted: str = "") -> Found:
    """The run `wanted`, or else the newest since `ground.since` that passes all checks, or else the newest since then.
    Raises StoreError; BadInput for a run that is not there."""
    if wanted:
        record = store.load(wanted)
        return Found(record=record, checks=list(_judged(record, ground, words)))
    runs = [run for run in store.runs() if run.scenario == ground.command.scenario]
    own = [run for run in runs if run.host_id == ground.host_id and not run.origin]
    since = [run for run in own if not _before(run.started_at, ground.since)]
    first: Found | None = None
    for run in since[:_LOOKED_AT]:
        record = store.load(run.id)
        found = Found(record=record, checks=list(_judged(record, ground, words)), since=len(since))
        if found.passed:
            return found
        first = first or found
    return first or _none(store, ground, words, own=own, others=[run for run in runs if run not in own])


def _none(store: Store, ground: Ground, words: Words, *, own: Sequence[Run], others: Sequence[Run]) -> Found:
    """No run of this host since then: another's, or one from before the prediction, is told as what it is."""
    for run in others[:1]:
        if not _before(run.started_at, ground.since):
            record = store.load(run.id)
            return Found(record=record, checks=list(_judged(record, ground, words)))
    for run in own[:1]:
        if not _before(run.started_at, ground.begun):
            record = store.load(run.id)
            return Found(record=record, checks=list(_judged(record, ground, words)))
    expected = words("a stored run of: {command}", command=ground.command.text)
    return Found(record=None, checks=[Check(name="run", state=State.OPEN, expected=expected, actual=words("none yet"))])


def measured(record: RunRecord, target: str) -> bool:
    """Whether the run has figures of that target."""
    return any(one.target == target and one.outcome is Outcome.OK for one in record.targets)


def not_here(record: RunRecord, targets: Sequence[str]) -> str:
    """Why none of these targets was measured, where the engine of each was not there; empty where one was."""
    why = {one.target: one for one in record.targets}
    if any(measured(record, name) for name in targets):
        return ""
    told = [why[name] for name in targets if name in why and why[name].outcome is Outcome.SKIPPED]
    return "; ".join(f"{one.target}: {with_remedy(one.reason, one.remedy)}" for one in told)


def accel_of(record: RunRecord, target: str) -> str:
    """What a virtual machine of the run ran on: `kvm` or `tcg`; empty for what is none."""
    for one in record.targets:
        if one.target == target:
            qualifiers: Mapping[str, Any] = one.info.get("qualifiers") or {}
            return str(qualifiers.get("accel", ""))
    return ""


Verdict = tuple[str, bool, str, str, Mistake]
"""Of one check: its name, whether it passed, what was expected, what is there, and the mistake that it would be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    record: RunRecord
    ground: Ground
    words: Words


def _judged(record: RunRecord, ground: Ground, words: Words) -> Iterator[Check]:
    """Each check in turn; after the first that does not pass, the others are not reached."""
    failed = False
    for judge in _JUDGES:
        name, passed, expected, actual, mistake = judge(_Case(record=record, ground=ground, words=words))
        if failed:
            yield Check(name=name, state=State.NOT_REACHED, expected=expected)
        elif passed:
            yield Check(name=name, state=State.PASSED, expected=expected, actual=actual)
        else:
            failed = True
            yield Check(name=name, state=State.FAILED, expected=expected, actual=actual, mistake=mistake)


def _tool(case: _Case) -> Verdict:
    origin = case.record.run.origin
    expected = case.words("a run of the lab's own")
    return "tool", not origin, expected, origin or f"lab {case.record.run.lab_version}", Mistake.OTHER_TOOL


def _scenario(case: _Case) -> Verdict:
    wanted = case.ground.command.scenario
    return "scenario", case.record.run.scenario == wanted, wanted, case.record.run.scenario, Mistake.NO_RUN


def _host(case: _Case) -> Verdict:
    here, there = case.ground.host_id, case.record.run.host_id
    shown = f"{case.record.run.host_name} ({there[:12]})" if there else case.words("a machine that it does not tell")
    return "host", here == there, case.words("measured on this machine"), shown, Mistake.OTHER_HOST


def _after(case: _Case) -> Verdict:
    since = _shown(case.ground.since)
    expected = (
        case.words("begun after the prediction, {time}", time=since)
        if case.ground.predicted
        else case.words("begun after the lesson was, {time}", time=since)
    )
    actual = case.words("begun {time}", time=_shown(case.record.run.started_at))
    return (
        "order",
        not _before(case.record.run.started_at, case.ground.since),
        expected,
        actual,
        Mistake.PREDICTION_AFTER_RUN,
    )


def _ended(case: _Case) -> Verdict:
    status = case.record.run.status
    return "end-of-run", status is RunStatus.DONE, case.words("come to its end"), str(status), Mistake.UNFINISHED_RUN


def _targets(case: _Case) -> Verdict:
    """Each that was to be measured took part, or was skipped as its engine is not here; one at least was measured."""
    there = {one.target: one.outcome for one in case.record.targets}
    lacking = [name for name in case.ground.command.targets if name not in there]
    measured_ones = [name for name in case.ground.command.targets if there.get(name) is Outcome.OK]
    skipped = [name for name in case.ground.command.targets if there.get(name) is Outcome.SKIPPED]
    actual = ", ".join([*measured_ones, *(case.words("{target} (skipped)", target=name) for name in skipped)])
    expected = ", ".join(case.ground.command.targets)
    return (
        "targets",
        not lacking and bool(measured_ones),
        expected,
        actual or case.words("none"),
        Mistake.MISSING_TARGET,
    )


def _launches(case: _Case) -> Verdict:
    failed = [one.target for one in case.record.targets if one.outcome is Outcome.FAILED]
    failed = [name for name in failed if name in case.ground.command.targets]
    expected = case.words("no target given up after failed launches")
    return "launches", not failed, expected, ", ".join(failed) or case.words("none"), Mistake.FAILED_LAUNCHES


def _rounds(case: _Case) -> Verdict:
    least = case.ground.command.rounds
    n = {
        name: _measured_rounds(case.record, name) for name in case.ground.command.targets if measured(case.record, name)
    }
    fewest = min(n.values(), default=0)
    expected = case.words("{n} measured rounds at least", n=least)
    actual = ", ".join(f"{name} {count}" for name, count in n.items())
    return "rounds", fewest >= least, expected, actual, Mistake.TOO_FEW_ROUNDS


def _measured_rounds(record: RunRecord, target: str) -> int:
    return len({sample.iteration for sample in record.samples if sample.target == target and not sample.warmup})


def _warm_up(case: _Case) -> Verdict:
    least = case.ground.command.warmup
    warm = {launch.iteration for launch in case.record.launches if launch.warmup}
    warm |= {sample.iteration for sample in case.record.samples if sample.warmup}
    expected = case.words("{n} rounds of warm-up at least, left out of the figures", n=least)
    return "warm-up", len(warm) >= least, expected, str(len(warm)), Mistake.NO_WARM_UP


def _end(case: _Case) -> Verdict:
    """Ready is the first complete answer to a request, and not a port that takes connections."""
    spec: Mapping[str, Any] = case.record.run.parameters.get("spec") or {}
    ready = str(spec.get("ready", Ready.HTTP))
    tcp = ready == Ready.TCP or any(sample.dimensions.get("wait_method") == "tcp" for sample in case.record.samples)
    expected = case.words("until the first complete answer to a request")
    actual = case.words("until a connection stands (--ready tcp)") if tcp else expected
    return "ends", not tcp, expected, actual, Mistake.WRONG_END


def _terms(case: _Case) -> Verdict:
    parameters = case.record.run.parameters
    spec: Mapping[str, Any] = parameters.get("spec") or {}
    given: Mapping[str, Any] = parameters.get("scenario") or {}
    other = [
        f"-p {key}={given.get(key)}" for key, value in case.ground.command.parameters.items() if given.get(key) != value
    ]
    if spec.get("image", SERVICE_IMAGE) != SERVICE_IMAGE:
        other.append(f"--image {spec['image']}")
    if parameters.get("cold"):
        other.append("--cold")
    expected = case.words("the lab's own service, by: {command}", command=case.ground.command.text)
    return "terms", not other, expected, ", ".join(other) or case.ground.command.text, Mistake.UNEQUAL_TERMS


def _unedited(case: _Case) -> Verdict:
    found = next(faults(case.record), "")
    expected = case.words("raw values that agree with the instants and rounds they are from")
    return "unedited", not found, expected, found or case.words("they agree"), Mistake.EDITED


_JUDGES: Sequence[Callable[[_Case], Verdict]] = (
    *(_tool, _scenario, _host, _after, _ended, _targets, _launches, _rounds, _warm_up, _end, _terms, _unedited),
)


def _before(a: str, b: str) -> bool:
    """Whether instant `a`, told to the second, lies before `b`."""
    return _instant(a) + timedelta(seconds=1) <= _instant(b)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _shown(text: str) -> str:
    return f"{_instant(text):%Y-%m-%d %H:%M:%S} UTC"
