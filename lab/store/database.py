"""Where runs are kept, as they happen: SQLite by default, PostgreSQL by URL for several machines and one store.

Each call that writes is one transaction and returns when it is committed. For SQLite that means write-ahead logging
with `synchronous=NORMAL`: a commit is in the kernel's page cache, so `kill -9` of the lab loses nothing that was
committed. Only a crash of the host itself can take the last commits back, without harm to the file
(sqlite.org/pragma.html#pragma_synchronous); `FULL` would also survive that, at the price of an fsync between any two
launches, which disturbs what is measured. Statistics are never stored (docs/method.md, rule 8).
"""

from __future__ import annotations

import difflib
import json
import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, Text, cast, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from lab.errors import BadInput, MeasurementError, StoreError
from lab.host.ownership import Owner, owner_alive
from lab.store import schema
from lab.store.digest import without_values
from lab.store.place import state_dir
from lab.store.record import LaunchRecord, Outcome, Run, RunRecord, RunStatus, TargetRecord, TimedRun
from lab.store.sample import Sample, maker
from lab.store.schema import launches, rounds, runs, samples, targets
from lab.timeline import MarkRecord, Timeline

LAST = "last"
"""Names the newest run, wherever a run's id is asked for."""

_NEAREST = 5
_AT_A_TIME = 10_000
"""Rows that are taken from the database's driver in one call."""
_TIMED_RUNS, _TIMED_ROUNDS = 20, 100
"""So many runs, and the first so many rounds of each, are looked through for how long the next run will take."""
_STATUS = {status.value: status for status in RunStatus}
_OUTCOMES = {outcome.value: outcome for outcome in Outcome}


