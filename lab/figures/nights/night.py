"""One night: a run's values, each series brought to one figure, and the conditions that it was measured under."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.figures import series
from lab.figures.nights import robust
from lab.figures.nights.conditions import conditions_of
from lab.figures.series import COUNTED, EXPLAINING, IN_NO_ROW, Key, Series
from lab.store.history import HistoricRun
from lab.store.record import Outcome, Run, RunRecord, TargetRecord

CONFIRMS = "confirms"
"""The parameter of a run that is no night of its own: which run's suspicion it looks into."""
LEAST_VALUES = 3
"""Fewer values than this of a series make no figure of its night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A series of one night. `log` is the location of its values' logarithms, None where one is 0 or below, which has
    none; `error` is what chance makes of it, by the spread within the night: a standard error, of the logarithm."""

    target: str
    label: str
    metric: str
    name: str
    unit: str
    dimensions: Mapping[str, str]
    n: int
    log: float | None
    error: float
    can_alarm: bool

    @property
    def title(self) -> str:
        """The series for a reader: target and what is measured."""
        return f"{self.label} {self.name}"

    @property
    def value(self) -> float | None:
        """The figure in its unit."""
        return None if self.log is None else math.exp(self.log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """A run among others of its kind. `absent` tells, by target, why one that was asked for has no figure; `group` is
    what must be equal for two nights to be set beside each other, and `conditions` what may differ and is then told.
    """

    run: str
    at: str
    figures: Mapping[Key, Figure]
    accepted: bool = False
    conditions: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    group: Mapping[str, str] = field(default_factory=dict)


def night_of(record: RunRecord, *more: RunRecord) -> Night:
    """The night of a run; the values of `more`, its repetitions in the same hour, are taken together with its own."""
    values: dict[Key, list[float]] = {}
    rows: dict[Key, Series] = {}
    for one in (record, *more):
        for row in series.series_of(one):
            rows.setdefault(row.key, row)
            values.setdefault(row.key, []).extend(row.values)
    return make_night(record.run, record.host, record.targets, [(rows[key], taken) for key, taken in values.items()])


def nights_of(runs: Iterable[HistoricRun]) -> list[Night]:
    """The nights of stored runs, in their order; runs that only look into another's suspicion are none."""
    return [night_of_history(one) for one in runs if CONFIRMS not in one.run.parameters]


def night_of_history(one: HistoricRun) -> Night:
    """The night of a run as a history has it, which knows no rounds: a slope over them is not told."""
    known = {target.target: target for target in one.targets}
    rows = []
    for (target, metric, unit, dimensions), values in one.series.items():
        about = known.get(target)
        qualifiers = (about.info.get("qualifiers") or {}) if about else {}
        row = Series(
            target=target,
            label=series.label(about) if about else target,
            metric=metric,
            unit=unit,
            dimensions={key: value for key, value in dimensions if qualifiers.get(key) != value},
            values=(),
        )
        rows.append((row, values))
    return make_night(one.run, one.host, one.targets, rows)


def make_night(
    run: Run, host: Mapping[str, Any], targets: Sequence[TargetRecord], rows: Iterable[tuple[Series, Sequence[float]]]
) -> Night:
    """A night of what was measured in it; values that are not finite are left out."""
    figures = {row.key: found for row, values in rows if (found := figure_of(row, values)) is not None}
    measured = {figure.target for figure in figures.values()}
    group, conditions = conditions_of(run, host, targets)
    return Night(
        run=run.id,
        at=run.started_at,
        figures=figures,
        accepted=run.accepted_at is not None,
        conditions=conditions,
        absent={
            one.target: f"{one.outcome}: {one.reason}" if one.outcome is not Outcome.OK else "no complete launch"
            for one in targets
            if one.target not in measured
        },
        group=group,
    )


def figure_of(row: Series, values: Sequence[float]) -> Figure | None:
    """The series' figure of one night; None where it has too few values, or is in no row."""
    taken = [value for value in values if math.isfinite(value)]
    if len(taken) < LEAST_VALUES or row.metric in IN_NO_ROW:
        return None
    logs = [math.log(value) for value in taken] if min(taken) > 0 and row.metric not in COUNTED else None
    return Figure(
        target=row.target,
        label=row.label,
        metric=row.metric,
        name=row.name,
        unit=row.unit,
        dimensions=dict(row.dimensions),
        n=len(taken),
        log=None if logs is None else robust.location(logs),
        error=0.0 if logs is None else robust.spread(logs) / math.sqrt(len(logs)),
        can_alarm=row.metric not in EXPLAINING,
    )
