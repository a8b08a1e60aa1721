"""Where runs are kept, as they happen: SQLite by default, PostgreSQL by URL for several machines and one store.

Each call that writes is one transaction and returns when it is committed. For SQLite that means write-ahead logging
with `synchronous=NORMAL`: a commit is in the kernel's page cache, so `kill -9` of the lab loses nothing that was
committed. Only a crash of the host itself can take the last commits back, without harm to the file
(sqlite.org/pragma.html#pragma_synchronous); `FULL` would also survive that, at the price of an fsync between any two
launches, which disturbs what is measured. Statistics are never stored (docs/method.md, rule 8).
"""

from __future__ import annotations

import difflib
import math
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Engine, Select, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from lab.errors import BadInput, MeasurementError, StoreError
from lab.host.facts import host_identity
from lab.host.ownership import Owner, owner_alive
from lab.store import connect, migration, transfer
from lab.store.digest import without_values
from lab.store.history import HistoricRun, read_history
from lab.store.hosts import Host, read_hosts
from lab.store.place import state_dir
from lab.store.record import LaunchRecord, Outcome, Run, RunRecord, RunStatus, TargetRecord, TimedRun
from lab.store.retention import Pruned, prunable, remove
from lab.store.rows import RUN_COLUMNS, launches_of, notes_of, run_of, run_row, samples_of, target_of, text_of
from lab.store.sample import Sample
from lab.store.schema import forwards, launches, notes, rounds, runs, samples, targets

LAST = "last"
"""Names the newest run, of this host where it has any, wherever a run's id is asked for."""

_NEAREST = 5
_TIMED_RUNS, _TIMED_ROUNDS = 20, 100
"""So many runs, and the first so many rounds of each, are looked through for how long the next run will take."""
_STATUS = {status.value: status for status in RunStatus}


