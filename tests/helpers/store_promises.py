"""What a store promises, of whatever kind it is: a test class of that kind says by its fixture `url` where one is."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_store_1 import add_run_1, make_store_1
from sqlalchemy import inspect

from lab.errors import BadInput, MeasurementError, StoreError
from lab.host.facts import host_id_of
from lab.host.ownership import Owner
from lab.store import migration, schema
from lab.store.database import Store
from lab.store.record import LaunchRecord, Outcome, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.timeline import Timeline


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


_WRITER = """
import sys
from lab.host.ownership import Owner
from lab.store.record import LaunchRecord, Outcome, Run, RunStatus
from lab.store.sample import Sample
from lab.host.ownership import Owner
from lab.store.database import Store
from lab.timeline import Timeline

store = Store.open(sys.argv[1])
store.begin(Run(id="a", scenario="boot", started_at="2026", ended_at=None, status=RunStatus.RUNNING,
                owner=str(Owner.current()),
                lab_version="0"), {})
for i in range(100_000):
    launch = LaunchRecord(target="x", iteration=i, warmup=False, outcome=Outcome.OK, timeline=Timeline())
    sample = Sample(target="x", metric="boot_s", value=float(i), unit="s", iteration=i)
    store.add_launch("a", launch, [sample, sample])
    print(i, flush=True)
