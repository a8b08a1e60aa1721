"""A store on PostgreSQL keeps the same promises as a file."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from store_promises import StorePromises
from store_promises_later import LaterPromises

from lab.errors import StoreError
from lab.store.database import Store


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A private PostgreSQL server's URL; its socket is in a directory of its own, and it listens on no address."""
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
        settings = f"-c listen_addresses= -c unix_socket_directories={home} -c fsync=off"
        # Without a log file the server would keep this test's pipes open, and the wait for them would never end.
        start = [control, "-D", f"{home}/data", "-o", settings, "-l", f"{home}/log", "-w", "start"]
        subprocess.run(start, check=True, **options)
        try:
            yield f"postgresql+psycopg://lab@/postgres?host={home}"
        finally:
            subprocess.run([control, "-D", f"{home}/data", "-m", "immediate", "-w", "stop"], check=True, **options)


class TestPostgresql(StorePromises, LaterPromises):
    @pytest.fixture
    def url(self, request: pytest.FixtureRequest, postgresql: str) -> str:
        import sqlalchemy

        name = f"t{abs(hash(request.node.name)):x}"
        engine = sqlalchemy.create_engine(postgresql, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return postgresql.replace("/postgres?", f"/{name}?")


def test_postgresql_says_what_is_wrong(postgresql: str) -> None:
    with pytest.raises(StoreError, match=r'does not .*database "nowhere" does not exist'):
        Store.open(postgresql.replace("/postgres?", "/nowhere?"))
