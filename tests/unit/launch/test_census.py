"""Who listens for replicas and is not able to any more says so: its silence is nobody's absence."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.driver import Context
from lab.launch.census import Census
from lab.launch.session import Session
from lab.launch.waiter import Answer
from lab.spec import Spec
from lab.testing import FakeDriver, WaitingClock


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    driver = FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path))
    driver.engine.clock = WaitingClock()
    spec = Spec(labels={"lab.run": "r"}).for_launch()
    with Session(driver, driver.info(), spec, driver.engine.clock) as made:
        made.launch()
        yield made


@pytest.fixture
def census(session: Session) -> Census:
    assert session.instance is not None
    return Census(session.instance, session.spec, WaitingClock(), known=frozenset())


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set at the first answer, in the middle of which the one that listens fails."""
    event = threading.Event()

    def identity(_: Answer | None) -> str:
        event.set()
        raise ZeroDivisionError("the listener's own defect")

    monkeypatch.setattr("lab.launch.census.identity", identity)
    return event


def test_a_look_ends_with_the_failure_of_who_listens_and_not_with_never(census: Census, heard: threading.Event) -> None:
    with pytest.raises(ZeroDivisionError), census:
        recovered = census.look(lambda: bool(census.first_ns), timeout_s=5)
        raise AssertionError(f"a dead listener told {recovered}")


def test_leaving_tells_a_failure_that_no_look_has_told(census: Census, heard: threading.Event) -> None:
    with pytest.raises(ZeroDivisionError), census:
        assert heard.wait(10)


def test_an_error_on_its_way_out_is_the_one_told(census: Census, heard: threading.Event) -> None:
    with pytest.raises(LookupError), census:
        assert heard.wait(10)
        raise LookupError


def test_silence_that_was_listened_to_is_told(census: Census, session: Session) -> None:
    session.stop()
    with census:
        assert not census.look(lambda: bool(census.first_ns), timeout_s=0.3)
