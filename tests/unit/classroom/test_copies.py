"""What stands under two students is told to the teacher, and nobody is accused for what two honest ones have alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from made_class import again_as, make_progress, student_runs

from lab.classroom.copies import copies_in
from lab.classroom.reading import read_files
from lab.store.record import RunRecord

Write = Callable[[str, Any], Path]
Runs = Callable[..., Sequence[RunRecord]]


def test_honest_students_are_not_told(write: Write) -> None:
    paths = [
        write(f"student-{number}/{record.run.scenario}.json", record)
        for number in range(4)
        for record in student_runs(number)
    ]
    assert copies_in(read_files(paths)) == []


def test_a_students_six_runs_in_one_folder_with_others_are_no_copies(write: Write) -> None:
    paths = [write(f"{record.run.id}.json", record) for number in range(2) for record in student_runs(number)]
    assert copies_in(read_files(paths)) == []


def test_one_run_under_two_students(write: Write, runs: Runs) -> None:
    (record,) = runs(1)
    found = copies_in(read_files([write("ada/boot.json", record), write("bob/mine.json", record)]))
    (copy,) = [one for one in found if one.what == f"run {record.run.id}"]
    assert [name.rpartition("/")[2] for name in copy.sources] == ["boot.json (ada)", "mine.json (bob)"]


def test_one_run_in_two_lessons_exports(write: Write, runs: Runs) -> None:
    (record,) = runs(1)
    paths = [write(f"{name}.json", make_progress(name, run=record)) for name in ("Ada", "Bob")]
    assert f"run {record.run.id}" in [one.what for one in copies_in(read_files(paths))]


def test_the_same_times_under_another_id_on_another_machine(write: Write, runs: Runs) -> None:
    (record,) = runs(1)
    other = again_as(record, "20260302-beef", host_id="d" * 12, host_name="bobs")
    (copy,) = copies_in(read_files([write("a.json", record), write("b.json", other)]))
    assert "boot_s of docker, to the last digit" in copy.what
    assert len(copy.sources) == 2 and any("20260302-beef" in one for one in copy.sources)


def test_a_machine_that_two_students_use_is_told_as_what_it_may_be(write: Write, runs: Runs) -> None:
    one, two = runs(2)
    shared = again_as(two, two.run.id, host_id=one.run.host_id, host_name=one.run.host_name)
    (copy,) = copies_in(read_files([write("ada/boot.json", one), write("bob/boot.json", shared)]))
    assert "shared, or the disk of one was cloned" in copy.what
    clone = again_as(two, two.run.id, host_id=one.run.host_id, host_name="another-name")
    assert copies_in(read_files([write("ada/boot.json", one), write("bob/boot.json", clone)])) == []
