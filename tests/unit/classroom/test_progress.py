"""Who is where in a lesson: by name only where the student has consented, and counted elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_class import make_progress

from lab.classroom.progress import WORDS, common_mistakes, consenting, lessons_of
from lab.classroom.reading import read_files
from lab.lesson.record import Mistake
from lab.store.record import RunRecord

Write = Callable[[str, Any], Path]
Runs = Callable[..., Sequence[RunRecord]]

_ANSWER = {"value": "about ten", "at": "2026-03-01T10:30:00+00:00"}


def step(name: str, state: str, *, answers: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": name, "state": state, "answers": [_ANSWER] * answers, **more}


def test_who_is_stuck_is_named_only_with_consent(write: Write) -> None:
    stuck = [step("run", "passed"), step("read", "failed", answers=2, mistakes=["single-number", "no-unit"])]
    once = [step("run", "passed"), step("read", "failed", answers=1, mistakes=["single-number"])]
    done = [step("run", "passed"), step("read", "passed")]
    begun = [step("run", "open"), step("read", "not-reached")]
    found = read_files(
        [
            write("1.json", make_progress("Ada", consent=True, steps=stuck)),
            write("2.json", make_progress("Bob", consent=False, steps=stuck)),
            write("3.json", make_progress("Cem", consent=True, steps=once)),
            write("4.json", make_progress("Dora", consent=True, steps=done)),
            write("5.json", make_progress("Eve", consent=False, steps=begun)),
        ]
    )
    (lesson,) = lessons_of(found)
    run, read = lesson.steps
    assert (lesson.students, lesson.done, lesson.done_names) == (5, 1, ["Dora"])
    assert (run.here, run.here_names, run.stuck) == (1, [], 0)
    assert (read.here, read.here_names) == (3, ["Ada", "Cem"])
    assert (read.stuck, read.stuck_names) == (2, ["Ada"])
    assert read.states == {"failed": 3, "passed": 1, "not-reached": 1}
    mistakes = {one.what: (one.by, one.times) for one in common_mistakes(found)}
    assert mistakes == {WORDS[Mistake.SINGLE_NUMBER]: (3, 3), WORDS[Mistake.NO_UNIT]: (2, 2)}


def test_a_step_that_a_machine_has_nothing_to_show_for_is_passed_over(write: Write) -> None:
    steps = [step("kvm", "not-reached", lost="there is no KVM here"), step("read", "open")]
    (lesson,) = lessons_of(read_files([write("1.json", make_progress("Ada", steps=steps))]))
    assert [one.here for one in lesson.steps] == [0, 1]


def test_every_mistake_has_its_words() -> None:
    assert set(Mistake) <= set(WORDS) and len(set(WORDS.values())) == len(WORDS)


def test_a_runs_name_is_its_students_if_that_one_consents_and_no_other_claims_it(write: Write, runs: Runs) -> None:
    one, two, three = runs(3)
    found = read_files(
        [
            write("1.json", make_progress("Ada", consent=True, run=one)),
            write("2.json", make_progress("Bob", consent=False, run=two)),
            write("3.json", make_progress("Cem", consent=True, run=three)),
            write("4.json", make_progress("Dora", consent=True, run=three)),
        ]
    )
    assert consenting(found.lessons) == {one.run.id: "Ada"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda one: replace(one, samples=[s for s in one.samples if s.target != "process"]), "no bare process"),
        (lambda one: replace(one, samples=[s for s in one.samples if s.iteration < 4]), "fewer than 6 rounds"),
        (lambda one: one, None),
    ],
)
def test_what_runs_lack_is_counted(write: Write, runs: Runs, change: Any, told: str | None) -> None:
    found = common_mistakes(read_files([write("a.json", change(runs(1)[0]))]))
    assert [one.what.partition(",")[0].partition(" in the")[0] for one in found] == ([told] if told else [])
