"""The way from the tables of an earlier lab to this one's, and from none at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Connection, Engine, bindparam, insert, inspect, select, text, update
from sqlalchemy.schema import CreateColumn

from lab.errors import BadInput, StoreError
from lab.host.facts import host_id_of
from lab.host.ownership import Owner
from lab.store import schema
from lab.store.connect import snapshot, use_wal, writer
from lab.store.schema import forwards, meta, metadata, notes, runs

_ADVISORY_LOCK = 0x6C6162  # "lab": any fixed number serves, to let one process at a time make the tables


def ensure(engine: Engine, name: str) -> None:
    """Make the tables in an empty database, or those of an earlier lab into this one's, in one transaction; a lab that
    goes on writing meanwhile, with the tables that it knows, loses nothing. Raises StoreError where there are others.
    """
    if engine.dialect.name == "sqlite":
        use_wal(engine)
    with snapshot(engine) as connection:
        if _version(connection, name) == schema.VERSION:
            return
    with writer(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        found = _version(connection, name)  # again: another process may have been faster
        if found is None:
            metadata.create_all(connection, checkfirst=True)
            connection.execute(insert(meta), {"key": "schema", "value": str(schema.VERSION)})
            return
        for version in range(found, schema.VERSION):
            _STEPS[version](connection)
        connection.execute(update(meta).where(meta.c.key == "schema").values(value=str(schema.VERSION)))


def host_id_of_owner(owner: str) -> str:
    """The id of the host on which a run's `owner` was, as runs of earlier labs tell it; "" where they do not."""
    try:
        parsed = Owner.parse(owner)
    except BadInput:
        return ""
    return host_id_of(parsed.machine) if parsed.names_machine else ""


def _version(connection: Connection, name: str) -> int | None:
    """The version of the tables there; None for an empty database. Raises StoreError where there is no way from it."""
    tables = set(inspect(connection).get_table_names())
    if meta.name not in tables:
        if tables and connection.dialect.name == "sqlite":
            raise StoreError(f"{name} is a database of something else", resolution="name another with --store")
        return None
    found = int(connection.execute(select(meta.c.value).where(meta.c.key == "schema")).scalar_one())
    if found > schema.VERSION:
        raise StoreError(
            f"the store {name} was written by a newer lab (its tables are version {found}, this lab's "
            f"{schema.VERSION})",
            resolution="update the lab, or name another store with --store",
        )
    if found < min(_STEPS):
        raise StoreError(
            f"the store {name} was written by an older lab (its tables are version {found}, this lab's "
            f"{schema.VERSION})",
            resolution="export its runs with that lab, and name another store with --store",
        )
    return found


def _from_1(connection: Connection) -> None:
    """Hosts, origins, acceptance, notes and what was forwarded; the hosts of the runs there are known by their owners.

    Every new column has a default, so that a lab of version 1 which is in the middle of a run goes on writing it.
    """
    for name in ("host_id", "host_name", "origin", "accepted_at", "accepted_note"):
        column = CreateColumn(runs.c[name]).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {runs.name} ADD COLUMN {column}")
    for index in runs.indexes:
        index.create(connection)
    for table in (notes, forwards):
        table.create(connection)
    known = {owner: host_id_of_owner(owner) for owner in connection.execute(select(runs.c.owner).distinct()).scalars()}
    rows = [{"of": owner, "found": host} for owner, host in known.items() if host]
    if rows:
        by_owner = update(runs).where(runs.c.owner == bindparam("of")).values(host_id=bindparam("found"))
        connection.execute(by_owner, rows)


_STEPS: Mapping[int, Callable[[Connection], None]] = {1: _from_1}
"""By the version that each leaves; each tells of the tables as they are at the version that it leads to, or in words
of its own once a later one changes them."""
