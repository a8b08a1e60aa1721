"""The store's tables."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Double, ForeignKey, Index, Integer, MetaData, String, Table, Text

VERSION = 2
"""Of the tables below; counts up with every change to them, and `lab/store/migration.py` must know how to get there."""

metadata = MetaData()
meta = Table("lab_meta", metadata, Column("key", String, primary_key=True), Column("value", String, nullable=False))
runs = Table(
    "lab_runs",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("scenario", String, nullable=False),
    Column("started_at", String, nullable=False),
    Column("ended_at", String),
    Column("status", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("lab_version", String, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("host", JSON, nullable=False),
    Column("host_id", String, nullable=False, server_default=""),
    Column("host_name", String, nullable=False, server_default=""),
    Column("origin", String, nullable=False, server_default=""),
    Column("accepted_at", String),
    Column("accepted_note", Text, nullable=False, server_default=""),
    Index("lab_runs_by_start", "started_at", "number"),
    Index("lab_runs_of_host", "scenario", "host_id", "started_at"),
)


def _of_run() -> Column[str]:
    return Column("run_id", ForeignKey("lab_runs.id", ondelete="CASCADE"), nullable=False)


rounds = Table(
    "lab_rounds",
    metadata,
    Column("run_id", ForeignKey("lab_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("visited", JSON, nullable=False),  # the targets in order; once the round is over, each with its seconds
)
targets = Table(
    "lab_targets",
    metadata,
    Column("number", Integer, primary_key=True),
    _of_run(),
    Column("target", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    Column("info", JSON, nullable=False),
    Index("lab_targets_of_run", "run_id", "target", unique=True),
)
launches = Table(
    "lab_launches",
    metadata,
    Column("number", Integer, primary_key=True),
    _of_run(),
    Column("target", String, nullable=False),
    Column("iteration", Integer, nullable=False),
    Column("warmup", Boolean, nullable=False),
    Column("outcome", String, nullable=False),
    Column("marks", JSON, nullable=False),
    Column("error", Text, nullable=False),
    Column("logs", Text, nullable=False),
    Column("facts", JSON, nullable=False),
    Index("lab_launches_of_run", "run_id"),
)
samples = Table(
    "lab_samples",
    metadata,
    Column("number", Integer, primary_key=True),
    _of_run(),
    Column("target", String, nullable=False),
    Column("metric", String, nullable=False),
    Column("value", Double, nullable=False),
    Column("unit", String, nullable=False),
    Column("iteration", Integer, nullable=False),
    Column("warmup", Boolean, nullable=False),
    Column("dimensions", JSON, nullable=False),
    Index("lab_samples_of_run", "run_id"),
)
notes = Table(
    "lab_notes",
    metadata,
    Column("number", Integer, primary_key=True),
    _of_run(),
    Column("at", String, nullable=False),
    Column("text", Text, nullable=False),
    Index("lab_notes_of_run", "run_id"),
)
forwards = Table(  # what is to go to another store; once it has gone, what of acceptance and notes it went with
    "lab_forwards",
    metadata,
    Column("run_id", ForeignKey("lab_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("destination", String, primary_key=True),
    Column("sent", String),
)
