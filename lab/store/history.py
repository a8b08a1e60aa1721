"""The runs of a scenario as a history: what of each is needed to set its nights beside others', and no more."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Text, cast, func, select

from lab.store.digest import without_values
from lab.store.record import Outcome, Run, RunStatus, TargetRecord
from lab.store.rows import RUN_COLUMNS, notes_of, plainly, run_of, target_of
from lab.store.schema import launches, runs, samples, targets

_RUNS_AT_A_TIME = 500
"""So many ids go into one query; every database takes as many parameters."""


class SeriesKey(NamedTuple):
    """What tells one series of a run from the others; `dimensions` are sorted by name."""

    target: str
    metric: str
    unit: str
    dimensions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoricRun:
    """One ended run: `run` (without the order of its rounds), the facts of its host, its targets, the measured values
    (no warm-up) of each series in the order in which they were stored, and by target how many measured launches failed.
    """

    run: Run
    host: Mapping[str, Any]
    targets: Sequence[TargetRecord]
    series: Mapping[SeriesKey, array[float]]
    failures: Mapping[str, int]


def read_history(
    connection: Connection,
    scenario: str,
    status: Callable[[str, str], RunStatus],
    *,
    host_id: str | None,
    since: str | None,
    last: int | None,
    origin: str,
    metrics: Collection[str] | None,
    but: Collection[str],
) -> list[HistoricRun]:
    """See `Store.history`; `status` tells what a run's is, by the stored one and its owner. Five queries for each 500
    runs."""
    wanted = (runs.c.scenario == scenario) & (runs.c.origin == origin)
    if host_id is not None:
        wanted &= runs.c.host_id == host_id
    if since is not None:
        wanted &= runs.c.started_at >= since
    query = select(runs.c.id, runs.c.status, runs.c.owner).where(wanted)
    found: list[str] = []
    for run_id, stored, owner in plainly(connection, query.order_by(runs.c.started_at.desc(), runs.c.number.desc())):
        if last is not None and len(found) >= last:
            break
        if status(stored, owner) is not RunStatus.RUNNING:
            found.append(run_id)
    found.reverse()
    told = (found[start : start + _RUNS_AT_A_TIME] for start in range(0, len(found), _RUNS_AT_A_TIME))
    return [one for ids in told for one in _read(connection, ids, status, metrics, but)]


def _read(
    connection: Connection,
    ids: Sequence[str],
    status: Callable[[str, str], RunStatus],
    metrics: Collection[str] | None,
    but: Collection[str],
) -> Iterator[HistoricRun]:
    said = notes_of(connection, ids)
    entered: dict[str, list[TargetRecord]] = {run_id: [] for run_id in ids}
    for row in connection.execute(select(targets).where(targets.c.run_id.in_(ids)).order_by(targets.c.number)):
        entered[row.run_id].append(target_of(row))
    failures: dict[str, dict[str, int]] = {}
    bad = launches.c.run_id.in_(ids) & (launches.c.outcome == Outcome.FAILED.value) & launches.c.warmup.is_(False)
    counted = select(launches.c.run_id, launches.c.target, func.count()).where(bad)
    for run_id, target, count in connection.execute(counted.group_by(launches.c.run_id, launches.c.target)):
        failures.setdefault(run_id, {})[target] = count
    series = _series(connection, ids, metrics, but)
    about = {
        row.id: row
        for row in connection.execute(select(*RUN_COLUMNS, runs.c.parameters, runs.c.host).where(runs.c.id.in_(ids)))
    }
    for run_id in ids:
        row = about[run_id]
        yield HistoricRun(
            run=run_of(
                row,
                status(row.status, row.owner),
                said.get(run_id, ()),
                parameters=without_values(row.parameters),
            ),
            host=row.host,
            targets=entered[run_id],
            series=series.get(run_id, {}),
            failures=failures.get(run_id, {}),
        )


def _series(
    connection: Connection, ids: Sequence[str], metrics: Collection[str] | None, but: Collection[str]
) -> dict[str, dict[SeriesKey, array[float]]]:
    table = samples.c
    columns = (table.run_id, table.target, table.metric, table.unit, cast(table.dimensions, Text), table.value)
    query = select(*columns).where(table.run_id.in_(ids) & table.warmup.is_(False))
    if metrics is not None:
        query = query.where(table.metric.in_(metrics))
    if but:
        query = query.where(table.metric.not_in(but))
    found: dict[str, dict[SeriesKey, array[float]]] = {}
    dimensions: dict[str, tuple[tuple[str, str], ...]] = {}
    filling: dict[tuple[str, str, str, str, str], array[float]] = {}
    for run_id, target, metric, unit, text, value in plainly(connection, query.order_by(table.run_id, table.number)):
        values = filling.get((run_id, target, metric, unit, text))
        if values is None:
            if text not in dimensions:
                dimensions[text] = tuple(sorted(json.loads(text).items()))
            key = SeriesKey(target, metric, unit, dimensions[text])
            values = found.setdefault(run_id, {}).setdefault(key, array("d"))
            filling[run_id, target, metric, unit, text] = values
        values.append(value)
    return found
