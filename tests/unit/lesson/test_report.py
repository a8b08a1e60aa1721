"""What is handed in, and what graders and teachers make of it."""

from __future__ import annotations

import json
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_lesson import HOST, made_run, right_answer

from lab.errors import BadInput
from lab.lesson import kept
from lab.lesson.checking import Checker
from lab.lesson.kept import Kind
from lab.lesson.lesson import find
from lab.lesson.record import Progress, State, parse
from lab.lesson.report.formats import classroom, gradescope, points
from lab.lesson.report.handed_in import embedded, read_any, verify
from lab.lesson.report.page import render
from lab.lesson.report.pdf import write_pdf
from lab.lesson.words import Words
from lab.store.database import Store

KEY = b"a key of the class"
VISIBILITY = {"enum": ["hidden", "after_due_date", "after_published", "visible"]}
FORMAT = {"enum": ["text", "html", "simple_format", "md", "ansi"]}
NUMBER = {"type": "number", "minimum": 0}
TEXT = {"type": "string"}
# Written from gradescope-autograders.readthedocs.io/en/latest/specs.
GRADESCOPE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["tests"],
    "properties": {
        "score": NUMBER,
        "execution_time": NUMBER,
        "output": TEXT,
        "output_format": FORMAT,
        "test_output_format": FORMAT,
        "test_name_format": FORMAT,
        "visibility": VISIBILITY,
        "stdout_visibility": VISIBILITY,
        "extra_data": {"type": "object"},
        "leaderboard": {"type": "array"},
        "tests": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["score", "max_score", "name", "status"],
                "properties": {
                    "score": NUMBER,
                    "max_score": NUMBER,
                    "status": {"enum": ["passed", "failed"]},
                    "name": TEXT,
                    "name_format": FORMAT,
                    "number": TEXT,
                    "output": TEXT,
                    "output_format": FORMAT,
                    "tags": {"type": "array", "items": TEXT},
                    "visibility": VISIBILITY,
                    "extra_data": {"type": "object"},
                },
            },
        },
    },
}
# Written from what GitHub Classroom's reporter reads (autograding-grading-reporter, src/).
CLASSROOM = {
    "type": "object",
    "required": ["version", "status", "max_score", "tests"],
    "properties": {
        "version": {"const": 1},
        "status": {"enum": ["pass", "fail", "error"]},
        "max_score": NUMBER,
        "tests": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "status", "score"],
                "properties": {
                    "name": TEXT,
                    "status": {"enum": ["pass", "fail", "error"]},
                    "score": NUMBER,
                    "message": TEXT,
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Progress]:
    """The lesson `boot`: `begun`, `half` done with a mistake, and `whole`; signed with the class key."""
    folder = tmp_path_factory.mktemp("report")
    found: dict[str, Progress] = {}
    with pytest.MonkeyPatch.context() as patch, Store.open(str(folder / "lab.db"), host_id=HOST) as store:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        lesson = find("boot")
        kept.start(lesson, language="en", student="A. <b>Student</b>", consent=False)

        def check() -> Progress:
            work = kept.load("boot")
            assert work is not None
            words = Words("en")
            return Checker(lesson=lesson, work=work, store=store, words=words, key=KEY, host_id=HOST).check()

        found["begun"] = check()
        kept.add("boot", Kind.PREDICTION, "measure", "50ms")
        record = made_run(lesson, lesson.step("measure"))
        store.import_run(record)
        kept.add("boot", Kind.ANSWER, "interval", "150ms", run_id=record.run.id)
        found["half"] = check()
        for step in lesson.steps:
            if step.table.answer is not None:
                kept.add("boot", Kind.ANSWER, step.id, right_answer(step, record), run_id=record.run.id)
        found["whole"] = check()
    return found


@pytest.mark.parametrize("name", ["begun", "half", "whole"])
def test_graders_take_it(done: dict[str, Progress], name: str) -> None:
    told = done[name]
    jsonschema.validate(gradescope(told), GRADESCOPE)
    jsonschema.validate(classroom(told), CLASSROOM)
    score, most = told.points, told.max_points
    assert gradescope(told)["score"] == sum(test["score"] for test in gradescope(told)["tests"]) == score
    assert sum(test["score"] for test in classroom(told)["tests"]) == score  # as the reporter adds them up
    assert classroom(told)["max_score"] == most == points(told)["max_points"]
    assert (classroom(told)["status"] == "pass") == points(told)["passed"] == (name == "whole")
    assert json.loads(json.dumps(points(told)))["points"] == score


def test_expected_and_actual_reach_the_graders(done: dict[str, Progress]) -> None:
    tests: dict[str, Any] = {test["number"]: test for test in gradescope(done["half"])["tests"]}
    assert "actual: 150ms" in tests["2"]["output"] and tests["2"]["tags"] == ["single-number"]
    assert tests["3"]["extra_data"]["state"] == "not-reached" and tests["3"]["status"] == "failed"
    broken = done["half"].steps[0].model_copy(update={"state": State.ERROR})
    assert classroom(done["half"].model_copy(update={"steps": [broken]}))["status"] == "error"


class Page(HTMLParser):
    """What a browser would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_has_all_of_it_and_nothing_that_is_loaded_or_obeyed(done: dict[str, Progress]) -> None:
    text = render(find("boot"), done["whole"], Words("en"), beside={"measure": "docker: 150 ms"})
    assert "<b>Student" not in text and "A. &lt;b&gt;Student" in text
    for told in ("50ms", "docker: 150 ms", "95 % interval", done["whole"].figures[0].signature, "Own figures", "<svg"):
        assert told in text
    page = Page()
    page.feed(text)
    scripts = [about for tag, about in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "stratalab-lesson"}]
    assert not [about for _, about in page.tags if "src" in about or "href" in about]
    assert '<html lang="de">' in render(find("boot"), done["begun"], Words("de"), beside={})


def test_a_teacher_reads_the_export_out_of_the_page(done: dict[str, Progress], tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text(render(find("boot"), done["whole"], Words("en"), beside={}))
    assert read_any(page) == done["whole"]
    (found,) = verify([page], KEY)
    assert found.problems == [] and len(found.run_ids) == 1
    hostile = done["whole"].model_copy(update={"student": "</script><script>alert(1)</script>"})
    assert embedded(hostile).count("</script>") == 1
    page.write_text(embedded(hostile))
    assert read_any(page).student == hostile.student


def test_a_copied_an_edited_and_a_foreign_report_are_seen(done: dict[str, Progress], tmp_path: Path) -> None:
    whole = done["whole"]

    def write(name: str, told: Progress) -> Path:
        path = tmp_path / name
        path.write_text(told.model_dump_json())
        return path

    mine = write("mine.json", whole)
    copied = write("copied.json", whole.model_copy(update={"student": "Another"}))
    for one, other in zip(verify([mine, copied], KEY), ("copied.json", "mine.json"), strict=True):
        assert len(one.problems) == 1 and "in common with" in one.problems[0] and other in one.problems[0]
    halved = whole.figures[0].model_copy(update={"values": [value / 2 for value in whole.figures[0].values]})
    edited = write("edited.json", whole.model_copy(update={"figures": [halved, *whole.figures[1:]]}))
    assert "not that of its raw values" in verify([edited], None)[0].problems[0]
    moved = write("moved.json", whole.model_copy(update={"host": whole.host.model_copy(update={"id": "other"})}))
    assert "is of host" in verify([moved], KEY)[0].problems[0]
    bare = write("bare.json", whole.model_copy(update={"figures": []}))
    assert "no figure of it is there" in verify([bare], KEY)[0].problems[0]
    assert "with another key" in verify([mine], b"another key of it")[0].problems[0]
    for text in ("", "<html>", embedded(whole) * 2, "[]"):
        path = tmp_path / "none.html"
        path.write_text(text)
        with pytest.raises(BadInput):
            verify([mine, path], None)


def test_a_pdf_needs_a_browser_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="Chromium or Chrome, and neither is installed"):
        write_pdf("<p>", tmp_path / "a.pdf")
    browser = tmp_path / "chromium"
    browser.write_text('#!/bin/sh\nfor one; do case "$one" in --print-to-pdf=*) echo pdf > "${one#*=}";; esac; done\n')
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    write_pdf("<p>", tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_text() == "pdf\n"


def test_an_export_is_read_back(done: dict[str, Progress]) -> None:
    for told in done.values():
        assert parse(told.model_dump_json(), name="x") == told


@given(st.binary(max_size=300))
def test_any_file_is_read_or_refused_in_one_line(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with pytest.raises(BadInput) as refused:
            read_any(Path(file.name))
    assert "\n" not in refused.value.brief
