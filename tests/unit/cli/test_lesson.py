"""`lab lesson` as a user types it, with a lesson of one's own on a fake engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_command import Lab, make_lab

from lab.cli.lesson.planned import AROUND_S
from lab.cli.main import app
from lab.errors import BadInput

TABLE = """
format = 1
name = "mine"
[[steps]]
id = "measure"
predict = { unit = "s", row = { of = ["fake"], metric = "boot_s" } }
run = "lab run boot -t fake --rounds 6"
[[steps]]
id = "interval"
uses = "measure"
points = 2
answer = { kind = "interval", row = { of = ["fake"], metric = "boot_s" } }
"""
TEXT = "# Mine\nHello.\n## measure: Measure\nHow long?\n### why: Why\nBecause.\n## interval: Interval\nWhich?\n"
GERMAN = TEXT.replace("How long?", "Wie lange?")


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "lesson.toml").write_text(TABLE)
    (folder / "text.en.md").write_text(TEXT)
    (folder / "text.de.md").write_text(GERMAN)
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = make_lab(tmp_path_factory.mktemp("lab"))

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return made(*arguments, **{"LANG": "C", "LANGUAGE": "", "LC_ALL": "", **environment})

    yield run


def test_a_whole_lesson_of_ones_own(lab: Lab, mine: Path, tmp_path: Path) -> None:
    """Each command says what to type next, and what it says is what comes next."""
    began = lab("lesson", "start", str(mine), "--student", "A. Student")
    assert began.returncode == 0 and "lesson predict mine measure 50ms" in began.stdout, began.stderr
    assert "a guess, before the first such run here" in " ".join(began.stdout.split())
    predicted = lab("lesson", "predict", "mine", "measure", "50", "ms")
    assert "Kept: you predict 50 ms." in predicted.stdout and "run boot -t fake --rounds 6" in predicted.stdout
    short = lab("run", "boot", "-t", "fake", "--rounds", "1", "--warmup", "1")
    assert short.returncode == 0, short.stderr
    failed = lab("lesson", "next", "mine")
    assert failed.returncode == 1 and "[too-few-rounds]" in failed.stdout and "expected: 6 measured" in failed.stdout
    assert lab("run", "boot", "-t", "fake", "--rounds", "6").returncode == 0
    passed = lab("lesson", "next", "mine")
    assert passed.returncode == 0 and "You predicted 50 ms" in passed.stdout and "Because." in passed.stdout

    single = lab("lesson", "answer", "mine", "interval", "2s")
    assert single.returncode == 1 and "[single-number]" in single.stdout
    rows = json.loads(lab("export", "last").stdout)["samples"]
    values = [row["value"] for row in rows if row["metric"] == "boot_s" and not row["warmup"]]
    right = lab("lesson", "answer", "mine", "interval", f"{min(values)}-{max(values)}s")
    assert right.returncode == 0 and "lesson report mine --html" in right.stdout, right.stdout

    checked = lab(
        "lesson",
        "check",
        "mine",
        "--json",
        "--gradescope",
        str(tmp_path / "r.json"),
        "--classroom",
        str(tmp_path / "c.json"),
    )
    assert checked.returncode == 0 and json.loads(checked.stdout)["points"] == 3
    assert json.loads((tmp_path / "r.json").read_text())["score"] == 3
    assert json.loads((tmp_path / "c.json").read_text())["status"] == "pass"

    (tmp_path / "key").write_text("k" * 32)
    key = ("--key-file", str(tmp_path / "key"))
    written = lab(
        "lesson", "report", "mine", "--html", str(tmp_path / "r.html"), "--json", str(tmp_path / "e.json"), *key
    )
    assert written.returncode == 0 and (tmp_path / "r.html").stat().st_mode & 0o777 == 0o600
    assert lab("lesson", "verify", str(tmp_path / "r.html"), *key).returncode == 0
    copied = lab("lesson", "verify", str(tmp_path / "r.html"), str(tmp_path / "e.json"))
    assert copied.returncode == 1 and "in common with" in copied.stdout
    listed = {row["lesson"]: row for row in json.loads(lab("lesson", "--json").stdout)}
    assert listed["mine"]["state"] == "passed" and listed["boot"]["state"] == "open" and len(listed) == 8


def test_the_stated_time_of_a_command_is_what_its_turns_take(mine: Path, tmp_path: Path) -> None:
    """Seven of 2.03 s each, by this engine's clock, within a quarter; and before the first run it is called a guess."""
    lab = make_lab(tmp_path)
    assert lab("run", "boot", "-t", "fake", "--rounds", "2", MAIN_S="2").returncode == 0
    told = json.loads(lab("lesson", "check", str(mine), "--json").stdout)
    assert (told["lesson"], told["steps"], told["languages"]) == ("mine", ["measure", "interval"], ["de", "en"])
    (command,) = told["commands"]
    assert command["runs"] == 1 and command["skipped"] == {}
    assert command["seconds"] - AROUND_S == pytest.approx(7 * 2.03, rel=0.25)