class Store:
    """All runs of this user, or of a fleet. Safe to use from several threads and processes."""

    def __init__(
        self, engine: Engine, name: str, place: str, is_alive: Callable[[str], bool | None], host_id: str
    ) -> None:
        self._engine = engine
        self._name = name
        self.place = place
        self._is_alive = is_alive
        self._host_id = host_id

    @classmethod
    def open(
        cls,
        url: str | None = None,
        *,
        is_alive: Callable[[str], bool | None] | None = None,
        host_id: str | None = None,
    ) -> Store:
        """The store at `url`, made if it is not there yet: a path or `sqlite:///PATH`, or `postgresql://…`; without
        one, `lab.db` in the lab's state directory. `is_alive` tells of a run's owner whether it still lives (None:
        cannot be known from here); `host_id` is the host whose runs `last` prefers: this one. Raises StoreError.
        """
        address = connect.address(url if url is not None else str(state_dir() / "lab.db"))
        name = connect.shown(address)
        with _told(name):
            engine = connect.connect(address)
        try:
            with _told(name):
                migration.ensure(engine, name)
        except StoreError:
            engine.dispose()
            raise
        here = host_identity().id if host_id is None else host_id
        return cls(engine, name, connect.place_of(address), is_alive or _owner_is_alive, here)

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
        row = run_row(run, host)
        with self._writing() as connection:
            connection.execute(insert(runs), row)
            for index, order in enumerate(run.order):
                connection.execute(insert(rounds), {"run_id": run.id, "round": index, "visited": list(order)})

    def set_target(self, run_id: str, record: TargetRecord) -> None:
        """Enter what became of a target, in place of what was known of it. Raises StoreError."""
        values = {
            "outcome": record.outcome.value,
            "reason": text_of(record.reason),
            "remedy": text_of(record.remedy),
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
            "error": text_of(launch.error),
            "logs": text_of(launch.logs),
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
        with self._reading() as connection:
            found = connection.execute(_newest_first(*RUN_COLUMNS).limit(limit)).all()
            said = notes_of(connection, _newest_first(runs.c.id).limit(limit))
        return [run_of(row, self._status(row.status, row.owner), said.get(row.id, ())) for row in found]

    def load(self, wanted: str) -> RunRecord:
        """Everything of the run whose id is or begins with `wanted`, or of the newest for `last` (of this host, where
        it has any), as one consistent view even while it is written. Raises BadInput for an unknown or ambiguous id,
        StoreError.
        """
        with self._reading() as connection:
            return self._record(connection, self._resolve(connection, wanted))

    def history(
        self,
        scenario: str,
        *,
        host_id: str | None = None,
        since: str | None = None,
        last: int | None = None,
        origin: str = "",
        metrics: Collection[str] | None = None,
        but: Collection[str] = (),
    ) -> list[HistoricRun]:
        """The ended runs of `scenario`, the oldest first: the newest `last`, of the host `host_id`, begun at or after
        `since` (ISO 8601, UTC), of the lab's own or another `origin`, with only these `metrics`, where that is said,
        and without those that are named by `but`. Raises StoreError.
        """
        with self._reading() as connection:
            return read_history(
                connection,
                scenario,
                self._status,
                host_id=host_id,
                since=since,
                last=last,
                origin=origin,
                metrics=metrics,
                but=but,
            )

    def hosts(self) -> list[Host]:
        """The machines of the lab's own runs, the one seen last first. Raises StoreError."""
        with self._reading() as connection:
            return read_hosts(connection)

    def prune(self, keep: int, *, dry_run: bool = False) -> list[Pruned]:
        """Remove, of each host and scenario, the runs beyond the newest `keep`, but never one that was accepted, goes
        on, or waits to be forwarded; with `dry_run` only tell. Raises StoreError."""
        with self._reading() if dry_run else self._writing() as connection:
            found = prunable(connection, keep, self._status)
            if not dry_run:
                remove(connection, [run_id for group in found for run_id in group.removed])
        return found

    def accept(self, wanted: str, note: str = "") -> Run:
        """Mark a run as the new normal from now on, in place of what was said when it was accepted before. Raises
        BadInput for an unknown run, one that runs yet, or one that is not the lab's own; StoreError."""
        with self._writing() as connection:
            run = self._run(connection, wanted)
            if run.status is RunStatus.RUNNING:
                raise BadInput(f"run {run.id} has not ended", resolution="accept it once it has")
            if run.origin:
                raise BadInput(f"run {run.id} was measured by {run.origin}", resolution="accept one of the lab's own")
            said = {"accepted_at": now_iso(), "accepted_note": text_of(note)}
            connection.execute(update(runs).where(runs.c.id == run.id).values(said))
            return self._run(connection, run.id)

    def withdraw(self, wanted: str) -> Run:
        """Take back that a run was accepted. Raises BadInput for an unknown run or one that was not, StoreError."""
        with self._writing() as connection:
            run = self._run(connection, wanted)
            if run.accepted_at is None:
                raise BadInput(f"run {run.id} was not accepted", resolution="see `lab runs`")
            said = {"accepted_at": None, "accepted_note": ""}
            connection.execute(update(runs).where(runs.c.id == run.id).values(said))
            return self._run(connection, run.id)

    def note(self, wanted: str, text: str) -> Run:
        """Add a note to a run. Raises BadInput for an unknown run or an empty text; StoreError."""
        if not text.strip():
            raise BadInput("a note without a word says nothing", resolution="lab runs note RUN 'what was changed'")
        with self._writing() as connection:
            run = self._run(connection, wanted)
            connection.execute(insert(notes), {"run_id": run.id, "at": now_iso(), "text": text_of(text)})
            return self._run(connection, run.id)

    def import_run(self, record: RunRecord) -> bool:
        """Enter an ended run of another store or tool, whole or not at all; True where it was not there. Of one that is
        there with the same content only what was said of it later is added. Raises BadInput where the store has
        another run of that id; MeasurementError, StoreError.
        """
        try:
            return self._import(record)
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            return self._import(record)  # another process was at the same, and is done

    def _import(self, record: RunRecord) -> bool:
        with self._writing() as connection:
            known = connection.execute(select(runs.c.id).where(runs.c.id == record.run.id)).scalar() is not None
            if not known:
                transfer.enter(connection, record)
            elif not transfer.same(self._record(connection, record.run.id), record):
                raise BadInput(
                    f"the store has another run {record.run.id}, with other content",
                    resolution=f"compare it with what `lab export {record.run.id}` tells",
                )
            transfer.add_words(connection, record.run)
            return not known

    def _record(self, connection: Connection, run_id: str) -> RunRecord:
        row = connection.execute(select(*RUN_COLUMNS, runs.c.parameters, runs.c.host).where(runs.c.id == run_id)).one()
        order = select(rounds.c.visited).where(rounds.c.run_id == run_id).order_by(rounds.c.round)
        entered = select(targets).where(targets.c.run_id == run_id).order_by(targets.c.number)
        return RunRecord(
            run=run_of(
                row,
                self._status(row.status, row.owner),
                notes_of(connection, [run_id]).get(run_id, ()),
                parameters=without_values(row.parameters),
                order=[list(visited) for visited in connection.execute(order).scalars()],
            ),
            host=row.host,
            targets=[target_of(row) for row in connection.execute(entered)],
            samples=samples_of(connection, run_id),
            launches=launches_of(connection, run_id),
        )

    def _run(self, connection: Connection, wanted: str) -> Run:
        run_id = self._resolve(connection, wanted)
        row = connection.execute(select(*RUN_COLUMNS).where(runs.c.id == run_id)).one()
        said = notes_of(connection, [run_id]).get(run_id, ())
        return run_of(row, self._status(row.status, row.owner), said)

    def _resolve(self, connection: Connection, wanted: str) -> str:
        """The id that `wanted` means. Raises BadInput."""
        if wanted == LAST:
            here = (runs.c.host_id == self._host_id) & (runs.c.origin == "")
            newest = connection.execute(_newest_first(runs.c.id).where(here).limit(1)).scalar()
            newest = newest or connection.execute(_newest_first(runs.c.id).limit(1)).scalar()
            if newest is None:
                raise BadInput("the store has no runs yet", resolution="lab run boot")
            return str(newest)
        if connection.execute(select(runs.c.id).where(runs.c.id == wanted)).scalar() is not None:
            return wanted
        alike = _newest_first(runs.c.id).where(runs.c.id.startswith(wanted, autoescape=True))
        # Whatever its collation says of letters, an id is what was written.
        found = [run_id for run_id in connection.execute(alike).scalars() if wanted and run_id.startswith(wanted)]
        if len(found) == 1:
            return str(found[0])
        ids = [str(run_id) for run_id in connection.execute(_newest_first(runs.c.id)).scalars()]
        near = (found or difflib.get_close_matches(wanted, ids, n=_NEAREST) or ids)[:_NEAREST]
        what = f"{len(found)} runs begin with '{wanted}'" if found else f"the store has no run '{wanted}'"
        hint = f"the nearest are {', '.join(near)}; see `lab runs`" if near else "lab run boot"
        raise BadInput(what, resolution=hint)

    def set_sent(self, run_id: str, destination: str, sent: Run | None) -> None:
        """Note that a run has gone to another store, with what was said of it by then; None: that it is to go there,
        unless that is noted already. Raises StoreError."""
        row = {"run_id": run_id, "destination": destination, "sent": None if sent is None else transfer.words(sent)}
        same = (forwards.c.run_id == run_id) & (forwards.c.destination == destination)
        with self._writing() as connection:
            known = connection.execute(select(forwards.c.run_id).where(same)).scalar() is not None
            if not known:
                connection.execute(insert(forwards), row)
            elif sent is not None:
                connection.execute(update(forwards).where(same).values(row))

    def unsent(self, destination: str, *, queued: bool = False) -> list[str]:
        """The ended runs that have not gone to `destination` as they are told of now, the oldest first; where `queued`,
        only those of which it was noted that they are to. Raises StoreError."""
        there = (forwards.c.run_id == runs.c.id) & (forwards.c.destination == destination)
        query = select(*RUN_COLUMNS, forwards.c.destination, forwards.c.sent)
        query = query.join_from(runs, forwards, there, isouter=not queued)
        with self._reading() as connection:
            said = notes_of(connection, select(notes.c.run_id))
            rows = connection.execute(query.order_by(runs.c.started_at, runs.c.number)).all()
        told = [(run_of(row, self._status(row.status, row.owner), said.get(row.id, ())), row.sent) for row in rows]
        return [run.id for run, sent in told if run.status is not RunStatus.RUNNING and sent != transfer.words(run)]

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
        with _told(self._name), connect.snapshot(self._engine) as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _told(self._name), connect.writer(self._engine) as connection:
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
        raise connect.explain(error, name) from error


def _newest_first(*columns: Any) -> Select[Any]:
    return select(*columns).order_by(runs.c.started_at.desc(), runs.c.number.desc())


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


def now_iso() -> str:
    """The time in UTC by ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
