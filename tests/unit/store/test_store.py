"""The store keeps what was committed, whatever happens to the process, and says clearly what is wrong with a store."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.errors import BadInput, MeasurementError, StoreError
from lab.store import schema
from lab.store.database import Store
from lab.store.record import LaunchRecord, Outcome, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.timeline import Timeline


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


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "lab.db")
    import sqlalchemy

    server: str = request.getfixturevalue("postgresql")
    name = f"t{abs(hash(request.node.name)):x}"
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


def save(store: Store, record: RunRecord) -> None:
    store.begin(replace(record.run, order=()), record.host)
    for index, order in enumerate(record.run.order):
        store.add_round(record.run.id, index, order)
    for target in record.targets:
        store.set_target(record.run.id, target)
    for launch in record.launches:
        place = (launch.target, launch.iteration)
        store.add_launch(record.run.id, launch, [s for s in record.samples if (s.target, s.iteration) == place])
    store.finish(record.run.id, record.run.status, record.run.ended_at or "")


def test_gives_back_what_it_was_given(url: str, make_record: Any) -> None:
    record = make_record(n=2)
    with Store.open(url) as store:
        save(store, record)
    with Store.open(url) as store:
        assert store.load(record.run.id).to_json() == record.to_json()
        assert [run.id for run in store.runs()] == [record.run.id]
        assert [list(order) for order in store.runs()[0].order] == record.run.order


def test_lists_newest_first_and_finds_by_prefix(url: str, make_record: Any) -> None:
    with Store.open(url) as store:
        for day, run_id in enumerate(["ab1", "ab2", "cd"], start=1):
            started = f"2026-01-0{day}T00:00:00+00:00"
            store.begin(replace(make_record(run_id, n=0).run, started_at=started), {})
        assert [run.id for run in store.runs()] == ["cd", "ab2", "ab1"]
        assert [run.id for run in store.runs(limit=1)] == ["cd"]
        assert store.load("last").run.id == "cd"
        assert store.load("c").run.id == "cd"
        with pytest.raises(BadInput, match=r"2 runs begin with 'ab'.*ab2, ab1"):
            store.load("ab")
        with pytest.raises(BadInput, match=r"no run 'ab3'.*nearest are ab"):
            store.load("ab3")
        with pytest.raises(BadInput, match="no run ''"):
            store.load("")


def test_an_exact_id_is_not_ambiguous(url: str, make_record: Any) -> None:
    with Store.open(url) as store:
        for run_id in ("ab", "abc"):
            store.begin(make_record(run_id, n=0).run, {})
        assert store.load("ab").run.id == "ab"


def test_an_empty_store_says_so(url: str) -> None:
    with Store.open(url) as store, pytest.raises(BadInput, match="no runs yet"):
        store.load("last")


def test_a_running_run_of_a_dead_owner_is_interrupted(url: str, make_record: Any) -> None:
    alive: dict[str, bool | None] = {"dead": False, "living": True, "elsewhere": None}
    with Store.open(url, is_alive=alive.__getitem__) as store:
        for owner in alive:
            run = make_record(owner, n=0, status=RunStatus.RUNNING, ended_at=None, owner=owner).run
            store.begin(run, {})
        assert {run.id: run.status for run in store.runs()} == {
            "dead": RunStatus.INTERRUPTED,
            "living": RunStatus.RUNNING,
            "elsewhere": RunStatus.RUNNING,
        }
        assert store.load("dead").run.status is RunStatus.INTERRUPTED


def test_a_target_is_replaced_and_parameters_are_added(url: str, make_record: Any) -> None:
    with Store.open(url) as store:
        run = make_record("a", n=0).run
        store.begin(run, {})
        store.set_target("a", TargetRecord(target="docker", outcome=Outcome.OK))
        gone = TargetRecord(target="docker", outcome=Outcome.FAILED, reason="stopped", remedy="start it", info={"a": 1})
        store.set_target("a", gone)
        store.finish("a", RunStatus.DONE, "2026-01-01T11:00:00+00:00", {"stopped_by": "rounds"})
        record = store.load("a")
        assert list(record.targets) == [gone]
        assert record.run.parameters == {**run.parameters, "stopped_by": "rounds"}
        with pytest.raises(BadInput, match="no run 'b'"):
            store.finish("b", RunStatus.DONE, "")


def test_refuses_what_belongs_to_no_run_and_ids_taken(url: str, make_record: Any) -> None:
    sample = Sample(target="docker", metric="boot_s", value=1.0, unit="s", iteration=0)
    with Store.open(url) as store:
        with pytest.raises(StoreError, match="refused an entry"):
            store.add_samples("nobody", [sample])
        store.begin(make_record("a", n=0).run, {})
        with pytest.raises(StoreError, match="refused an entry"):
            store.begin(make_record("a", n=0).run, {})


def test_a_launch_and_its_samples_are_one(url: str, make_record: Any) -> None:
    launch = LaunchRecord(target="docker", iteration=0, warmup=False, outcome=Outcome.OK, timeline=Timeline())
    good = Sample(target="docker", metric="boot_s", value=1.0, unit="s", iteration=0)
    with Store.open(url) as store:
        store.begin(make_record("a", n=0).run, {})
        for value in (float("nan"), float("inf")):
            with pytest.raises(MeasurementError, match="no measured value"):
                store.add_launch("a", launch, [good, replace(good, value=value)])
        assert not store.load("a").launches
        assert not store.load("a").samples


def test_keeps_hostile_text(url: str, make_record: Any) -> None:
    logs = "a\0b\ud800 <script> '; DROP TABLE lab_runs; -- \N{SNOWMAN}"
    launch = LaunchRecord(
        target="docker",
        iteration=0,
        warmup=False,
        outcome=Outcome.FAILED,
        timeline=Timeline(),
        error=logs,
        logs=logs,
        facts={logs.replace("\0", ""): frozenset({"x", "y"}), "path": Path("/x")},
    )
    with Store.open(url) as store:
        store.begin(make_record("a", n=0).run, {"odd": "a\0b"})
        store.add_launch("a", launch)
        (kept,) = store.load("a").launches
        assert kept.logs == kept.error == logs.replace("\0", "\N{REPLACEMENT CHARACTER}").replace("\ud800", "?")
        assert list(kept.facts.values()) == [["x", "y"], "/x"]


def test_a_reader_sees_only_whole_launches_while_another_writes(url: str, make_record: Any) -> None:
    record = make_record(n=20)
    per_launch = {launch.target: 0 for launch in record.launches}
    for sample in record.samples:
        if sample.iteration == 0:
            per_launch[sample.target] += 1
    with Store.open(url) as store:
        store.begin(make_record(n=0).run, {})

        def write() -> None:
            with Store.open(url) as other:
                for launch in record.launches:
                    place = (launch.target, launch.iteration)
                    found = [s for s in record.samples if (s.target, s.iteration) == place]
                    other.add_launch(record.run.id, launch, found)

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            seen = store.load(record.run.id)
            assert len(seen.samples) == sum(per_launch[launch.target] for launch in seen.launches)
        writer.join()
        assert len(store.load(record.run.id).launches) == len(record.launches)


def test_many_processes_open_a_new_store_at_once(url: str) -> None:
    code = "import sys; from lab.store.database import Store; Store.open(sys.argv[1]).runs()"
    children = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(4)]
    assert [(child.communicate(timeout=60)[1], child.returncode) for child in children] == [(b"", 0)] * 4


_WRITER = """
import sys
from lab.store.record import LaunchRecord, Outcome, Run, RunStatus
from lab.store.sample import Sample
from lab.store.database import Store
from lab.timeline import Timeline

