"""Whether a stored run can be what the lab measured: what an export that was edited by hand no longer agrees in.

A run says the same thing more than once: a boot's time is the difference of two of its marks, every round visited each
target, and all launches lie between the run's begin and its end. Who changes all of it alike is not found out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime

from lab.errors import MeasurementError
from lab.store.record import LaunchRecord, Outcome, RunRecord
from lab.store.sample import Sample
from lab.timeline import Phase

_SLACK_S = 2.0  # a run's begin and end are kept to the second
_LEAST_S = 1e-6
_OF_MARKS: Mapping[str, tuple[Phase, Phase]] = {
    "boot_s": (Phase.REQUESTED, Phase.READY),
    "login_s": (Phase.REQUESTED, Phase.LOGIN),
    "settled_s": (Phase.REQUESTED, Phase.SETTLED),
}


def faults(record: RunRecord) -> Iterator[str]:
    """What does not agree, each in a few words."""
    yield from _rounds(record)
    yield from _time(record)
    if record.run.scenario == "boot":
        yield from _boots(record)


def _rounds(record: RunRecord) -> Iterator[str]:
    """Of the targets that were measured to the end, every round that was visited has a launch or a failure."""
    visited = Counter(target for order in record.run.order for target in order)
    for target in record.targets:
        if target.outcome is not Outcome.OK:
            continue
        rounds = {sample.iteration for sample in record.samples if sample.target == target.target}
        rounds |= {launch.iteration for launch in record.launches if launch.target == target.target}
        if len(rounds) != visited[target.target] or rounds != set(range(len(rounds))):
            yield f"{target.target}: {visited[target.target]} rounds were visited, and {len(rounds)} are there"
    warm = {sample.iteration for sample in record.samples if sample.warmup}
    if both := warm & {sample.iteration for sample in record.samples if not sample.warmup}:
        yield f"round {min(both)} is both warm-up and measured"


def _time(record: RunRecord) -> Iterator[str]:
    if record.run.ended_at is None:
        return
    try:
        lasted_s = (_instant(record.run.ended_at) - _instant(record.run.started_at)).total_seconds()
    except ValueError:
        yield "its begin or end is no time"
        return
    spans = [_span(launch) for launch in record.launches]
    begun = [first for first, _ in spans if first is not None]
    ended = [last for _, last in spans if last is not None]
    if begun and ended and (max(ended) - min(begun)) / 1e9 > lasted_s + _SLACK_S:
        yield f"its launches span {(max(ended) - min(begun)) / 1e9:.0f} s, and it lasted {lasted_s:.0f} s"


def _boots(record: RunRecord) -> Iterator[str]:
    launches = {(launch.target, launch.iteration): launch for launch in record.launches}
    for sample in record.samples:
        phases = _phases(sample)
        if phases is None:
            continue
        launch = launches.get((sample.target, sample.iteration))
        if launch is None:
            yield f"{sample.target}, round {sample.iteration}: a {sample.metric} without a launch"
            return
        try:
            seconds = launch.timeline.duration_s(*phases)
        except MeasurementError:
            yield f"{sample.target}, round {sample.iteration}: a {sample.metric} without its two instants"
            return
        if not math.isclose(seconds, sample.value, rel_tol=1e-6, abs_tol=_LEAST_S):
            yield (
                f"{sample.target}, round {sample.iteration}: {sample.metric} is {sample.value:.6f} s, "
                f"and its instants are {seconds:.6f} s apart"
            )
            return


def _phases(sample: Sample) -> tuple[Phase, Phase] | None:
    """The two instants that a sample is the difference of; None for what is of something else."""
    if sample.metric == "phase_s":
        start, end = sample.dimensions.get("from", ""), sample.dimensions.get("to", "")
        known = {phase.value for phase in Phase}
        return (Phase(start), Phase(end)) if start in known and end in known else None
    return _OF_MARKS.get(sample.metric)


def _span(launch: LaunchRecord) -> tuple[int | None, int | None]:
    """The first and last instants on the host's clock."""
    marks = [mark.ns for mark in launch.timeline if mark.clock.value == "host"]
    return (min(marks), max(marks)) if marks else (None, None)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
