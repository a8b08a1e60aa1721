"""A student's work on a lesson made up of whole cloth: the runs that its commands would store, and right answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lab.figures import stats
from lab.lesson.figures import over_control, row_of
from lab.lesson.lesson import Lesson, Row, Step
from lab.lesson.runs import accel_of
from lab.registry import make_scenario
from lab.store.record import LaunchRecord, Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.timeline import Clock, MarkRecord, Phase, Source, Timeline
from lab.units import RATIO

HOST = "host-of-the-student"
_MS = 1_000_000
_UNITS = {"_s": "s", "_bytes": "bytes", "slowdown_p99": RATIO}
_SCALE = {"process": 1.0, "docker": 15.0, "libvirt:microvm": 80.0, "socket": 1.0, "lambda": 200.0}


def rows_about(lesson: Lesson, running: Step) -> list[Row]:
    """The rows of a run that steps are about."""
    found = []
    for step in lesson.steps:
        if lesson.running(step).id == running.id:
            predict, answer = step.table.predict, step.table.answer
            found += [one.row for one in (predict, answer) if one is not None and one.row is not None]
    return found


def made_run(
    lesson: Lesson,
    step: Step,
    *,
    run_id: str = "",
    after_s: float = 5.0,
    host_id: str = HOST,
    rounds: int | None = None,
    warmup: int | None = None,
    without: Sequence[str] = (),
    skipped: Sequence[str] = (),
    accel: str = "tcg",
    seed: int = 1,
    **parameters: Any,
) -> RunRecord:
    """A run of the step's command, begun `after_s` from now, on `host_id`; `without` targets were not named, `skipped`
    ones not here. `parameters` are of the run's own."""
    command = step.command
    assert command is not None
    chance = random.Random(seed)
    n = command.rounds if rounds is None else rounds
    warm = command.warmup if warmup is None else warmup
    named = [name for name in command.targets if name not in without]
    targets = [name for name in named if name not in skipped]
    launches: list[LaunchRecord] = []
    samples: list[Sample] = []
    for iteration in range(warm + n):
        for target in targets:
            ms = 10 * _SCALE[target] * chance.lognormvariate(0, 0.2)
            launches.append(_launch(target, iteration, iteration < warm, ms))
            samples += _samples(rows_about(lesson, step), target, iteration, iteration < warm, ms, command.scenario)
    begun = datetime.now(UTC) + timedelta(seconds=after_s)
    scenario = make_scenario(command.scenario, command.given)
    fields = asdict(scenario) if is_dataclass(scenario) and not isinstance(scenario, type) else {}
    run = Run(
        id=run_id or f"20260101-{seed:04x}-{step.id}",
        scenario=command.scenario,
        started_at=begun.isoformat(timespec="seconds"),
        ended_at=(begun + timedelta(seconds=60)).isoformat(timespec="seconds"),
        status=RunStatus.DONE,
        owner="machine:boot:1:1",
        lab_version="0.1.0",
        parameters={
            "rounds": n,
            "warmup": warm,
            "scenario": fields,
            "spec": {"image": "stratalab/service"},
            **parameters,
        },
        order=[list(targets) for _ in range(warm + n)],
        host_id=host_id,
        host_name=f"name of {host_id}",
    )
    records = [_target(name, skipped, accel) for name in named]
    return RunRecord(run=run, host={"cpu": {"model": "Test CPU"}}, targets=records, samples=samples, launches=launches)


def right_answer(step: Step, record: RunRecord | None) -> str:
    """What passes."""
    answer = step.table.answer
    assert answer is not None
    if answer.kind == "choice":
        return ",".join(answer.correct)
    if answer.kind == "words":
        return " ".join(["word"] * answer.least)
    assert answer.row is not None and record is not None
    if answer.kind == "accel":
        return accel_of(record, answer.row.of[0]) or "none"
    row = row_of(record, answer.row)
    if row is None:
        return "1-2s"
    if answer.kind == "order":
        ratio = over_control(record, row)
        found = stats.estimate(row.values)
        low, high = (found.low, found.high) if row.unit == RATIO else (ratio.low, ratio.high) if ratio else (None, None)
        assert low is not None and high is not None
        return "more" if low > 1 else "less" if high < 1 else "unclear"
    ratio = over_control(record, row) if answer.row.over else None
    estimate = ratio or stats.estimate(row.values)
    unit = {"s": "s", "bytes": "B", RATIO: "x"}.get(RATIO if answer.row.over else row.unit, "")
    return f"{estimate.low:.4f}-{estimate.high:.4f}{unit}"


def _target(name: str, skipped: Sequence[str], accel: str) -> TargetRecord:
    if name in skipped:
        return TargetRecord(target=name, outcome=Outcome.SKIPPED, reason="the engine is not there", remedy="install it")
    qualifiers: Mapping[str, str] = {"accel": accel} if name.startswith("libvirt") else {}
    info = {"engine": "E", "version": "1", "isolation": "", "features": [], "facts": {}, "qualifiers": qualifiers}
    return TargetRecord(target=name, outcome=Outcome.OK, info=info)


def _launch(target: str, iteration: int, warmup: bool, ms: float) -> LaunchRecord:
    instants = {Phase.REQUESTED: 0.0, Phase.CREATED: ms / 10, Phase.STARTED: ms / 2, Phase.READY: ms}
    marks = [
        MarkRecord(phase=phase, ns=round(at * _MS), clock=Clock.HOST, source=Source.LAB)
        for phase, at in instants.items()
    ]
    return LaunchRecord(
        target=target, iteration=iteration, warmup=warmup, outcome=Outcome.OK, timeline=Timeline(marks), facts={}
    )


def _samples(rows: Sequence[Row], target: str, iteration: int, warmup: bool, ms: float, scenario: str) -> list[Sample]:
    kinds = {(row.metric, tuple(sorted(row.where.items()))) for row in rows}
    seconds = round(ms * _MS) / 1e9
    found = [
        Sample(
            target=target,
            metric=metric,
            value=seconds,
            unit=next((unit for ending, unit in _UNITS.items() if metric.endswith(ending)), ""),
            iteration=iteration,
            warmup=warmup,
            dimensions=dict(where),
        )
        for metric, where in sorted(kinds)
    ]
    if scenario == "boot":
        parts = (("requested", "created", 0.1), ("created", "started", 0.4))
        for start, end, share in parts:
            value = round(ms * (0.1 if end == "created" else 0.5) * _MS) / 1e9
            value -= 0.0 if start == "requested" else round(ms * 0.1 * _MS) / 1e9
            about = {"from": start, "to": end, "chain": "engine"}
            found.append(
                Sample(
                    target=target,
                    metric="phase_s",
                    value=value if share else 0.0,
                    unit="s",
                    iteration=iteration,
                    warmup=warmup,
                    dimensions=about,
                )
            )
    return found
