"""A store that is a file keeps its promises, is private, and says clearly what is wrong with it."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_promises import StorePromises, save
from store_promises_later import LaterPromises

from lab.errors import StoreError
from lab.store import connect
from lab.store.database import Store
from lab.store.record import RunRecord


class TestFile(StorePromises, LaterPromises):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return str(tmp_path / "lab.db")


def test_the_default_store_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    before = os.umask(0)
    try:
        with Store.open() as store:
            files = (tmp_path / "state/stratalab").iterdir()
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
            assert str(store) == str(tmp_path / "state/stratalab/lab.db")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state/stratalab").stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}
    assert set(modes) >= {"lab.db", "lab.db-wal"}


def test_what_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database\n" * 200)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE cookies (x)")
    for url, message in {
        str(text): "notes.txt is not a database",
        str(other): "is a database of something else",
        str(tmp_path): "Is a directory",
        str(tmp_path / "no/lab.db"): "No such file or directory",
        "mysql://root:secret@localhost/x": "mysql://root:\\*\\*\\*@localhost/x' is not a kind of store",
        "://": "is not a store",
        "sqlite://": "not a kind of store",
        "postgresql://lab@127.0.0.1:1/x": "does not answer.*check that the server runs",
    }.items():
        with pytest.raises(StoreError, match=message) as caught:
            Store.open(url)
        assert "\n" not in str(caught.value)
        assert caught.value.resolution
    assert text.read_text() == "not a database\n" * 200


def test_a_missing_postgresql_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"driver for PostgreSQL.*stratalab\[postgres\]"):
        Store.open("postgresql://127.0.0.1:1/x")


def test_a_file_without_permission_is_named(make_record: Any) -> None:
    code = textwrap.dedent("""
        import os, sys
        from lab.errors import StoreError
        from lab.store.database import Store
        if os.geteuid() == 0:  # whom no mode keeps out
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try: Store.open(sys.argv[1])
        except StoreError as error: print(error)
    """)
    with tempfile.TemporaryDirectory(prefix="lab-test-") as home:
        Path(home).chmod(0o755)
        path = Path(home) / "lab.db"
        with Store.open(str(path)) as store:
            store.begin(make_record("a", n=0).run, {})
        path.chmod(0o600 if os.geteuid() == 0 else 0)
        shown = subprocess.run(
            [sys.executable, "-c", code, path], capture_output=True, text=True, check=False, timeout=60
        )
    assert "Permission denied" in shown.stdout, shown.stderr


def test_a_lock_held_too_long_is_named(tmp_path: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "BUSY_TIMEOUT_S", 0.1)
    path = str(tmp_path / "lab.db")
    with Store.open(path) as store:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="was locked for more than"):
            store.begin(make_record("a", n=0).run, {})
        assert store.runs() == []  # reading goes on
        holder.close()


def fill(store: Store, record: RunRecord) -> None:
    store.begin(record.run, {})
    launch = replace(record.launches[0], logs="x" * 65536)
    for _ in range(1000):
        store.add_launch(record.run.id, launch, record.samples[:1])


def test_a_full_disk_is_named_and_what_was_kept_stays(tmp_path: Path, make_record: Any) -> None:
    record = make_record(n=1, ended_at=None)
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "lab-test", tmp_path],
            capture_output=True,
            check=False,
            timeout=30,
        ).returncode
    )
    try:
        with Store.open(str(tmp_path / "lab.db")) as store:
            if not mounted:
                from sqlalchemy import event

                store.close()
                event.listen(store._engine, "connect", lambda c, _: c.execute("PRAGMA max_page_count=300"))
            with pytest.raises(StoreError, match=r"cannot grow: the disk is full.*free some space"):
                fill(store, record)
            kept = store.load(record.run.id)
            assert len(kept.launches) == len(kept.samples) > 0
    finally:
        if mounted:
            subprocess.run(["umount", tmp_path], check=True, timeout=30)


def test_samples_of_one_kind_share_their_dimensions(tmp_path: Path, make_record: Callable[..., RunRecord]) -> None:
    record = make_record()
    with Store.open(str(tmp_path / "lab.db")) as store:
        save(store, record)
        again = store.load(record.run.id)
    assert list(again.samples) == list(record.samples)
    kinds = {(one.target, one.metric, tuple(one.dimensions.items())) for one in again.samples}
    assert len({id(one.dimensions) for one in again.samples}) == len(kinds)
    with pytest.raises(AttributeError):
        again.samples[0].value = 1.0  # type: ignore[misc]