def type_in(*arguments: str) -> object:
    """As typed, within this process; what it returns is the exit code."""
    return app(["lesson", *arguments], standalone_mode=False)


@pytest.fixture
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.mark.usefixtures("_own_state")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("start", "bot"), "there is no lesson 'bot'"),
        (("start", "boot", "--lang", "tlh"), "is not there in 'tlh'"),
        (("start", "boot", "--consent", "maybe"), "--consent is yes or no"),
        (("predict", "memory", "measure", "5MiB"), "the lesson memory was not begun"),
        (("next", "memory"), "the lesson memory was not begun"),
        (("next",), "no lesson was begun yet"),
        (("start", "/"), "cannot be read"),
        (("verify", "/absent"), "cannot be read"),
        (("report", "boot"), "no file was named"),
        (("next", "../../etc/passwd"), "is no lesson's folder"),
        (("check", ".."), "cannot be read"),
        (("report", "boot", "--html", "x", "--key-file", "/absent"), "cannot be read"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        type_in(*arguments)
    assert said in refused.value.brief and "\n" not in refused.value.brief


@pytest.mark.usefixtures("_own_state")
def test_what_could_be_neither_right_nor_wrong_is_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    type_in("start", "bad-benchmark", "--lang", "en")
    for arguments, said in (
        (("answer", "bad-benchmark", "look", "a,z"), "'a,z' is none of a, b, c, d, e, f"),
        (("answer", "bad-benchmark", "lok", "a"), "has no step 'lok'"),
        (("predict", "bad-benchmark", "look", "a"), "asks for no prediction"),
    ):
        with pytest.raises(BadInput, match=said):
            type_in(*arguments)
    assert type_in("answer", "bad-benchmark", "end", "b") == 1  # it is not reached
    assert "worauf" not in capsys.readouterr().out
    assert type_in("answer", "bad-benchmark", "look", "a", "c") == 1
    assert type_in("answer", "bad-benchmark", "look", "a", "b,d,e") in (0, None)
    told = capsys.readouterr().out
    assert "[wrong-choice]" in told and "lesson answer bad-benchmark end" in told
    assert type_in("check", "bad-benchmark", "--json") == 1
    assert json.loads(capsys.readouterr().out)["points"] == 2
    assert type_in("show", "bad-benchmark", "look") in (0, None)
    assert "What the log cannot tell" in capsys.readouterr().out


@pytest.mark.usefixtures("_own_state")
def test_it_speaks_the_users_language(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LANGUAGE": "", "LC_ALL": "", "LC_MESSAGES": "", "LANG": "de_DE.UTF-8"}.items():
        monkeypatch.setenv(name, value)
    type_in("start", "bad-benchmark")
    told = capsys.readouterr().out
    assert "Ein Protokoll" in told and "Tippen Sie als Nächstes:" in told
    assert "Type next" not in told