class Store:
    """All runs of this user, or of a fleet. Safe to use from several threads and processes."""

    def __init__(self, engine: Engine, name: str, is_alive: Callable[[str], bool | None]) -> None:
        self._engine = engine
        self._name = name
        self._is_alive = is_alive

    @classmethod
    def open(cls, url: str | None = None, *, is_alive: Callable[[str], bool | None] | None = None) -> Store:
        """The store at `url`, made if it is not there yet: a path or `sqlite:///PATH`, or `postgresql://…`; without
        one, `lab.db` in the lab's state directory. `is_alive` tells of a run's owner whether it still lives (None:
        cannot be known from here). Raises StoreError.
        """
        address = schema.address(url if url is not None else str(state_dir() / "lab.db"))
        name = address.database or "" if address.get_backend_name() == "sqlite" else address.render_as_string()
        with _told(name):
            engine = schema.connect(address)
        try:
            with _told(name):
                schema.ensure(engine, name)
        except StoreError:
            engine.dispose()
            raise
        return cls(engine, name, is_alive or _owner_is_alive)

    def close(self) -> None:
        """Let go of all connections. Idempotent."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __str__(self) -> str:
        return self._name

    def begin(self, run: Run, host: Mapping[str, Any]) -> None:
        """Enter a new run with the facts of its host. Raises StoreError, also when the id is taken."""
        row = {
            "id": run.id,
            "scenario": run.scenario,
            "started_at": run.started_at,
            "ended_at": run.ended_at,
            "status": run.status.value,
            "owner": run.owner,
            "lab_version": run.lab_version,
            "parameters": dict(run.parameters),
            "host": dict(host),
        }
        with self._writing() as connection:
            connection.execute(insert(runs), row)
            for index, order in enumerate(run.order):
                connection.execute(insert(rounds), {"run_id": run.id, "round": index, "visited": list(order)})

    def set_target(self, run_id: str, record: TargetRecord) -> None:
        """Enter what became of a target, in place of what was known of it. Raises StoreError."""
        values = {
            "outcome": record.outcome.value,
            "reason": _text(record.reason),
            "remedy": _text(record.remedy),
            "info": dict(record.info),
        }
        known = (targets.c.run_id == run_id) & (targets.c.target == record.target)
        with self._writing() as connection:
            if connection.execute(update(targets).where(known).values(values)).rowcount == 0:
                connection.execute(insert(targets), {"run_id": run_id, "target": record.target, **values})

    def add_launch(self, run_id: str, launch: LaunchRecord, measured: Sequence[Sample] = ()) -> None:
        """Enter a launch and its samples, both or neither; returns when committed. Raises StoreError, and
        MeasurementError for a value that is not finite."""
        row = {
            "run_id": run_id,
            "target": launch.target,
            "iteration": launch.iteration,
            "warmup": launch.warmup,
            "outcome": launch.outcome.value,
            "marks": launch.timeline.to_json(),
            "error": _text(launch.error),
            "logs": _text(launch.logs),
            "facts": dict(launch.facts),
        }
        with self._writing() as connection:
            connection.execute(insert(launches), row)
            _insert_samples(connection, run_id, measured)

    def add_samples(self, run_id: str, measured: Sequence[Sample]) -> None:
        """Enter samples, all or none; returns when committed. Raises as `add_launch`."""
        with self._writing() as connection:
            _insert_samples(connection, run_id, measured)

    def add_round(self, run_id: str, index: int, order: Sequence[str]) -> None:
        """Enter the order in which round `index` visits the targets. Raises StoreError."""
        with self._writing() as connection:
            same = (rounds.c.run_id == run_id) & (rounds.c.round == index)
            connection.execute(delete(rounds).where(same))
            connection.execute(insert(rounds), {"run_id": run_id, "round": index, "visited": list(order)})

    def end_round(self, run_id: str, index: int, turns_s: Mapping[str, float]) -> None:
        """Enter how long each target's turn took in round `index`, in the order of their turns. Raises StoreError."""
        same = (rounds.c.run_id == run_id) & (rounds.c.round == index)
        with self._writing() as connection:
            connection.execute(update(rounds).where(same).values({"visited": dict(turns_s)}))

    def finish(
        self, run_id: str, status: RunStatus, ended_at: str, parameters: Mapping[str, Any] | None = None
    ) -> None:
        """Close a run; `parameters` are added to those it began with. Raises StoreError, BadInput for no such run."""
        with self._writing() as connection:
            known = connection.execute(select(runs.c.parameters).where(runs.c.id == run_id)).scalar_one_or_none()
            if known is None:
                raise BadInput(f"the store has no run '{run_id}'", resolution="see `lab runs`")
            values = {"status": status.value, "ended_at": ended_at, "parameters": {**known, **(parameters or {})}}
            connection.execute(update(runs).where(runs.c.id == run_id).values(values))

    def runs(self, limit: int | None = None) -> list[Run]:
        """The runs, newest first, `limit` of them at most, without their parameters and the order of their rounds,
        which `load` tells. Raises StoreError.
        """
        columns = [runs.c[name] for name in ("id", "scenario", "started_at", "ended_at", "status", "owner")]
        with self._reading() as connection:
            found = connection.execute(_newest_first(*columns, runs.c.lab_version).limit(limit)).all()
        return [
            Run(
                id=run_id,
                scenario=scenario,
                started_at=started_at,
                ended_at=ended_at,
                status=self._status(status, owner),
                owner=owner,
                lab_version=lab_version,
            )
            for run_id, scenario, started_at, ended_at, status, owner, lab_version in found
        ]

    def load(self, wanted: str) -> RunRecord:
        """Everything of the run whose id is or begins with `wanted`, or of the newest for `last`, as one consistent
        view even while it is written. Raises BadInput for an unknown or ambiguous id, StoreError.
        """
        with self._reading() as connection:
            run_id = _resolve(connection, wanted)
            row = connection.execute(select(runs).where(runs.c.id == run_id)).one()
            order = select(rounds.c.visited).where(rounds.c.run_id == run_id).order_by(rounds.c.round)
            return RunRecord(
                run=Run(
                    id=row.id,
                    scenario=row.scenario,
                    started_at=row.started_at,
                    ended_at=row.ended_at,
                    status=self._status(row.status, row.owner),
                    owner=row.owner,
                    lab_version=row.lab_version,
                    parameters=without_values(row.parameters),
                    order=[list(visited) for visited in connection.execute(order).scalars()],
                ),
                host=row.host,
                targets=[_target(row) for row in connection.execute(_of(targets, run_id))],
                samples=_samples(connection, run_id),
                launches=_launches(connection, run_id),
            )

    def timed(self, scenario: str, host: str) -> list[TimedRun]:
        """How long turns took in the newest runs of `scenario` whose owner begins with `host`, newest first, without
        those of targets that failed; runs of an earlier lab tell of none. Raises StoreError.
        """
        same = (runs.c.scenario == scenario) & runs.c.owner.startswith(host, autoescape=True)
        asked = select(runs.c.id, runs.c.parameters).where(same).order_by(runs.c.number.desc()).limit(_TIMED_RUNS)
        turns_s: dict[str, list[Mapping[str, float]]] = {}
        qualifiers: dict[str, dict[str, Mapping[str, str]]] = {}
        with self._reading() as connection:
            parameters = {row.id: row.parameters for row in connection.execute(asked)}
            first = rounds.c.run_id.in_(parameters) & (rounds.c.round < _TIMED_ROUNDS)
            query = select(rounds.c.run_id, rounds.c.visited).where(first).order_by(rounds.c.round)
            for run_id, visited in connection.execute(query):
                if isinstance(visited, Mapping):
                    turns_s.setdefault(run_id, []).append(visited)
            well = targets.c.run_id.in_(turns_s) & (targets.c.outcome == Outcome.OK.value)
            for run_id, target, info in connection.execute(
                select(targets.c.run_id, targets.c.target, targets.c.info).where(well)
            ):
                qualifiers.setdefault(run_id, {})[target] = info.get("qualifiers") or {}
        return [
            TimedRun(parameters=told, qualifiers=qualifiers[run_id], turns_s=turns_s[run_id])
            for run_id, told in parameters.items()
            if run_id in qualifiers
        ]

    def _status(self, stored: str, owner: str) -> RunStatus:
        """A run that nobody works on any more is interrupted; on a machine out of sight it may yet be running."""
        status = _STATUS[stored]
        if status is RunStatus.RUNNING and self._is_alive(owner) is False:
            return RunStatus.INTERRUPTED
        return status

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _told(self._name), schema.snapshot(self._engine) as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _told(self._name), schema.writer(self._engine) as connection:
            yield connection


