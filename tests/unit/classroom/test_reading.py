"""Whatever lies among the files of a class is named in one line, and the rest is read."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_class import again_as, make_progress, student_runs

from lab.classroom import reading
from lab.classroom.overview import overview_of
from lab.classroom.reading import read_files
from lab.classroom.report import render
from lab.store.record import RunRecord

Write = Callable[[str, Any], Path]
Runs = Callable[..., Sequence[RunRecord]]


def why_of(*paths: Path) -> list[str]:
    return [one.why for one in read_files(paths).left_out]


def test_runs_and_lessons_are_told_apart_and_read(write: Write, runs: Runs) -> None:
    (first, second) = runs(2)
    found = read_files(
        [write("a.json", first), write("b.json", second), write("c.json", make_progress("Ada", run=first))]
    )
    assert not found.left_out and not found.changed
    assert [run.run_id for run in found.runs] == [first.run.id, second.run.id]  # the lesson's run is a.json's
    assert {row.metric for run in found.runs for row in run.rows} == {"boot_s"}
    (lesson,) = found.lessons
    assert lesson.progress.student == "Ada"


def test_of_a_run_only_what_a_class_is_shown_is_kept_and_its_failures_are_counted(write: Write, runs: Runs) -> None:
    (record,) = runs(1)
    document = record.to_json()
    document["timelines"][5]["outcome"] = "failed"
    (run,) = read_files([write("a.json", json.dumps(document))]).runs
    assert run.failed_launches == 1
    assert sorted({row.target for row in run.rows}) == ["docker", "libvirt:q35", "process"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (b"{", "it is no JSON"),
        (b"PK\x03\x04 a zip", "it is no JSON"),
        (b"\xff\xfe{", "it is no JSON"),
        (b'{"a": NaN}', "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b"{}", "neither a run's export nor a lesson's"),
        pytest.param(b"1" + b"0" * 5000, "it is no JSON", id="5000 digits"),
        (b"17", "neither a run's export nor a lesson's"),
        (b"[]", "a list of 0 things"),
        (b'[{"run": 1}]', "neither a run's export nor a lesson's"),
        (b'{"format": "stratalab lesson", "version": 1}', "it is no lesson's export: lab_version: Field required"),
        (b'{"format": "stratalab lesson", "version": 9}', "it is no lesson's export"),
        (b'{"results": [{"command": "a", "times": [0.1, 0.2]}]}', "measured by hyperfine"),
        (b"\x1f\x8b\x08\x00nothing", "a broken gzip file"),
        (gzip.compress(b"{}", mtime=0)[:-9], "a broken gzip file: it ends too early"),
    ],
)
def test_what_is_no_export_is_told_in_one_line(write: Write, runs: Runs, content: bytes, told: str) -> None:
    found = read_files([write("bad.json", content), write("good.json", runs(1)[0])])
    (bad,) = found.left_out
    assert bad.source.endswith("bad.json") and told in bad.why and "\n" not in bad.why
    assert len(found.runs) == 1


def test_another_version_is_told(write: Write, runs: Runs) -> None:
    (why,) = why_of(write("a.json", json.dumps({**runs(1)[0].to_json(), "version": 77})))
    assert "version 77" in why and "reads 1 to" in why


def test_a_run_that_goes_on_is_not_taken(write: Write, runs: Runs) -> None:
    document = runs(1)[0].to_json()
    document["run"]["status"] = "running"
    (why,) = why_of(write("a.json", json.dumps(document, default=str)))
    assert "had not ended" in why


def test_what_is_no_plain_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    pipe, folder, loop, gone = (tmp_path / name for name in ("pipe", "folder", "loop", "gone"))
    os.mkfifo(pipe)
    folder.mkdir()
    loop.symlink_to(loop)
    told = why_of(pipe, folder, loop, gone, Path("/dev/zero"))
    for words, why in zip(
        ("plain file", "folder", "cannot be read", "cannot be read", "plain file"), told, strict=True
    ):
        assert words in why


def test_a_file_that_may_not_be_read_is_told(write: Write, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = write("a.json", runs(1)[0])
    monkeypatch.setattr(reading.os, "open", refuse)
    assert why_of(path) == ["it cannot be read: Permission denied"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_huge_file_is_read_no_further_than_its_limit(
    write: Write, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(reading, "MOST_BYTES", 1 << 20)
    huge = b'"' + b"a" * (8 << 20) + b'"'
    (why,) = why_of(write("huge.json", gzip.compress(huge) if packed else huge))
    assert "larger than 1 MiB" in why


def test_a_packed_export_of_several_members_is_read(write: Write, runs: Runs) -> None:
    content = json.dumps(runs(1)[0].to_json()).encode()
    half = len(content) // 2
    found = read_files([write("a.json.gz", gzip.compress(content[:half]) + gzip.compress(content[half:]))])
    assert len(found.runs) == 1 and not found.left_out


def test_a_nights_file_of_several_runs_is_read(write: Write) -> None:
    records = list(student_runs(3))
    found = read_files([write("runs.json", json.dumps([one.to_json() for one in records]))])
    assert [run.scenario for run in found.runs] == [one.run.scenario for one in records] and not found.left_out


def test_the_same_run_twice_counts_once_and_is_told(write: Write, runs: Runs) -> None:
    (record,) = runs(1)
    first, second = write("a.json", record), write("b.json", record)
    found = read_files([first, second, first])
    assert len(found.runs) == 1 and not found.changed
    assert [one.why for one in found.left_out] == [
        f"run {record.run.id} is in {first} already",
        "it is given twice",
    ]


def test_a_run_of_the_same_id_with_other_figures_is_told_as_changed(write: Write, runs: Runs) -> None:
    (record,) = runs(1)
    better = replace(record, samples=[replace(one, value=one.value * 0.5) for one in record.samples])
    found = read_files([write("a.json", record), write("b.json", better)])
    (changed,) = found.changed
    assert changed.source.endswith("b.json") and "one of the two was changed" in changed.why
    assert found.left_out


def test_a_lessons_figure_that_was_changed_by_hand_is_not_drawn(write: Write, runs: Runs) -> None:
    document = make_progress("Ada", run=runs(1)[0]).model_dump(mode="json")
    document["figures"][1]["values"][0] *= 0.5
    found = read_files([write("a.json", json.dumps(document))])
    (changed,) = found.changed
    assert document["figures"][1]["target"] in changed.why
    assert len(found.runs[0].rows) == len(document["figures"]) - 1


def test_of_a_students_work_on_a_lesson_the_latest_counts(write: Write) -> None:
    old = make_progress("Ada", steps=[{"id": "one", "state": "failed"}])
    new = make_progress("Ada", steps=[{"id": "one", "state": "passed"}], updated_at="2026-03-02T11:00:00+00:00")
    (lesson,) = read_files([write("new.json", new), write("old.json", old)]).lessons
    assert lesson.progress.steps[0].state == "passed"


def test_files_in_several_folders_are_of_those_who_the_folders_name(write: Write, runs: Runs) -> None:
    one, two = runs(2)
    apart = read_files([write("ada/boot.json", one), write("bob/boot.json", two)])
    assert [run.owner for run in apart.runs] == ["ada", "bob"]
    together = read_files([write("ada.json", one), write("bob.json", again_as(two, "r-2"))])
    assert [run.owner for run in together.runs] == ["", ""]


WORDS = st.text(max_size=8) | st.sampled_from(["<script>alert(1)</script>", "</script>", "\x1b[2J", "%{x}", "a\nb"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
_PLACES = [
    *(("run", key) for key in ("id", "scenario", "started_at", "status", "owner", "parameters", "order", "host_id")),
    *(("run", key) for key in ("host_name", "origin", "notes", "ended_at", "lab_version")),
    *(("run", "parameters", key) for key in ("spec", "scenario", "cold", "rounds")),
    *(("host", key) for key in ("cpu", "kernel", "virtualization", "memory")),
    *(("targets", 1, key) for key in ("target", "outcome", "info", "reason")),
    *(("targets", 1, "info", key) for key in ("qualifiers", "facts", "engine", "features")),
    *(("samples", 0, key) for key in ("target", "metric", "value", "unit", "iteration", "warmup", "dimensions")),
    *(("samples",), ("timelines",), ("targets",), ("host",), ("run",), ("timelines", 0), ("samples", 3)),
    *(("timelines", 0, key) for key in ("outcome", "marks", "facts", "error")),
]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(changes=st.lists(st.tuples(st.sampled_from(_PLACES), JSON), min_size=1, max_size=3))
def test_whatever_stands_in_an_export_it_is_taken_or_told_in_one_line(
    changes: Sequence[tuple[tuple[Any, ...], Any]], tmp_path: Path
) -> None:
    document = json.loads(json.dumps(next(iter(student_runs(1, rounds=2))).to_json()))
    for place, value in changes:
        at = document
        for part in place[:-1]:
            at = at[part] if isinstance(at, list | dict) and _has(at, part) else {}
        if isinstance(at, dict) or (isinstance(at, list) and _has(at, place[-1])):
            at[place[-1]] = value
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(document))
    good = tmp_path / "good.json"
    good.write_text(json.dumps(next(iter(student_runs(2, rounds=2))).to_json()))
    found = read_files([path, good])
    assert len(found.runs) + len(found.left_out) == 2
    assert all("\n" not in one.why for one in found.left_out)
    page = render(overview_of(found)).partition("<body>")[2]
    assert "<script>alert" not in page and "\x1b" not in page


def _has(at: Any, part: Any) -> bool:
    return isinstance(part, int) and len(at) > part if isinstance(at, list) else part in at


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_file_holds_the_others_are_read(content: bytes, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.json", tmp_path / "good.json"
    bad.write_bytes(content)
    if not good.exists():
        good.write_text(json.dumps(next(iter(student_runs(2, rounds=2))).to_json()))
    found = read_files([bad, good])
    assert len(found.runs) == 1
    (left,) = found.left_out
    assert "\n" not in left.why


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(at=st.floats(0, 1), flip=st.integers(0, 255))
def test_a_file_that_was_cut_off_or_damaged_is_taken_or_told(at: float, flip: int, tmp_path: Path) -> None:
    whole = json.dumps(next(iter(student_runs(1, rounds=2))).to_json()).encode()
    place = int(at * (len(whole) - 1))
    for content in (whole[:place], whole[:place] + bytes([flip]) + whole[place + 1 :]):
        path = tmp_path / "cut.json"
        path.write_bytes(content)
        found = read_files([path])
        assert len(found.runs) + len(found.left_out) == 1
        overview_of(found)
