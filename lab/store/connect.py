"""How a database is opened for the store, how its transactions begin, and what its errors mean to a user."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from lab.errors import StoreError

BUSY_TIMEOUT_S = 10
"""How long a write waits for another process's; the lab's own transactions last milliseconds."""

_WAL_RETRY_S = 0.05


def address(url: str) -> URL:
    """The database that `url`, or a plain path, means. Raises StoreError for a kind that the lab does not know."""
    if "://" not in url:
        return URL.create("sqlite", database=str(Path(url).expanduser().absolute()))
    try:
        found = make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError for a port that is none
        # All that follows the scheme may be, or hold, a password.
        raise StoreError(f"'{url.partition('://')[0]}://…' is not a store", resolution=_KINDS) from error
    kind = found.drivername.partition("+")[0]
    if kind == "sqlite" and found.database:
        return URL.create("sqlite", database=str(Path(found.database).expanduser().absolute()))
    if kind in ("postgresql", "postgres"):
        return found.set(drivername="postgresql+psycopg")
    raise StoreError(f"'{shown(found)}' is not a kind of store that the lab knows", resolution=_KINDS)


def shown(where: URL) -> str:
    """How a database is told to others: a path, or a URL without its passwords, wherever in it they stand."""
    if where.get_backend_name() == "sqlite":
        return where.database or ""
    query = {key: "***" if "pass" in key.lower() else value for key, value in where.query.items()}
    return where.set(drivername=where.get_backend_name(), query=query).render_as_string(hide_password=True)


def place_of(where: URL) -> str:
    """Which database it is, whoever opens it and however."""
    if where.get_backend_name() == "sqlite":
        return str(Path(where.database or "").resolve())
    host, port = (told if isinstance(told := where.query.get(key, ""), str) else told[0] for key in ("host", "port"))
    return f"{where.get_backend_name()}://{where.host or host}:{where.port or port or 5432}/{where.database or ''}"


_KINDS = "give a path of a SQLite file, or postgresql://USER@HOST/DATABASE"


def connect(where: URL) -> Engine:
    """An engine for `where`; a SQLite file is made now, readable by its user only. Raises OSError, StoreError."""
    if where.get_backend_name() == "sqlite":
        _make_private_file(Path(where.database or ""))
        engine = create_engine(
            where, json_serializer=dump, connect_args={"timeout": BUSY_TIMEOUT_S, "isolation_level": None}
        )
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(where, json_serializer=dump, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except ModuleNotFoundError as error:
        raise StoreError(
            "the driver for PostgreSQL is not installed", resolution="pip install 'stratalab[postgres]'"
        ) from error


def snapshot(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction that reads one consistent state and never waits for a writer."""
    if engine.dialect.name == "sqlite":
        return engine.begin()
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True).begin()


def writer(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction that writes; committed when it is left without an exception, and undone otherwise."""
    return engine.execution_options(lab_writes=True).begin()


def explain(error: Exception, name: str) -> StoreError:
    """What a failure of the store `name` means, and what to do about it, in one line."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    said = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    if isinstance(cause, OSError):
        return StoreError(f"the store {name} cannot be opened: {cause.strerror}", resolution=_ELSEWHERE)
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorname", "")  # absent where the Python module itself complains
        for prefix, (what, remedy) in _SQLITE.items():
            if code.startswith(prefix):
                return StoreError(f"the store {name} {what}", details=str(error), resolution=remedy)
    elif isinstance(error, DBAPIError):
        state = getattr(cause, "sqlstate", None) or ""
        for prefix, (what, remedy) in _POSTGRESQL.items():
            if state.startswith(prefix):
                return StoreError(f"the store {name} {what}: {said}", details=str(error), resolution=remedy)
        if error.connection_invalidated or not state:
            return StoreError(f"the store {name} does not answer: {said}", details=str(error), resolution=_SERVER)
    what = "refused an entry" if isinstance(error, IntegrityError) else "failed"
    return StoreError(f"the store {name} {what}: {said}", details=str(error), resolution=_ELSEWHERE)


_ELSEWHERE = "see to the cause, or keep runs elsewhere with --store"
_SERVER = "check that the server runs and that --store names its host, port, user and database"
_NO_DATABASE = ("is not a database", "move the file away, or name another with --store")
_READ_ONLY = ("cannot be written", "give yourself write access to the file and its directory, or use --store")
_FULL = ("cannot grow: the disk is full", "free some space, or keep runs on another disk with --store")
_SQLITE = {
    "SQLITE_NOTADB": _NO_DATABASE,
    "SQLITE_CORRUPT": ("is damaged", "move the file away, or name another with --store"),
    "SQLITE_FULL": _FULL,
    "SQLITE_IOERR_SHMSIZE": _FULL,
    "SQLITE_IOERR": ("cannot be read or written (I/O error)", "see `dmesg` and `df`, or use --store"),
    "SQLITE_BUSY": (f"was locked for more than {BUSY_TIMEOUT_S} s", "end the process that holds it (`fuser FILE`)"),
    "SQLITE_LOCKED": ("is locked", "end the process that holds it (`fuser FILE`)"),
    "SQLITE_READONLY": _READ_ONLY,
    "SQLITE_PERM": _READ_ONLY,
    "SQLITE_CANTOPEN": ("cannot be opened", "check that its directory exists and is yours, or use --store"),
}
_POSTGRESQL = {  # postgresql.org/docs/current/errcodes-appendix.html
    "53100": _FULL,
    "42501": ("refuses access", "have its owner grant you CREATE on the schema, or use another database"),
    "28": ("refuses the login", _SERVER),
    "3D": ("does not exist", "createdb it, or name another with --store"),
    "08": ("does not answer", _SERVER),
}


def _make_private_file(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the database, which must therefore be right from the start."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def use_wal(engine: Engine) -> None:
    """The mode stays with the file. To change it SQLite needs the file for itself for a moment, and does not wait for
    that of its own accord when another process is at the same."""
    give_up = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        connection = engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode")
            if cursor.fetchone() != ("wal",):
                cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
        finally:
            connection.close()
        time.sleep(_WAL_RETRY_S)


def _set_up_sqlite(connection: Any, _record: object) -> None:
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its lock at once, where SQLite waits for its turn; one that began as a reader would fail."""
    writes = connection.get_execution_options().get("lab_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def dump(value: object) -> str:
    """JSON as the store keeps it. Raises ValueError for NaN and the infinite, which JSON has not."""
    return json.dumps(value, default=_plain, allow_nan=False)


def _plain(value: object) -> object:
    """JSON for what facts may hold beside JSON's own types."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be stored")
