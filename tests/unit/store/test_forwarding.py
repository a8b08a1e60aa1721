"""Runs go to another store whole and once, and what could not go waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from store_promises import save

from lab.errors import BadInput, StoreError
from lab.store import database, schema
from lab.store.database import Store
from lab.store.forwarding import TRIES, Destination
from lab.store.record import RunStatus


@pytest.fixture
def local(tmp_path: Path, make_record: Any) -> Iterator[Store]:
    """A store with the runs a, b and c, of which c goes on."""
    with Store.open(str(tmp_path / "local.db"), is_alive=lambda _: True) as store:
        for day, run_id in enumerate("ab", start=1):
            save(store, make_record(run_id, n=2, started_at=f"2026-01-0{day}"))
        store.begin(make_record("c", n=0, status=RunStatus.RUNNING, ended_at=None).run, {})
        yield store


@pytest.fixture
def central(tmp_path: Path) -> Destination:
    return Destination(str(tmp_path / "central.db"))


def test_what_has_ended_goes_once_and_is_as_it_was(local: Store, central: Destination) -> None:
    done = central.send(local)
    assert (done.sent, done.known, done.left, done.refused) == (["a", "b"], [], [], [])
    with Store.open(central.shown) as there:
        for run_id in "ab":
            assert there.load(run_id).to_json() == local.load(run_id).to_json()
    done = central.send(local)
    assert not (done.sent or done.known or done.left or done.refused)
    again = Destination(f"sqlite:///{central.shown}")
    assert again.send(local).sent == [], "the same place by another name"


def test_what_is_said_of_a_run_later_follows_it(local: Store, central: Destination) -> None:
    central.send(local)
    local.accept("a", "good")
    local.note("b", "odd")
    assert central.send(local).known == ["a", "b"]
    assert central.send(local).known == []
    with Store.open(central.shown) as there:
        assert there.load("a").run.accepted_note == "good" and there.load("b").run.notes == local.load("b").run.notes


def test_only_what_is_queued_goes_after_a_run(local: Store, central: Destination) -> None:
    central.queue(local, "b")
    central.queue(local, "c")
    assert central.send(local, queued=True).sent == ["b"]
    local.note("b", "odd")
    assert central.send(local, queued=True).known == ["b"]
    local.finish("c", RunStatus.DONE, "2026-01-03")
    assert central.send(local, queued=True).sent == ["c"]


def test_what_the_other_store_has_otherwise_is_refused_and_the_rest_goes(
    local: Store, central: Destination, make_record: Any
) -> None:
    with Store.open(central.shown) as there:
        there.import_run(make_record("a", n=1))
    done = central.send(local)
    assert done.sent == ["b"] and done.left == []
    assert [run_id for run_id, _ in done.refused] == ["a"] and "other content" in done.refused[0][1]
    assert local.unsent(central.name) == ["a"], "it is told each time"


def test_a_store_that_is_away_is_asked_again_and_again_and_what_is_left_waits(local: Store, tmp_path: Path) -> None:
    folder = tmp_path / "mounted later"
    away = Destination(str(folder / "central.db"))
    waits: list[float] = []
    done = away.send(local, sleep=waits.append)
    assert done.left == ["a", "b"] and done.sent == [] and isinstance(done.problem, StoreError)
    assert len(waits) == TRIES - 1 and waits == sorted(waits)
    assert local.unsent(away.name) == ["a", "b"]
    done = away.send(local, sleep=lambda _: folder.mkdir(exist_ok=True))
    assert done.sent == ["a", "b"] and done.left == [] and done.problem is None


def test_a_store_is_not_forwarded_to_itself(local: Store, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "local.db")
    with pytest.raises(BadInput, match="is the store itself"):
        Destination(str(tmp_path / "link.db")).send(local)
    assert local.unsent("elsewhere") == ["a", "b"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://lab:hush-hush@127.0.0.1:1/x",
        "postgresql://127.0.0.1:1/x?user=lab&password=hush-hush",
        "postgresql://127.0.0.1:1/x?sslpassword=hush-hush",
        "postgresql://lab:hush-hush@127.0.0.1:port/x",
        "mysql://lab:hush-hush@127.0.0.1/x",
        "postgresql://lab:hush-hush@127.0.0.1:1/x?nonsense=1",
        "oops://lab:hush-hush",
    ],
)
def test_a_password_is_never_told(local: Store, url: str) -> None:
    try:
        destination = Destination(url)
    except BadInput as error:
        told = [str(error), error.details]
    else:
        done = destination.send(local, tries=1)
        assert done.problem is not None and done.left == ["a", "b"]
        told = [destination.shown, destination.name, str(done.problem), done.problem.details, repr(destination)]
    assert "hush-hush" not in " ".join(told)
    assert "127.0.0.1" in " ".join(told) or "://…' is not a store" in told[0]


def test_old_runs_go_by_host_and_scenario_and_some_never(
    tmp_path: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "now_iso", lambda: "2026-03-01T00:00:00+00:00")
    central = Destination(str(tmp_path / "central.db"))
    with Store.open(str(tmp_path / "local.db"), is_alive=lambda owner: owner != "dead") as store:
        for day in range(1, 10):
            for host in ("one", "other"):
                run_id = f"{host}-{day}"
                save(store, make_record(run_id, n=1, started_at=f"2026-01-0{day}", host_id=host, host_name=host))
        save(store, make_record("scale-1", n=1, scenario="scale", started_at="2026-01-01", host_id="one"))
        going = {"status": RunStatus.RUNNING, "ended_at": None, "started_at": "2025-01-01", "host_id": "one"}
        store.begin(make_record("alive", n=0, owner="living", **going).run, {})
        store.begin(make_record("killed", n=0, owner="dead", **going).run, {})
        store.accept("one-2", "step")
        central.queue(store, "one-3")
        before = [run.id for run in store.runs()]
        found = store.prune(4, dry_run=True)
        assert [run.id for run in store.runs()] == before
        assert [(group.host_id, group.scenario) for group in found] == [("one", "boot"), ("other", "boot")]
        one, other = found
        assert set(one.removed) == {"one-1", "one-4", "one-5", "killed"}
        assert (one.runs, one.accepted, one.going_on, one.not_forwarded) == (11, 1, 1, 1)
        assert list(other.removed) == [f"other-{day}" for day in (5, 4, 3, 2, 1)]
        assert store.prune(4) == found
        stay = {f"one-{day}" for day in (2, 3, 6, 7, 8, 9)} | {f"other-{day}" for day in (6, 7, 8, 9)}
        assert {run.id for run in store.runs()} == stay | {"scale-1", "alive"}
        assert len(store.load("one-2").samples) == len(make_record(n=1).samples)
        with store._reading() as connection:
            for table in ("lab_samples", "lab_launches", "lab_targets", "lab_rounds"):
                left = connection.execute(select(schema.metadata.tables[table].c.run_id)).scalars()
                assert set(left) <= stay | {"scale-1", "alive"}, "what belonged to a removed run is gone with it"
        central.send(store)
        assert [run_id for group in store.prune(4) for run_id in group.removed] == ["one-3"]


def test_hosts_are_listed_with_what_they_are(tmp_path: Path, make_record: Any) -> None:
    with Store.open(str(tmp_path / "local.db")) as store:
        for day, (host, name) in enumerate([("one", "old"), ("other", ""), ("one", "new")], start=1):
            run = make_record(f"r{day}", n=0, started_at=f"2026-01-0{day}", host_id=host, host_name=name).run
            store.begin(run, {"kernel": {"release": f"6.{day}"}})
        store.begin(make_record("x", n=0, origin="pyperf", started_at="2026-02-01").run, {})
        one, other = store.hosts()
        assert (one.id, one.names, one.runs, one.last_seen) == ("one", ["new", "old"], 2, "2026-01-03")
        assert one.facts == {"kernel": {"release": "6.3"}}
        assert (other.id, other.names, other.runs) == ("other", [], 1)


def test_a_run_that_is_interrupted_is_forwarded_as_that(tmp_path: Path, make_record: Any) -> None:
    central = Destination(str(tmp_path / "central.db"))
    with Store.open(str(tmp_path / "local.db"), is_alive=lambda _: False) as store:
        record = make_record("a", n=1)
        save(store, record)
        store.begin(replace(make_record("b", n=0).run, status=RunStatus.RUNNING, ended_at=None), {})
        assert central.send(store).sent == ["a", "b"]
    with Store.open(central.shown, is_alive=lambda _: True) as there:
        assert there.load("b").run.status is RunStatus.INTERRUPTED
