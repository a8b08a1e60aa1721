"""The tables of a store of version 1, as the labs up to 0.1 made them, and a run in them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    insert,
)

from lab.store.connect import address

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


def make_store_1(url: str, *owners: str) -> None:
    """A store of version 1 at `url` with a run of each owner, whose ids are `run-0`, `run-1`, …"""
    engine = create_engine(address(url))
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(insert(meta), {"key": "schema", "value": "1"})
        for place, owner in enumerate(owners):
            add_run_1(connection, f"run-{place}", owner)
    engine.dispose()


def add_run_1(connection: Connection, run_id: str, owner: str) -> None:
    """A run as a lab of version 1 enters it."""
    row: dict[str, Any] = {
        "id": run_id,
        "scenario": "boot",
        "started_at": "2026-01-01T10:00:00+00:00",
        "ended_at": "2026-01-01T10:05:00+00:00",
        "status": "done",
        "owner": owner,
        "lab_version": "0.1.0",
        "parameters": {"seed": 1},
        "host": {"cpu": {"model": "x"}},
    }
    connection.execute(insert(runs), row)
    connection.execute(insert(rounds), {"run_id": run_id, "round": 0, "visited": {"docker": 1.5}})
    target = {"target": "docker", "outcome": "ok", "reason": "", "remedy": "", "info": {}}
    connection.execute(insert(targets), {"run_id": run_id, **target})
    launch = {"target": "docker", "iteration": 0, "warmup": False, "outcome": "ok"}
    connection.execute(
        insert(launches), {"run_id": run_id, **launch, "marks": [], "error": "", "logs": "", "facts": {"pid": 1}}
    )
    sample = {"target": "docker", "metric": "boot_s", "value": 0.25, "unit": "s", "iteration": 0, "warmup": False}
    connection.execute(insert(samples), {"run_id": run_id, **sample, "dimensions": {"accel": "tcg"}})