store = Store.open(sys.argv[1])
store.begin(Run(id="a", scenario="boot", started_at="2026", ended_at=None, status=RunStatus.RUNNING, owner="gone",
                lab_version="0"), {})
for i in range(100_000):
    launch = LaunchRecord(target="x", iteration=i, warmup=False, outcome=Outcome.OK, timeline=Timeline())
    sample = Sample(target="x", metric="boot_s", value=float(i), unit="s", iteration=i)
    store.add_launch("a", launch, [sample, sample])
    print(i, flush=True)
"""


def test_a_kill_loses_nothing_committed(url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_WRITER), url], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 50:
                break
        child.send_signal(signal.SIGKILL)
        announced = [50, *(int(line) for line in child.stdout if line.endswith("\n"))][-1]
    with Store.open(url) as store:
        record = store.load("a")
    assert record.run.status is RunStatus.INTERRUPTED
    kept = [launch.iteration for launch in record.launches]
    assert kept == list(range(len(kept)))
    assert len(kept) >= announced + 1
    assert [sample.iteration for sample in record.samples] == [i for i in kept for _ in range(2)]


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


def test_postgresql_says_what_is_wrong(postgresql: str) -> None:
    with pytest.raises(StoreError, match=r'does not .*database "nowhere" does not exist'):
        Store.open(postgresql.replace("/postgres?", "/nowhere?"))


def test_another_labs_tables_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(schema, "VERSION", 2)
        Store.open(url).close()
    with pytest.raises(StoreError, match=r"written by a newer lab .*update the lab"):
        Store.open(url)
    monkeypatch.setattr(schema, "VERSION", 3)
    with pytest.raises(StoreError, match="written by an older lab"):
        Store.open(url)


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
    monkeypatch.setattr(schema, "BUSY_TIMEOUT_S", 0.1)
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
