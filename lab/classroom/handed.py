"""What was handed in: runs, lessons, and what could not be read, whoever's it is and wherever it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.figures import density, series
from lab.figures.nights.conditions import conditions_of
from lab.figures.series import EXPLAINING, IN_NO_ROW, Series
from lab.lesson.record import Progress
from lab.store.record import Outcome, Run, RunRecord, RunStatus, TargetRecord

NOT_SHOWN = (EXPLAINING | IN_NO_ROW) - {density.LEVEL}
"""Metrics that a class is not shown: what explains a total, and what is no row's."""
COMPANY = "targets"
LESSON = "lesson"
_ACCEL = "accel"
_UNTOLD = "CPU not told"


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine by its fingerprint and name: clones of one disk have the same fingerprint. Where neither is told, each
    run is taken for one of a machine of its own, and `name` is the run's id."""

    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """One run: as an export or a class's store has it, or as a lesson's export tells of it.

    `source` is the file or the store; `owner` whose it is, where the files tell (""). `rows` are those that answer the
    scenario's question, the control's with them; `conditions` are what must be equal between two machines' points.
    """

    source: str
    owner: str
    run_id: str
    scenario: str
    started_at: str
    machine: Machine
    cpu: str
    conditions: Mapping[str, str]
    rows: Sequence[Series]
    unfinished: bool = False
    failed_launches: int = 0
    of_lesson: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One student's work on one lesson, and from where it was read."""

    source: str
    owner: str
    progress: Progress


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is not in the page, and why, in one line."""

    source: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Class:
    """All that was handed in and could be read, and what could not. `twice` are runs that are in `runs` as well, from
    another file; `changed` tells of figures that are not what their raw values, their signature or the same run in
    another file say."""

    runs: Sequence[Handed] = ()
    lessons: Sequence[Lesson] = ()
    left_out: Sequence[LeftOut] = ()
    twice: Sequence[Handed] = ()
    changed: Sequence[LeftOut] = ()


def handed(
    run: Run,
    host: Mapping[str, Any],
    targets: Sequence[TargetRecord],
    rows: Sequence[Series],
    *,
    source: str,
    owner: str = "",
    failed_launches: int = 0,
) -> Handed:
    """A stored or exported run as a class has it."""
    group, told = conditions_of(run, host, targets)
    conditions = {key: value for key, value in group.items() if key != "scenario"}
    if told.get("image"):
        conditions["image"] = told["image"]
    conditions[COMPANY] = ", ".join(sorted(_company(one) for one in targets if one.outcome is not Outcome.SKIPPED))
    return Handed(
        source=source,
        owner=owner,
        run_id=run.id,
        scenario=run.scenario,
        started_at=run.started_at,
        machine=machine_of(run.host_id, run.host_name, run.id),
        cpu=_cpu(host),
        conditions=conditions,
        rows=[row for row in rows if row.metric not in NOT_SHOWN and not series.is_fact(row)],
        unfinished=run.status is not RunStatus.DONE,
        failed_launches=failed_launches,
    )


def handed_of_record(record: RunRecord, *, source: str, owner: str = "") -> Handed:
    """A run with all its samples."""
    return handed(
        record.run,
        record.host,
        record.targets,
        series.series_of(record),
        source=source,
        owner=owner,
        failed_launches=len(series.all_failures(record)),
    )


def handed_of_lesson(lesson: Lesson) -> list[Handed]:
    """The runs that a lesson's export tells of: of each its figures, with their raw values."""
    progress = lesson.progress
    by_run: dict[str, list[Series]] = {}
    for figure in progress.figures:
        if figure.metric not in NOT_SHOWN and figure.host_id == progress.host.id:
            row = Series(
                target=figure.target,
                label=figure.label,
                metric=figure.metric,
                unit=figure.unit,
                dimensions=dict(figure.dimensions),
                values=tuple(figure.values),
            )
            by_run.setdefault(figure.run_id, []).append(row)
    return [
        Handed(
            source=lesson.source,
            owner=lesson.owner,
            run_id=run_id,
            scenario="",
            started_at=progress.updated_at,
            machine=machine_of(progress.host.id, progress.host.name, run_id),
            cpu=progress.host.cpu_model or _UNTOLD,
            conditions={
                LESSON: f"{progress.lesson}, {progress.lesson_digest[:8]}",
                COMPANY: ", ".join(sorted({row.label for row in rows})),
            },
            rows=rows,
            of_lesson=True,
        )
        for run_id, rows in by_run.items()
    ]


def machine_of(host_id: str, host_name: str, run_id: str) -> Machine:
    return Machine(host_id, host_name) if host_id or host_name else Machine("", run_id)


def _company(target: TargetRecord) -> str:
    """Emulated guests take another share of the machine than those under KVM do."""
    accel = (target.info.get("qualifiers") or {}).get(_ACCEL)
    return f"{target.target} ({accel})" if accel else target.target


def _cpu(host: Mapping[str, Any]) -> str:
    """The model, and whether the machine is itself a virtual one."""
    cpu, virtual = host.get("cpu"), host.get("virtualization")
    model = cpu.get("model") if isinstance(cpu, Mapping) else None
    name = " ".join(model.split()) if isinstance(model, str) and model.strip() else _UNTOLD
    inside = isinstance(virtual, Mapping) and bool(virtual.get("hypervisor"))
    return f"{name} (itself a virtual machine)" if inside else name
