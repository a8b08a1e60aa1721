"""`lab app`: what it makes of its options, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli import command_run
from lab.cli.command_run import Request
from lab.cli.main import app, main
from lab.errors import BadInput
from lab.registry import scenario_names


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What would have been run."""
    found: list[Request] = []
    monkeypatch.setattr(command_run, "run_scenario", lambda request: found.append(request) or 0)
    return found


def lab(*words: str) -> BaseException | None:
    return CliRunner().invoke(app, ["app", *words]).exception


@pytest.mark.parametrize("question", ["boot", "memory", "recover"])
def test_each_question_is_a_scenario_about_the_file(asked: list[Request], question: str) -> None:
    assert (
        lab(question, "-c", "a.toml", "-t", "swarm", "--image", "web=w.tar", "--image", "db=d.tar", "-p", "a=b") is None
    )
    (request,) = asked
    assert request.scenario == f"app-{question}" and request.scenario in scenario_names()
    assert request.given["param"] == ["file=a.toml", "images=web=w.tar,db=d.tar", "a=b"]
    assert request.given["targets"] == ["swarm"]


def test_a_compose_file_may_be_told_its_entry(asked: list[Request]) -> None:
    assert lab("boot", "--compose", "c.yaml", "--entry", "web", "--ready-path", "/x", "--rounds", "3") is None
    (request,) = asked
    assert request.given["param"] == ["compose=c.yaml", "entry=web", "ready_path=/x"]
    assert (request.given["rounds"], request.given["targets"]) == (3, ["docker", "libvirt:q35"])


@pytest.mark.parametrize(
    "words",
    [
        ("shout", "-c", "a.toml"),
        ("boot",),
        ("boot", "-c", "a.toml", "--compose", "c.yaml"),
        ("boot", "-c", "a.toml", "--entry", "web"),
        ("boot", "-c", "a.toml", "--ready-path", "/"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked: list[Request], words: tuple[str, ...]) -> None:
    error = lab(*words)
    assert isinstance(error, BadInput) and "\n" not in error.brief and error.resolution
    assert not asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("app", "boot", "-c", "none.toml"), "none.toml cannot be read: No such file or directory"),
        (("run", "app-boot", "-t", "docker"), "no application is named"),
        (("run", "app-boot", "-p", "file=app.toml", "--image", "x"), "--image is no part of that"),
        (("run", "app-boot", "-p", "file=app.toml", "--ready-path", "/"), "--ready-path is no part of that"),
    ],
)
def test_what_is_wrong_ends_the_command_with_two_before_any_engine_is_asked(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "app.toml").write_text('entry = "web"\n[services.web]\nimage = "w"\nport = 80\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("lab.cli.start.make_driver", _asks_no_engine)
    monkeypatch.setattr(sys, "argv", ["lab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[0]


def _asks_no_engine(*_: object) -> None:
    pytest.fail("an engine was asked")
