"""What every format is made of: stored runs, what was judged of each, and its totals with their names."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from lab.figures import series, stats
from lab.figures.compared import worse_side
from lab.figures.series import EXPLAINING, Series
from lab.store.record import Outcome, RunRecord, TargetRecord


class Standing(enum.StrEnum):
    """What was judged of a total or a target. `SUSPECT` was seen once and not yet again; `VOID` and `NOT_JUDGED` tell
    nothing for or against it."""

    PASSED = "passed"
    REGRESSION = "regression"
    SUSPECT = "suspect"
    FAILED = "failed"
    SKIPPED = "skipped"
    VOID = "void"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of a judgement: a target's total, or where `metric` is empty the target itself; `text` says why."""

    target: str
    standing: Standing
    metric: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A scenario as it is written for others: its run (None where there was none), a case for each of its totals, and
    what else a reader must know."""

    scenario: str
    record: RunRecord | None
    cases: Sequence[Case]
    notes: Sequence[str] = ()

    @property
    def totals(self) -> list[Total]:
        """The rows that answer the scenario's question, facts left out."""
        return _totals(self.record) if self.record is not None else []

    @property
    def lasted_s(self) -> float:
        """From the run's begin to its end; 0 for one that has not ended."""
        if self.record is None or self.record.run.ended_at is None:
            return 0.0
        run = self.record.run
        return (datetime.fromisoformat(str(run.ended_at)) - datetime.fromisoformat(run.started_at)).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """A row that answers the scenario's question, by a `name` that no other row of the run has."""

    name: str
    row: Series
    estimate: stats.Estimate
    smaller_is_better: bool


def told_of(record: RunRecord) -> Told:
    """A run by itself, which nobody judged: what was measured passed, what failed or was left out is told so."""
    return Told(scenario=record.run.scenario, record=record, cases=[*_of_totals(record), *of_targets(record)])


def of_targets(record: RunRecord) -> list[Case]:
    """A case for each target that was left out, failed, or was not measured."""
    measured = {sample.target for sample in record.samples if not sample.warmup}
    found = []
    for target in record.targets:
        if target.outcome is Outcome.SKIPPED:
            found.append(Case(target=series.label(target), standing=Standing.SKIPPED, text=_why(target)))
        elif target.outcome is Outcome.FAILED or target.target not in measured:
            found.append(Case(target=series.label(target), standing=Standing.FAILED, text=_why(target)))
    return found


def records(told: Sequence[Told]) -> list[RunRecord]:
    """The runs of those that ran."""
    return [one.record for one in told if one.record is not None]


def each_total(told: Sequence[Told]) -> Iterator[tuple[Told, str, Total]]:
    """Every total of every run, with a name that no other of them has: `boot/docker/boot_s`."""
    taken: dict[str, int] = {}
    for one in told:
        for total in one.totals:
            name = f"{one.scenario}/{total.name}"
            taken[name] = taken.get(name, 0) + 1
            yield one, name if taken[name] == 1 else f"{name} ({taken[name]})", total


def _totals(record: RunRecord) -> list[Total]:
    rows = [row for row in series.series_of(record) if row.metric not in EXPLAINING and not series.is_fact(row)]
    names = [f"{row.label}/{row.name}" for row in rows]
    return [
        Total(
            # Rows of one name differ in how they were waited for, which the name leaves out.
            name=name if names.count(name) == 1 else f"{name} {' '.join(map('='.join, row.dimensions.items()))}",
            row=row,
            estimate=stats.estimate(row.values),
            smaller_is_better=worse_side(row.metric, row.unit) > 0,
        )
        for name, row in zip(names, rows, strict=True)
    ]


def _of_totals(record: RunRecord) -> Iterator[Case]:
    for total in _totals(record):
        yield Case(target=total.row.label, metric=total.row.name, standing=Standing.PASSED)


def _why(target: TargetRecord) -> str:
    return ": ".join(filter(None, [str(target.outcome), target.reason])) if target.reason else "no complete launch"
