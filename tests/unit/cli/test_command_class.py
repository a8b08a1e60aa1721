"""`lab class`: files and a store, one line for each that is left out, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_class import student_runs, write_class
from typer.testing import CliRunner

from lab.cli.classroom.command import show_class
from lab.cli.main import app
from lab.errors import BadInput, LabError
from lab.store.database import Store


def test_a_class_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "class.html"
    paths = write_class(tmp_path / "in", students=2)
    assert show_class(paths, store=None, html=page, as_json=False) == 0
    assert "12 runs of 2 machines" in capsys.readouterr().out
    assert page.stat().st_mode & 0o777 == 0o600 and "<h1>The class</h1>" in page.read_text()


def test_what_is_left_out_has_a_line_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad\x1b[2J.json").write_text("{")
    paths = [*sorted(tmp_path.glob("bad*")), tmp_path, *write_class(tmp_path / "in", students=1)]
    assert show_class(paths, store=None, html=None, as_json=True) == 1
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 2 and "\x1b" not in told.err
    found = json.loads(told.out)
    assert found["runs"] == 6 and len(found["left_out"]) == 2


@pytest.mark.parametrize("names", [[], ["gone.json"], ["gone.json", "also-gone.json"]])
def test_where_nothing_can_be_read_it_is_bad_input(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(BadInput):
        show_class([tmp_path / name for name in names], store=None, html=tmp_path / "no.html", as_json=False)
    assert not (tmp_path / "no.html").exists()


def test_a_store_tells_what_the_files_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write_class(tmp_path / "in", students=3)
    place = str(tmp_path / "class.db")
    with Store.open(place) as store:
        for number in range(3):
            for record in student_runs(number):
                store.import_run(record)
    found: list[dict[str, Any]] = []
    for files, told in (([], place), (paths, None), (paths, place)):
        assert show_class(files, store=told, html=None, as_json=True) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["charts"] and found[0]["charts"] == found[1]["charts"] == found[2]["charts"]


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there is no store"):
        show_class([], store=str(tmp_path / "typo.db"), html=None, as_json=False)
    assert not (tmp_path / "typo.db").exists()


def test_the_teachers_own_store_is_no_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STORE", str(tmp_path / "own.db"))
    done: Callable[..., Any] = CliRunner().invoke
    result = done(app, ["class"])
    assert isinstance(result.exception, BadInput) and "nothing to gather" in str(result.exception)