def _owner_is_alive(owner: str) -> bool | None:
    """As `owner_alive`; here, where nothing is removed for it, one of an earlier boot is as good as dead."""
    alive = owner_alive({"lab.owner": owner})
    try:
        return False if alive is None and Owner.parse(owner).of_an_earlier_boot() else alive
    except BadInput:
        return None


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turns what the database or the file system says into one clear line."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise schema.explain(error, name) from error


def _newest_first(*columns: Any) -> Select[Any]:
    return select(*columns).order_by(runs.c.started_at.desc(), runs.c.number.desc())


def _of(table: Any, run_id: str) -> Select[Any]:
    return select(table).where(table.c.run_id == run_id).order_by(table.c.number)


def _resolve(connection: Connection, wanted: str) -> str:
    if wanted == LAST:
        newest = connection.execute(_newest_first(runs.c.id).limit(1)).scalar()
        if newest is None:
            raise BadInput("the store has no runs yet", resolution="lab run boot")
        return str(newest)
    ids = [str(run_id) for run_id in connection.execute(_newest_first(runs.c.id)).scalars()]
    found = [wanted] if wanted in ids else [run_id for run_id in ids if wanted and run_id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    near = (found or difflib.get_close_matches(wanted, ids, n=_NEAREST) or ids)[:_NEAREST]
    what = f"{len(found)} runs begin with '{wanted}'" if found else f"the store has no run '{wanted}'"
    hint = f"the nearest are {', '.join(near)}; see `lab runs`" if near else "lab run boot"
    raise BadInput(what, resolution=hint)


def _insert_samples(connection: Connection, run_id: str, measured: Sequence[Sample]) -> None:
    for sample in measured:
        if not math.isfinite(sample.value):
            raise MeasurementError(f"{sample.metric} of {sample.target} is {sample.value}, which is no measured value")
    rows = [
        {
            "run_id": run_id,
            "target": sample.target,
            "metric": sample.metric,
            "value": sample.value,
            "unit": sample.unit,
            "iteration": sample.iteration,
            "warmup": sample.warmup,
            "dimensions": dict(sample.dimensions),
        }
        for sample in measured
    ]
    if rows:
        connection.execute(insert(samples), rows)


def _text(value: str) -> str:
    """What every database can hold: PostgreSQL's text has no NUL, and neither has lone surrogates."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _target(row: Row[Any]) -> TargetRecord:
    return TargetRecord(
        target=row.target, outcome=Outcome(row.outcome), reason=row.reason, remedy=row.remedy, info=row.info
    )


def _samples(connection: Connection, run_id: str) -> list[Sample]:
    """In the order in which they were stored. There may be 100,000 of some dozen kinds, so that what tells a kind is
    read once."""
    table = samples.c
    # JSON by its text, which tells a kind as well as what it says does.
    columns = (table.target, table.metric, table.unit, cast(table.dimensions, Text))
    query = select(*columns, table.value, table.iteration, table.warmup)
    makers: dict[tuple[str, str, str, str], Callable[[float, int, bool], Sample]] = {}
    found = []
    for target, metric, unit, dimensions, value, iteration, warmup in _plainly(connection, query, table, run_id):
        kind = (target, metric, unit, dimensions)
        make = makers.get(kind)
        if make is None:
            make = makers[kind] = maker(target, metric, unit, json.loads(dimensions))
        found.append(make(value, iteration, bool(warmup)))
    return found


def _launches(connection: Connection, run_id: str) -> list[LaunchRecord]:
    """In the order in which they were stored; their marks are read when asked for."""
    table = launches.c
    told = (table.target, table.iteration, table.warmup, table.outcome, table.error, table.logs)
    rows = list(_plainly(connection, select(*told, cast(table.marks, Text), cast(table.facts, Text)), table, run_id))
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


def _plainly(connection: Connection, query: Select[Any], table: Any, run_id: str) -> Iterator[Any]:
    """The rows as the database's own driver has them, which for a long run is twice as fast; true is 1 in SQLite."""
    result = connection.execute(query.where(table.run_id == run_id).order_by(table.number))
    cursor: Any = result.cursor
    while rows := cursor.fetchmany(_AT_A_TIME):
        yield from rows


@dataclass(frozen=True, slots=True)
class _Marks:
    """A launch's marks as they are stored."""

    text: str

    def __iter__(self) -> Iterator[MarkRecord]:
        return iter(Timeline.from_json(json.loads(self.text)))
