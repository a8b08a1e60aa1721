"""Rows of the tables as the records that they mean, and records as rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, Text, cast, select
from sqlalchemy.exc import DBAPIError

from lab.store.record import LaunchRecord, Outcome, Run, RunStatus, TargetRecord
from lab.store.sample import Sample, maker
from lab.store.schema import launches, notes, runs, samples
from lab.timeline import MarkRecord, Timeline

AT_A_TIME = 10_000
"""Rows that are taken from the database's driver in one call."""

RUN_COLUMNS = tuple(
    runs.c[name]
    for name in (
        *("id", "scenario", "started_at", "ended_at", "status", "owner", "lab_version"),
        *("host_id", "host_name", "origin", "accepted_at", "accepted_note"),
    )
)
"""What `run_of` needs of a run's row."""

_OUTCOMES = {outcome.value: outcome for outcome in Outcome}


def run_row(run: Run, host: Mapping[str, Any]) -> dict[str, Any]:
    """A run's own row, without what is said of it later."""
    return {
        "id": run.id,
        "scenario": run.scenario,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "status": run.status.value,
        "owner": run.owner,
        "lab_version": run.lab_version,
        "parameters": dict(run.parameters),
        "host": dict(host),
        "host_id": run.host_id,
        "host_name": run.host_name,
        "origin": run.origin,
    }


def run_of(row: Any, status: RunStatus, said: Sequence[tuple[str, str]] = (), **more: Any) -> Run:
    """The run of a row that has RUN_COLUMNS; `said` are its notes, and `more` its other fields."""
    return Run(
        id=row.id,
        scenario=row.scenario,
        started_at=row.started_at,
        ended_at=row.ended_at,
        status=status,
        owner=row.owner,
        lab_version=row.lab_version,
        host_id=row.host_id,
        host_name=row.host_name,
        origin=row.origin,
        accepted_at=row.accepted_at,
        accepted_note=row.accepted_note,
        notes=tuple(said),
        **more,
    )


def notes_of(connection: Connection, which: Any) -> dict[str, list[tuple[str, str]]]:
    """By run, the notes of the runs whose ids are in `which` (a query, or a list), the oldest first."""
    found: dict[str, list[tuple[str, str]]] = {}
    query = select(notes.c.run_id, notes.c.at, notes.c.text).where(notes.c.run_id.in_(which)).order_by(notes.c.number)
    for run_id, at, text in connection.execute(query):
        found.setdefault(run_id, []).append((at, text))
    return found


def target_of(row: Row[Any]) -> TargetRecord:
    """The target of its row."""
    return TargetRecord(
        target=row.target, outcome=Outcome(row.outcome), reason=row.reason, remedy=row.remedy, info=row.info
    )


def samples_of(connection: Connection, run_id: str) -> list[Sample]:
    """In the order in which they were stored. There may be 100,000 of some dozen kinds, so that what tells a kind is
    read once."""
    table = samples.c
    # JSON by its text, which tells a kind as well as what it says does.
    columns = (table.target, table.metric, table.unit, cast(table.dimensions, Text))
    query = select(*columns, table.value, table.iteration, table.warmup)
    makers: dict[tuple[str, str, str, str], Callable[[float, int, bool], Sample]] = {}
    found = []
    for target, metric, unit, dimensions, value, iteration, warmup in _of(connection, query, table, run_id):
        kind = (target, metric, unit, dimensions)
        make = makers.get(kind)
        if make is None:
            make = makers[kind] = maker(target, metric, unit, json.loads(dimensions))
        found.append(make(value, iteration, bool(warmup)))
    return found


def launches_of(connection: Connection, run_id: str) -> list[LaunchRecord]:
    """In the order in which they were stored; their marks are read when asked for."""
    table = launches.c
    told = (table.target, table.iteration, table.warmup, table.outcome, table.error, table.logs)
    rows = list(_of(connection, select(*told, cast(table.marks, Text), cast(table.facts, Text)), table, run_id))
    facts = json.loads(f"[{','.join(row[-1] for row in rows)}]")  # at once, in a quarter of the time of one by one
    return [
        LaunchRecord(
            target=target,
            iteration=iteration,
            warmup=bool(warmup),
            outcome=_OUTCOMES[outcome],
            timeline=Timeline.unread(_Marks(marks)),
            error=error,
            logs=logs,
            facts=loaded,
        )
        for (target, iteration, warmup, outcome, error, logs, marks, _), loaded in zip(rows, facts, strict=True)
    ]


def text_of(value: str) -> str:
    """What every database can hold: PostgreSQL's text has no NUL, and neither has lone surrogates."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def plainly(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    """The rows as the database's own driver has them, which for a long run is twice as fast; true is 1 in SQLite."""
    cursor: Any = connection.execute(query).cursor
    while rows := cursor.fetchmany(AT_A_TIME):
        yield from rows


def insert_many(connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert many rows in the transaction of `connection`, in one statement: PostgreSQL takes them by COPY, in a tenth
    of the time of INSERT. JSON is given as its text. Raises SQLAlchemy's errors."""
    driver: Any = connection.connection.driver_connection
    names = ", ".join(columns)
    try:
        if connection.dialect.name == "postgresql":
            statement = f"COPY {table.name} ({names}) FROM STDIN"
            with driver.cursor() as cursor, cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            places = ", ".join("?" * len(columns))
            statement = f"INSERT INTO {table.name} ({names}) VALUES ({places})"  # noqa: S608  the lab's own names
            driver.executemany(statement, rows)
    except connection.dialect.loaded_dbapi.Error as error:
        raise DBAPIError(
            statement, None, error, connection_invalidated=bool(getattr(driver, "closed", False))
        ) from error


def _of(connection: Connection, query: Select[Any], table: Any, run_id: str) -> Iterator[Any]:
    return plainly(connection, query.where(table.run_id == run_id).order_by(table.number))


@dataclass(frozen=True, slots=True)
class _Marks:
    """A launch's marks as they are stored."""

    text: str

    def __iter__(self) -> Iterator[MarkRecord]:
        return iter(Timeline.from_json(json.loads(self.text)))
