"""Two runs on one engine that have no lock in common: who waits, what is told, and what the run carries of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab.driver import Context, Instance
from lab.errors import LabError
from lab.host.ownership import Owner
from lab.run import company
from lab.run.company import Company, facts
from lab.store import place
from lab.testing import FakeDriver, FakeImage

LIVING = Owner.current()
DEAD = replace(LIVING, start_ticks=1)
UNSEEN = replace(LIVING, machine="elsewhere")


class Left:
    """An instance or an image of another run."""

    def __init__(self, owner: Owner, run: str) -> None:
        self.id = run
        self.labels = {"lab.run": run, "lab.owner": str(owner), "lab.launch": run}
        self.endpoint = None


class Engine(FakeDriver):
    """A fake one whose instances a test lays there; `then` is done after each listing."""

    def __init__(self, folder: Path) -> None:
        super().__init__("", Context(run_dir=folder, cache_dir=folder))
        self.running: list[Left] = []
        self.then: Callable[[], None] = lambda: None

    def list_instances(self, labels: object) -> list[Instance]:
        found = list(self.running)
        self.then()
        return found  # type: ignore[return-value]

    def prepared(self, owner: Owner, run: str) -> None:
        self.engine.images[run] = FakeImage(run, Left(owner, run).labels, self.engine)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    root = tmp_path / "runs"
    root.mkdir(mode=0o711)
    monkeypatch.setattr(place, "_runs_root", lambda: root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(company, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(company, "WATCH_S", 0.3)
    return Engine(tmp_path)


def alone(engine: Engine, *, wait: bool = True) -> tuple[Company, list[str]]:
    said: list[str] = []
    return Company([engine], "r5", wait=wait, on_wait=said.append), said


def test_who_is_alone_goes_on_and_carries_nothing(engine: Engine) -> None:
    engine.prepared(LIVING, "r5")  # its own
    engine.prepared(DEAD, "r1")
    engine.running.append(Left(DEAD, "r1"))
    place.make_run_dir("r7", Left(LIVING, "r7").labels)  # of a run that waits for the lock
    one, said = alone(engine)
    one.await_alone()
    one.await_turn()
    one.note()
    assert not said and not one.look() and facts(one) == {} == facts(None)


@pytest.mark.parametrize("owner", [LIVING, UNSEEN])
def test_a_run_that_is_there_is_waited_for_named_and_carried(engine: Engine, owner: Owner) -> None:
    looks = 0

    def gone_after_three() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            engine.running.clear()

    engine.running.append(Left(owner, "r7"))
    engine.then = gone_after_three
    one, said = alone(engine)
    one.await_alone()
    assert looks == 4 and len(said) == 1
    assert "run r7 (1 of its instances on fake" in said[0] and "lab clean --owner r7" in said[0]
    assert facts(one) == {"other_runs": {"waited_for": ["r7"]}}


@pytest.mark.parametrize("owner", [LIVING, UNSEEN])
def test_without_waiting_it_leaves_as_with_the_lock(engine: Engine, owner: Owner) -> None:
    engine.running.append(Left(owner, "r7"))
    one, said = alone(engine, wait=False)
    with pytest.raises(LabError, match="another lab run uses the same engine: run r7") as raised:
        one.await_alone()
    assert "--wait" in raised.value.resolution and "lab clean --owner r7" in raised.value.resolution and not said


def test_a_living_run_between_two_launches_is_there_by_what_it_prepared(engine: Engine) -> None:
    engine.prepared(LIVING, "r7")
    one, _ = alone(engine, wait=False)
    with pytest.raises(LabError, match="run r7"):
        one.await_alone()


def test_what_lies_still_of_an_owner_out_of_sight_is_watched_and_then_no_hindrance(engine: Engine) -> None:
    engine.prepared(UNSEEN, "r1")
    one, said = alone(engine, wait=False)
    one.await_alone()
    assert not said and [str(other) for other in one.look()] == [
        "run r1 (what it prepared on fake, its owner out of sight from here)"
    ]


def test_one_out_of_sight_that_launches_while_it_is_watched_is_seen(engine: Engine) -> None:
    looks = 0

    def launches_at_the_third() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            engine.running.append(Left(UNSEEN, "r1"))

    engine.prepared(UNSEEN, "r1")
    engine.then = launches_at_the_third
    one, _ = alone(engine, wait=False)
    with pytest.raises(LabError, match="run r1"):
        one.await_alone()


@pytest.mark.parametrize(("other", "waits"), [("r4", True), ("r6", False)])
def test_of_two_that_began_together_the_later_waits(engine: Engine, other: str, waits: bool) -> None:
    engine.prepared(LIVING, other)
    one, _ = alone(engine, wait=False)
    if waits:
        with pytest.raises(LabError, match=f"run {other}"):
            one.await_turn()
    else:
        one.await_turn()
        one.note()
        assert facts(one) == {"other_runs": {"beside": ["r6"]}}
