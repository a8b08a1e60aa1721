"""What a store promises of runs that have ended: they are accepted, noted, set side by side, and taken from others."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event
from store_promises import save

from lab.errors import BadInput, MeasurementError
from lab.store import database, rows, transfer
from lab.store.database import Store
from lab.store.history import SeriesKey
from lab.store.record import LaunchRecord, Outcome, RunStatus
from lab.store.sample import Sample
from lab.timeline import Timeline


@contextmanager
def statements_of(store: Store) -> Iterator[list[str]]:
    """What SQLAlchemy gives the database meanwhile."""
    told: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        told.append(statement)

    event.listen(store._engine, "before_cursor_execute", hear)
    try:
        yield told
    finally:
        event.remove(store._engine, "before_cursor_execute", hear)


class LaterPromises:
    """Subclass it as `Test…` with a fixture `url`: the address of an empty store, new for each test."""

    def test_last_is_of_this_host_where_it_has_a_run_of_its_own(self, url: str, make_record: Any) -> None:
        with Store.open(url, host_id="here") as store:
            made = (("a", "here", ""), ("b", "there", ""), ("c", "here", "hyperfine"))
            for day, (run_id, host_id, origin) in enumerate(made, start=1):
                fields = {"started_at": f"2026-01-0{day}", "host_id": host_id, "host_name": "x", "origin": origin}
                store.begin(make_record(run_id, n=0, **fields).run, {})
            assert store.load("last").run.id == "a"
            assert [(run.id, run.host_id, run.origin) for run in store.runs()] == list(reversed(made))
        with Store.open(url, host_id="elsewhere") as store:
            assert store.load("last").run.id == "c"

    def test_a_run_is_accepted_and_noted(self, url: str, make_record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        times = iter(f"2026-02-0{day}T00:00:00+00:00" for day in range(1, 9))
        monkeypatch.setattr(database, "now_iso", lambda: next(times))
        with Store.open(url, is_alive=lambda _: True) as store:
            store.begin(make_record("ab", n=0).run, {})
            store.begin(make_record("cd", n=0, status=RunStatus.RUNNING, ended_at=None).run, {})
            store.begin(make_record("ef", n=0, origin="pyperf").run, {})
            assert store.load("ab").run.accepted_at is None and store.load("ab").run.notes == ()
            store.accept("a")
            run = store.accept("a", "the new allocator\0")
            assert (run.accepted_at, run.accepted_note) == ("2026-02-02T00:00:00+00:00", "the new allocator\ufffd")
            store.note("a", "a disk was changed")
            run = store.note("a", "and back")
            assert run.notes == (
                ("2026-02-03T00:00:00+00:00", "a disk was changed"),
                ("2026-02-04T00:00:00+00:00", "and back"),
            )
            assert store.load("ab").run.notes == run.notes
            assert {one.id: (one.accepted_at, len(one.notes)) for one in store.runs()} == {
                "ab": (run.accepted_at, 2),
                "cd": (None, 0),
                "ef": (None, 0),
            }
            for wanted, message in {"c": "has not ended", "e": "measured by pyperf", "x": "no run 'x'"}.items():
                with pytest.raises(BadInput, match=message):
                    store.accept(wanted)
            with pytest.raises(BadInput, match="without a word"):
                store.note("a", " ")

    def test_a_history_has_the_newest_runs_the_oldest_first(self, url: str, make_record: Any) -> None:
        with Store.open(url, is_alive=lambda _: True) as store:
            for day in range(1, 7):
                host_id = "there" if day == 2 else "here"
                record = make_record(f"r{day}", n=2, seed=day, started_at=f"2026-01-0{day}", host_id=host_id)
                save(store, record)
            store.begin(make_record("x", n=0, started_at="2026-01-08", origin="hyperfine").run, {})
            going = {"status": RunStatus.RUNNING, "ended_at": None, "started_at": "2026-01-09"}
            store.begin(make_record("y", n=0, **going).run, {})
            bad = LaunchRecord(
                target="docker", iteration=9, warmup=False, outcome=Outcome.FAILED, timeline=Timeline(), error="no"
            )
            store.add_launch("r6", bad)
            store.add_launch("r6", replace(bad, warmup=True))
            store.note("r6", "odd")

            def ids(**asked: Any) -> list[str]:
                return [one.run.id for one in store.history("boot", **asked)]

            assert ids() == ["r1", "r2", "r3", "r4", "r5", "r6"]
            assert ids(last=2) == ["r5", "r6"] and ids(since="2026-01-04") == ["r4", "r5", "r6"]
            assert ids(host_id="there") == ["r2"] and ids(host_id="here", last=5) == ["r1", "r3", "r4", "r5", "r6"]
            assert ids(origin="hyperfine") == ["x"] and store.history("scale") == []
            [found] = store.history("boot", last=1)
            record = store.load("r6")
            assert found.run == replace(record.run, order=())
            assert found.host == record.host and found.targets == record.targets
            assert found.failures == {"docker": 1}
            series: dict[SeriesKey, list[float]] = {}
            for one in record.samples:
                if not one.warmup:
                    key = SeriesKey(one.target, one.metric, one.unit, tuple(one.dimensions.items()))
                    series.setdefault(key, []).append(one.value)
            assert {key: list(values) for key, values in found.series.items()} == series
            [found] = store.history("boot", last=1, metrics={"boot_s"})
            assert {key.metric for key in found.series} == {"boot_s"}

    def test_a_history_takes_as_many_queries_for_many_runs_as_for_one(self, url: str, make_record: Any) -> None:
        with Store.open(url) as store:
            for place in range(8):
                save(store, make_record(f"r{place}", n=1, started_at=f"2026-01-0{place + 1}"))
            with statements_of(store) as one:
                assert len(store.history("boot", last=1)) == 1
            with statements_of(store) as all_of_them:
                assert len(store.history("boot")) == 8
            assert len(one) == len(all_of_them) <= 7

    def test_what_is_imported_is_as_it_was_and_once(self, url: str, make_record: Any) -> None:
        record = make_record("ab", n=2, host_id="there", host_name="Lab 1", notes=(("2026-01-02", "odd"),))
        with Store.open(url) as store:
            assert store.import_run(record)
            assert json.dumps(store.load("ab").to_json()) == json.dumps(record.to_json())
            assert not store.import_run(record)
            later = replace(record.run, accepted_at="2026-01-03", accepted_note="good", notes=(("2026-01-04", "x"),))
            assert not store.import_run(replace(record, run=later))
            run = store.load("ab").run
            assert (run.accepted_at, run.accepted_note) == ("2026-01-03", "good")
            assert [text for _, text in run.notes] == ["odd", "x"]
            earlier = replace(record.run, accepted_at="2026-01-01", accepted_note="old")
            store.import_run(replace(record, run=earlier))
            assert store.load("ab").run.accepted_note == "good"
            for other in (
                replace(record, run=replace(record.run, lab_version="9")),
                replace(record, samples=record.samples[:-1]),
                replace(record, samples=[replace(record.samples[0], value=9.0), *record.samples[1:]]),
                replace(record, host={"cpu": None}),
            ):
                with pytest.raises(BadInput, match="another run ab, with other content"):
                    store.import_run(other)
            assert len(store.runs()) == 1

    def test_what_cannot_be_imported_leaves_nothing(self, url: str, make_record: Any) -> None:
        record = make_record("ab", n=2)
        nan = Sample(target="docker", metric="boot_s", value=math.nan, unit="s", iteration=0)
        with Store.open(url) as store:
            with pytest.raises(MeasurementError, match="no measured value"):
                store.import_run(replace(record, samples=[*record.samples, nan]))
            with pytest.raises(BadInput, match="has not ended"):
                store.import_run(replace(record, run=replace(record.run, status=RunStatus.RUNNING)))
            assert store.runs() == []

    def test_a_run_is_imported_by_two_at_once(self, url: str, make_record: Any) -> None:
        record = make_record("ab", n=20)
        new: list[bool] = []
        with Store.open(url) as store:
            start = threading.Barrier(4)

            def take() -> None:
                start.wait()
                new.append(store.import_run(record))

            threads = [threading.Thread(target=take) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(new) == [False, False, False, True]
            assert len(store.load("ab").samples) == len(record.samples)

    def test_a_long_run_is_imported_in_as_many_statements_as_a_short_one(
        self, url: str, make_record: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tables: list[str] = []

        def hear(connection: Any, table: Any, *given: Any) -> None:
            tables.append(table.name)
            rows.insert_many(connection, table, *given)

        monkeypatch.setattr(transfer, "insert_many", hear)
        with Store.open(url) as store:
            counts = []
            for run_id, n in (("ab", 1), ("cd", 30)):
                with statements_of(store) as told:
                    store.import_run(make_record(run_id, n=n))
                counts.append(len(told))
            assert counts[0] == counts[1] <= 5
            assert tables == ["lab_rounds", "lab_targets", "lab_launches", "lab_samples"] * 2
            assert len(store.load("cd").samples) > 30

    def test_runs_and_hosts_are_listed_in_as_many_queries_whatever_their_number(
        self, url: str, make_record: Any
    ) -> None:
        counts = []
        with Store.open(url) as store:
            for place in range(9):
                store.begin(make_record(f"r{place}", n=0, host_id=f"h{place}").run, {})
                store.note(f"r{place}", "odd")
                with statements_of(store) as told:
                    assert len(store.runs()) == len(store.hosts()) == len(store.unsent("x")) == place + 1
                counts.append(len(told))
        assert set(counts) == {counts[0]} and counts[0] <= 12  # with what opens and closes three transactions
