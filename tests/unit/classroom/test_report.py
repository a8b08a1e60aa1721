"""The page is for the whole room: nothing private is in it, nothing is loaded, and nothing in it is obeyed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_class import again_as, make_progress

from lab.classroom.overview import overview_of
from lab.classroom.reading import read_files
from lab.classroom.report import render
from lab.classroom.table import render_class
from lab.store.record import RunRecord

Write = Callable[[str, Any], Path]
Runs = Callable[..., Sequence[RunRecord]]

EVIL = "<script>alert(1)</script>\x1b[2J%{x}"


def body(*paths: Path) -> str:
    return render(overview_of(read_files(paths))).partition("<body>")[2]


def test_names_files_and_hosts_are_not_in_the_page_without_consent(write: Write, runs: Runs) -> None:
    one, two = runs(2)
    steps = [{"id": "read", "state": "failed"}]
    shown = body(
        write("bobs-secret/boot.json", one),
        write("bobs-secret/lesson.json", make_progress("Bob Secret", run=one, steps=steps)),
        write("adas/boot.json", two),
        write("adas/lesson.json", make_progress("Ada Shown", consent=True, run=two, steps=steps)),
        write("adas/copied.json", one),
        write("adas/broken-secret.json", "{"),
    )
    assert "Ada Shown" in shown
    assert not re.search(r"secret", shown, re.IGNORECASE)
    assert one.run.host_name not in shown and one.run.host_id not in shown
    assert "2 files that could not be taken; the teacher knows which." in shown


def test_what_files_say_is_escaped_everywhere(write: Write, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = runs(1)
    document = record.to_json()
    document["host"]["cpu"]["model"] = EVIL
    document["run"]["scenario"] = EVIL
    for sample in document["samples"]:
        if sample["metric"] == "boot_s":
            sample["metric"] = EVIL
    for part in ("samples", "targets", "timelines"):
        for one in document[part]:
            one["target"] = one["target"].replace("docker", EVIL)
    steps = [{"id": EVIL, "title": EVIL, "state": "failed"}]
    paths = [write("a.json", json.dumps(document)), write("b.json", make_progress(EVIL, consent=True, steps=steps))]
    shown = body(*paths)
    assert "alert(1)" in shown and "<script>alert" not in shown and "\x1b" not in shown
    overview = overview_of(read_files(paths))
    from rich.console import Console

    Console().print(render_class(overview))
    assert "\x1b[2J" not in capsys.readouterr().out


def test_nothing_is_loaded_from_anywhere(write: Write, runs: Runs) -> None:
    page = render(overview_of(read_files([write("a.json", runs(1)[0])])))
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", page.partition("<body>")[2])


def test_each_machine_is_in_the_chart_and_in_the_table(write: Write, runs: Runs) -> None:
    records = [again_as(one, f"run-{place}") for place, one in enumerate(runs(12))]
    shown = body(*[write(f"{place}.json", one) for place, one in enumerate(records)])
    for record in records:
        assert shown.count(f"<td class=n>{record.run.id}</td>") == 2  # docker, and a guest
        assert record.run.host_id[:6] in shown
    assert "no ranking" in shown and "(tcg)" in shown and "(kvm)" in shown


def test_only_lessons_make_a_page_as_well(write: Write, runs: Runs) -> None:
    shown = body(*[write(f"{one.run.id}.json", make_progress(one.run.host_name, run=one)) for one in runs(3)])
    assert "lesson boot, 01234567" in shown and "3 machines" in shown


def test_the_json_has_no_number_that_json_lacks(write: Write, runs: Runs) -> None:
    told = overview_of(read_files([write("a.json", runs(1)[0])])).to_json()
    assert json.loads(json.dumps(told, allow_nan=False))["format"] == "stratalab class"