"""


def tables_of(store: Store) -> dict[str, Any]:
    """The columns and indexes of each table, without the order in which they were made."""
    found = inspect(store._engine)
    return {
        name: (
            {column["name"]: (str(column["type"]), column["nullable"]) for column in found.get_columns(name)},
            sorted((str(index["name"]), index["column_names"], index["unique"]) for index in found.get_indexes(name)),
        )
        for name in found.get_table_names()
    }


class StorePromises:
    """Subclass it as `Test…` with a fixture `url`: the address of an empty store, new for each test."""

    def test_gives_back_what_it_was_given(self, url: str, make_record: Any) -> None:
        record = make_record(n=2)
        with Store.open(url) as store:
            save(store, record)
        with Store.open(url) as store:
            assert store.load(record.run.id).to_json() == record.to_json()
            assert [run.id for run in store.runs()] == [record.run.id]
            assert [list(order) for order in store.load(record.run.id).run.order] == record.run.order

    def test_tells_how_long_turns_took_here_newest_first_and_without_what_failed(
        self, url: str, make_record: Any
    ) -> None:
        info = {"qualifiers": {"accel": "tcg"}}
        with Store.open(url) as store:
            for run_id, owner in (("ab", "here:boot:1:1"), ("cd", "here:later:2:2"), ("ef", "here_:boot:1:1")):
                store.begin(replace(make_record(run_id, n=0).run, owner=owner, parameters={"memory": 1}), {})
                store.set_target(run_id, TargetRecord(target="docker", outcome=Outcome.OK, info=info))
                store.set_target(run_id, TargetRecord(target="oci", outcome=Outcome.FAILED))
                for place in range(3):
                    store.add_round(run_id, place, ["oci", "docker"])
                for place in range(2):  # the third was broken off
                    store.end_round(run_id, place, {"oci": 0.5, "docker": 1.25 + place})
            store.begin(
                replace(make_record("gh", n=2).run, owner="here:boot:1:1"), {}
            )  # without times: an earlier lab's
            [newest, oldest] = store.timed("boot", "here:")
            assert store.timed("boot", "here:later:") == [newest]
            assert newest.turns_s == oldest.turns_s == [{"oci": 0.5, "docker": 1.25}, {"oci": 0.5, "docker": 2.25}]
            assert newest.qualifiers == {"docker": {"accel": "tcg"}} and newest.parameters == {"memory": 1}
            assert store.timed("scale", "here:") == store.timed("boot", "elsewhere:") == []
            assert store.load("ab").run.order == [["oci", "docker"]] * 3

    def test_lists_newest_first_and_finds_by_prefix(self, url: str, make_record: Any) -> None:
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

    def test_an_exact_id_is_not_ambiguous(self, url: str, make_record: Any) -> None:
        with Store.open(url) as store:
            for run_id in ("ab", "abc"):
                store.begin(make_record(run_id, n=0).run, {})
            assert store.load("ab").run.id == "ab"

    def test_an_empty_store_says_so(self, url: str) -> None:
        with Store.open(url) as store, pytest.raises(BadInput, match="no runs yet"):
            store.load("last")

    def test_a_running_run_of_a_dead_owner_is_interrupted(self, url: str, make_record: Any) -> None:
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

    def test_by_default_a_run_of_an_earlier_boot_is_interrupted_and_one_out_of_sight_runs_on(
        self, url: str, make_record: Any
    ) -> None:
        own = Owner.current()
        owners = {
            "living": own,
            "dead": replace(own, start_ticks=1),
            "before": replace(own, boot="another"),
            "elsewhere": replace(own, machine="another"),
        }
        with Store.open(url) as store:
            for name, owner in owners.items():
                store.begin(make_record(name, n=0, status=RunStatus.RUNNING, ended_at=None, owner=str(owner)).run, {})
            assert {run.id for run in store.runs() if run.status is RunStatus.INTERRUPTED} == {"dead", "before"}

    def test_a_target_is_replaced_and_parameters_are_added(self, url: str, make_record: Any) -> None:
        with Store.open(url) as store:
            run = make_record("a", n=0).run
            store.begin(run, {})
            store.set_target("a", TargetRecord(target="docker", outcome=Outcome.OK))
            gone = TargetRecord(
                target="docker", outcome=Outcome.FAILED, reason="stopped", remedy="start it", info={"a": 1}
            )
            store.set_target("a", gone)
            store.finish("a", RunStatus.DONE, "2026-01-01T11:00:00+00:00", {"stopped_by": "rounds"})
            record = store.load("a")
            assert list(record.targets) == [gone]
            assert record.run.parameters == {**run.parameters, "stopped_by": "rounds"}
            with pytest.raises(BadInput, match="no run 'b'"):
                store.finish("b", RunStatus.DONE, "")

    def test_refuses_what_belongs_to_no_run_and_ids_taken(self, url: str, make_record: Any) -> None:
        sample = Sample(target="docker", metric="boot_s", value=1.0, unit="s", iteration=0)
        with Store.open(url) as store:
            with pytest.raises(StoreError, match="refused an entry"):
                store.add_samples("nobody", [sample])
            store.begin(make_record("a", n=0).run, {})
            with pytest.raises(StoreError, match="refused an entry"):
                store.begin(make_record("a", n=0).run, {})

    def test_a_launch_and_its_samples_are_one(self, url: str, make_record: Any) -> None:
        launch = LaunchRecord(target="docker", iteration=0, warmup=False, outcome=Outcome.OK, timeline=Timeline())
        good = Sample(target="docker", metric="boot_s", value=1.0, unit="s", iteration=0)
        with Store.open(url) as store:
            store.begin(make_record("a", n=0).run, {})
            for value in (float("nan"), float("inf")):
                with pytest.raises(MeasurementError, match="no measured value"):
                    store.add_launch("a", launch, [good, replace(good, value=value)])
            assert not store.load("a").launches
            assert not store.load("a").samples

    def test_keeps_hostile_text(self, url: str, make_record: Any) -> None:
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

    def test_a_reader_sees_only_whole_launches_while_another_writes(self, url: str, make_record: Any) -> None:
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

    def test_many_processes_open_a_new_store_at_once(self, url: str) -> None:
        code = "import sys; from lab.store.database import Store; Store.open(sys.argv[1]).runs()"
        children = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(4)]
        assert [(child.communicate(timeout=60)[1], child.returncode) for child in children] == [(b"", 0)] * 4

    def test_a_kill_loses_nothing_committed(self, url: str) -> None:
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

    def test_another_labs_tables_are_refused(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as newer:
            newer.setattr(schema, "VERSION", schema.VERSION + 1)
            Store.open(url).close()
        with pytest.raises(StoreError, match=r"written by a newer lab .*update the lab"):
            Store.open(url)
        monkeypatch.setattr(schema, "VERSION", schema.VERSION + 2)
        monkeypatch.setattr(migration, "_STEPS", {schema.VERSION: None})
        with pytest.raises(StoreError, match="written by an older lab"):
            Store.open(url)

    def test_the_tables_of_version_1_become_this_labs_and_nothing_is_lost(self, url: str) -> None:
        make_store_1(url, "one:boot:1:1", "other:boot:1:1", "unknown:boot:1:1", "no owner")
        with Store.open(url, host_id=host_id_of("one")) as store:
            hosts = {run.id: run.host_id for run in store.runs()}
            assert hosts == {"run-0": host_id_of("one"), "run-1": host_id_of("other"), "run-2": "", "run-3": ""}
            record = store.load("last")
            assert record.run.id == "run-0" and record.run.order == [["docker"]] and record.host["cpu"]["model"] == "x"
            assert [(sample.value, dict(sample.dimensions)) for sample in record.samples] == [(0.25, {"accel": "tcg"})]
            assert [launch.facts for launch in record.launches] == [{"pid": 1}]
            assert record.run.origin == record.run.accepted_note == "" and record.run.accepted_at is None
            store.accept("run-0", "the first")
            with store._writing() as connection:  # a lab of version 1 that had it open goes on
                add_run_1(connection, "later", "one:boot:1:1")
            assert store.load("later").run.host_id == "" and len(store.history("boot")) == 5
            migrated = tables_of(store)
            with store._writing() as connection:
                schema.metadata.drop_all(connection)
        with Store.open(url) as store:
            assert tables_of(store) == migrated

    def test_a_migration_that_fails_leaves_all_as_it_was(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        make_store_1(url, "one:boot:1:1")

        def fails(connection: Any) -> None:
            migration._from_1(connection)
            connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

        with monkeypatch.context() as broken:
            broken.setattr(migration, "_STEPS", {1: fails})
            with pytest.raises(StoreError, match=r"failed: .*nowhere"):
                Store.open(url)
        with Store.open(url) as store:
            assert [run.host_id for run in store.runs()] == [host_id_of("one")]

    def test_many_processes_migrate_a_store_at_once(self, url: str) -> None:
        make_store_1(url, "one:boot:1:1")
        code = "import sys; from lab.store.database import Store; print(Store.open(sys.argv[1]).runs()[0].id)"
        children = [
            subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(4)
        ]
        ended = [(*child.communicate(timeout=60), child.returncode) for child in children]
        assert ended == [(b"run-0\n", b"", 0)] * 4
