"""A PostgreSQL server of a test's own: its socket is in a directory of its own, and it listens on no address."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy


class Server:
    """One that can be stopped as if it had crashed, and started again with what it had committed."""

    def __init__(self, home: str, control: str, options: dict[str, Any]) -> None:
        self._home = home
        self._control = control
        self._options = options

    def start(self) -> None:
        settings = f"-c listen_addresses= -c unix_socket_directories={self._home} -c fsync=off"
        # Without a log file the server would keep this test's pipes open, and the wait for them would never end.
        self._run("-o", settings, "-l", f"{self._home}/log", "-w", "start")

    def stop(self) -> None:
        self._run("-m", "immediate", "-w", "stop")

    def url(self, database: str = "postgres", password: str = "") -> str:
        user = f"lab:{password}" if password else "lab"
        return f"postgresql+psycopg://{user}@/{database}?host={self._home}"

    def make_database(self, like: str) -> str:
        """The name of a new, empty one, made from any text."""
        name = f"t{zlib.crc32(like.encode()):x}"
        engine = sqlalchemy.create_engine(self.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return name

    def _run(self, *arguments: str) -> None:
        subprocess.run([self._control, "-D", f"{self._home}/data", *arguments], check=True, **self._options)


@contextmanager
def private_server() -> Iterator[Server]:
    """A running one; skips where PostgreSQL or its driver is not installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    initdb, control = shutil.which("initdb"), shutil.which("pg_ctl")
    if initdb is None or control is None:
        pytest.skip("PostgreSQL's initdb is not installed")
    # pytest's own directories are closed to other users, and the server refuses to run as root.
    with tempfile.TemporaryDirectory(prefix="lab-test-pg-") as home:
        as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            as_user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(home, "nobody", "nogroup")
        options = {"cwd": home, "timeout": 60, "stdin": subprocess.DEVNULL, **as_user}
        make = [initdb, "-D", f"{home}/data", "-U", "lab", "-A", "trust", "-N", "-E", "UTF8"]
        made = subprocess.run(make, check=False, capture_output=True, text=True, **options)
        assert made.returncode == 0, made.stderr
        server = Server(home, control, options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
