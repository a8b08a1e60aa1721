"""What a run tells another program, and that the telling costs it nothing."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lab.errors import BadInput
from lab.run import events
from lab.run.estimate import Span
from lab.run.events import Events, telling
from lab.store.record import LaunchRecord, Outcome
from lab.store.sample import Sample
from lab.timeline import Clock, MarkRecord, Phase, Source, Timeline


def mark(phase: Phase, ns: int, source: Source = Source.LAB, clock: Clock = Clock.HOST) -> MarkRecord:
    return MarkRecord(phase=phase, ns=ns, clock=clock, source=source)


def committed(timeline: Timeline, samples: int) -> tuple[LaunchRecord, list[Sample]]:
    launch = LaunchRecord(target="docker", iteration=1, warmup=False, outcome=Outcome.OK, timeline=timeline)
    sample = Sample(target="docker", metric="boot_s", value=0.25, unit="s", iteration=1, warmup=False, dimensions={})
    return launch, [sample] * samples


def told_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_launch_is_told_with_its_marks_counted_from_its_own_request(tmp_path: Path) -> None:
    path, timeline = tmp_path / "events", Timeline()
    with telling(str(path)) as told:
        assert told is not None
        told.launching("docker", 1, False)
        told.on_launch("docker", 1, False, timeline)
        timeline.add(mark(Phase.REQUESTED, 5_000))
        timeline.add(mark(Phase.CREATED, 9_000, Source.EVENT))
        timeline.add(mark(Phase.CREATED, 9_500, Source.EVENT))  # an instant happens once
        timeline.add(mark(Phase.MAIN, 77, Source.SERVICE, Clock.GUEST))
        told.committed(*committed(timeline, events.MOST_SAMPLES + 3))
        told.turned(Span(1.0, 2.0))
    turn, launch, *marks, done, left = told_of(path)
    assert (turn["event"], turn["target"], turn["iteration"]) == ("turn", "docker", 1)
    assert launch["launch"] == done["launch"] == marks[0]["launch"] == 1
    assert [(one["phase"], one["ns"], one["clock"]) for one in marks] == [
        ("requested", 0, "host"),
        ("created", 4_000, "host"),
        ("main", 77, "guest"),
    ]
    assert (len(done["samples"]), done["samples_left_out"]) == (events.MOST_SAMPLES, 3)
    assert left["left_s"] == [1.0, 2.0]
    assert turn["at_s"] <= done["at_s"]


def test_a_mark_is_told_while_its_launch_goes_on(tmp_path: Path) -> None:
    path, timeline = tmp_path / "events", Timeline()
    with telling(str(path)) as told:
        assert told is not None
        told.on_launch("docker", 0, True, timeline)
        timeline.add(mark(Phase.REQUESTED, 1))
        until = time.monotonic() + 30
        while not (path.exists() and '"mark"' in path.read_text()):
            assert time.monotonic() < until
            time.sleep(0.01)


def test_the_thread_that_makes_a_mark_neither_writes_nor_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reader does: here it never reads, and every write is another thread's."""
    reads, writes = os.pipe()
    writers: set[int] = set()
    write = os.write
    monkeypatch.setattr(events.os, "write", lambda *told: (writers.add(threading.get_ident()), write(*told))[1])
    monkeypatch.setattr(events, "_LAST_WORDS_S", 0.1)
    told = Events(writes)
    timeline = Timeline()
    told.on_launch("docker", 0, True, timeline)
    for number in range(20_000):  # more than a pipe holds
        timeline._marks.clear()
        timeline.add(mark(Phase.MAIN, number))
    time.sleep(3 * events.TELL_EVERY_S)
    told.close()
    assert writers and threading.get_ident() not in writers
    os.close(reads)


def test_what_a_reader_does_not_take_is_dropped_beyond_a_limit_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_MOST_WAITING", 200_000)
    reads, writes = os.pipe()
    told = Events(writes)
    for number in range(5_000):
        told.say("problem", text=f"{number:050}")
    time.sleep(3 * events.TELL_EVERY_S)
    found: list[dict[str, Any]] = []

    def read() -> None:
        with os.fdopen(reads) as lines:
            found.extend(json.loads(line) for line in lines)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(3 * events.TELL_EVERY_S)
    told.say("last")
    told.close()
    reader.join(30)
    [lost] = [one["lines"] for one in found if one["event"] == "lost"]
    assert sum(one["event"] == "problem" for one in found) == 5_000 - lost
    assert found[-1]["event"] == "last"


def test_a_reader_that_goes_ends_the_telling_and_nothing_else() -> None:
    reads, writes = os.pipe()
    told = Events(writes)
    os.close(reads)
    for _ in range(3):
        told.say("problem", text="x")
        time.sleep(2 * events.TELL_EVERY_S)
    told.close()


def test_an_inherited_descriptor_is_not_passed_on(tmp_path: Path) -> None:
    with (tmp_path / "events").open("wb") as file:
        number = os.dup(file.fileno())
        os.set_inheritable(number, True)
        with telling(str(number)) as told:
            assert told is not None
            assert not os.get_inheritable(told._descriptor)
            told.say("begun", run="x")
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)
    assert told_of(tmp_path / "events")[0]["run"] == "x"


@pytest.mark.parametrize(
    "given", ["999", "99999999999999999999", "/nowhere/at/all", "a\0b", "{folder}", "{pipe}", "{read}"]
)
def test_what_cannot_be_told_to_is_refused_in_one_line(given: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "read").touch()
    with (tmp_path / "read").open() as only_read:
        to = given.format(folder=tmp_path, pipe=tmp_path / "pipe", read=only_read.fileno())
        with pytest.raises(BadInput, match="--events") as found, telling(to):
            pass
    assert "\n" not in str(found.value)


def test_nobody_who_did_not_ask_is_told() -> None:
    with telling(None) as told:
        assert told is None
