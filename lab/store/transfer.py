"""A whole run goes into a store at once, as it came out of another or of a file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, insert, select, update

from lab.errors import BadInput, MeasurementError
from lab.store.connect import dump
from lab.store.record import Run, RunRecord, RunStatus
from lab.store.rows import insert_many, run_row, text_of
from lab.store.schema import launches, notes, rounds, runs, samples, targets

_LATER_WORDS = ("accepted_at", "accepted_note", "notes")
"""What is said of a run once it has ended, and so does not tell it from its equal."""

_OF_A_LAUNCH = ("run_id", "target", "iteration", "warmup", "outcome", "marks", "error", "logs", "facts")
_OF_A_SAMPLE = ("run_id", "target", "metric", "value", "unit", "iteration", "warmup", "dimensions")


def enter(connection: Connection, record: RunRecord) -> None:
    """Insert all of a run that the store has not, but what was said of it later: in six statements, however long it
    is. Raises BadInput where it runs yet, MeasurementError for a value that is not finite."""
    run = record.run
    if run.status is RunStatus.RUNNING:
        raise BadInput(f"run {run.id} has not ended", resolution="take it once it has")
    connection.execute(insert(runs), run_row(run, record.host))
    visited = [(run.id, index, dump(list(order))) for index, order in enumerate(run.order)]
    insert_many(connection, rounds, ("run_id", "round", "visited"), visited)
    insert_many(
        connection,
        targets,
        ("run_id", "target", "outcome", "reason", "remedy", "info"),
        [
            (run.id, one.target, one.outcome.value, text_of(one.reason), text_of(one.remedy), dump(dict(one.info)))
            for one in record.targets
        ],
    )
    insert_many(connection, launches, _OF_A_LAUNCH, _launch_rows(record))
    insert_many(connection, samples, _OF_A_SAMPLE, _sample_rows(record))


def add_words(connection: Connection, run: Run) -> None:
    """Enter what was said of a run after it had ended, where the store does not have it: notes, and an acceptance that
    is later than the one there."""
    told = connection.execute(select(notes.c.at, notes.c.text).where(notes.c.run_id == run.id))
    there = {(at, text) for at, text in told}
    new = [{"run_id": run.id, "at": at, "text": text} for at, text in run.notes if (at, text) not in there]
    if new:
        connection.execute(insert(notes), new)
    if run.accepted_at is not None:
        known = connection.execute(select(runs.c.accepted_at).where(runs.c.id == run.id)).scalar_one()
        if known is None or known < run.accepted_at:
            said = {"accepted_at": run.accepted_at, "accepted_note": run.accepted_note}
            connection.execute(update(runs).where(runs.c.id == run.id).values(said))


def same(a: RunRecord, b: RunRecord) -> bool:
    """Whether two records are of one run with the same content, whatever was said of it later."""
    return (
        _head(a) == _head(b)
        and list(_launch_rows(a, _in_order)) == list(_launch_rows(b, _in_order))
        and list(_sample_rows(a)) == list(_sample_rows(b))
    )


def words(run: Run) -> str:
    """A text that is equal where the same has been said of a run."""
    return dump([run.accepted_at, run.accepted_note, [list(note) for note in run.notes]])


def _head(record: RunRecord) -> str:
    """All but launches and samples, in a text."""
    told = replace(record, samples=(), launches=()).to_json()
    for name in _LATER_WORDS:
        told["run"].pop(name)
    return _in_order(told)


def _in_order(value: object) -> str:
    return json.dumps(json.loads(dump(value)), sort_keys=True)


def _launch_rows(record: RunRecord, text: Callable[[object], str] = dump) -> Iterator[tuple[Any, ...]]:
    for one in record.launches:
        marks, facts = dump(one.timeline.to_json()), text(dict(one.facts))
        error, logs = text_of(one.error), text_of(one.logs)
        yield record.run.id, one.target, one.iteration, one.warmup, one.outcome.value, marks, error, logs, facts


def _sample_rows(record: RunRecord) -> Iterator[tuple[Any, ...]]:
    texts: dict[int, str] = {}  # most samples share their dimensions
    for one in record.samples:
        if not math.isfinite(one.value):
            raise MeasurementError(f"{one.metric} of {one.target} is {one.value}, which is no measured value")
        text = texts.get(id(one.dimensions))
        if text is None:
            text = texts[id(one.dimensions)] = dump(dict(one.dimensions))
        yield record.run.id, one.target, one.metric, one.value, one.unit, one.iteration, one.warmup, text
