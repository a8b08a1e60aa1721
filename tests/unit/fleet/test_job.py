"""A job on a host, driven as Ansible drives it: the file is run by itself, in a home of its own."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.fleet import job
from lab.fleet.jobs import State, _state_of, export_name
from lab.fleet.play import _answers, _line

Ask = Callable[..., Any]

LAB = """#!{python}
import pathlib, sys, time
words = sys.argv[1:]
if words == ["--version"]:
    print("lab 9.9")
elif words[0] == "run":
    print("lab: something went wrong", file=sys.stderr, flush=True)
    print("     a remedy", file=sys.stderr, flush=True)
    time.sleep(float(words[2]))
    sys.exit(int(words[3]))
elif words[0] == "export":
    pathlib.Path(words[words.index("--output") + 1]).write_text("{{}}")
elif words[0] == "doctor":
    print("a banner", file=sys.stderr)
    print('{{"engines": []}}')
"""


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    lab = tmp_path / "lab"
    lab.write_text(LAB.format(python=sys.executable))
    lab.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        **os.environ,
        "HOME": str(home),
        "STRATALAB_LAB": str(lab),
        "STRATALAB_COMMAND": json.dumps([str(lab)]),
    }

    def run(*words: str, file: str = job.__file__) -> Any:
        done = subprocess.run(
            [sys.executable, file, *words], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        return json.loads(done.stdout.splitlines()[-1])

    return run


def packed(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def start(ask: Ask, name: str, *words: str, limit_s: float = 60) -> Path:
    found = ask("prepare", name)
    assert (found["state"], found["version"]) == ("prepared", "lab 9.9")
    folder = Path(found["folder"])
    told = ask(
        "start", str(folder), packed({"words": ["boot", *words], "limit_s": limit_s}), file=str(folder / "job.py")
    )
    assert told["state"] == "running"
    return folder


def until(ask: Ask, name: str, state: str) -> Any:
    deadline = time.monotonic() + 30
    while (told := ask("poll", name))["state"] != state:
        assert time.monotonic() < deadline, told
        time.sleep(0.1)
    return told


def test_it_outlives_who_started_it_and_tells_its_end(ask: Ask) -> None:
    folder = start(ask, "one", "0.5", "3")
    told = until(ask, "one", "ended")
    assert (told["code"], told["said"], told["export_bytes"]) == (3, "lab: something went wrong", 2)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert ask("start", str(folder), packed({"words": [], "limit_s": 1}))["state"] == "ended", "it is not begun anew"
    assert [one["job"] for one in ask("list")] == ["one"]
    assert ask("remove", "one")["removed"]
    assert ask("list") == []
    assert not folder.exists()


def test_it_ends_when_it_is_told_to_and_when_its_time_is_over(ask: Ask) -> None:
    start(ask, "told", "60", "0")
    assert not ask("remove", "told").get("removed"), "it runs"
    ask("cancel", "told")
    start(ask, "long", "60", "0", limit_s=0.5)
    assert until(ask, "told", "ended")["why"] == "cancelled"
    assert until(ask, "long", "ended")["why"] == "it took longer than 0.5 s"


def test_a_job_whose_keeper_was_killed_is_lost_and_so_is_one_of_another_boot(ask: Ask) -> None:
    folder = start(ask, "killed", "60", "0")
    state = json.loads((folder / "state.json").read_text())
    (child,) = Path(f"/proc/{state['pid']}/task/{state['pid']}/children").read_text().split()
    try:
        (folder / "state.json").write_text(json.dumps({**state, "boot": "another"}))
        assert ask("poll", "killed")["why"] == "the host was started anew meanwhile"
        (folder / "state.json").write_text(json.dumps(state))
        os.kill(state["pid"], signal.SIGKILL)
        assert until(ask, "killed", "lost")["why"] == "its keeper was killed"
        assert ask("remove", "killed")["removed"]
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_an_unknown_job_and_a_name_that_leads_elsewhere_are_none(ask: Ask, tmp_path: Path) -> None:
    assert ask("poll", "unknown")["state"] == "none"
    foreign = tmp_path / "home/.local/state/stratalab/fleet/foreign"
    foreign.mkdir(parents=True)
    (foreign / "kept").touch()
    for name in ("foreign", "../fleet/foreign", "..", "", "/etc"):
        ask("remove", name)
        assert (foreign / "kept").exists()


def test_a_short_command_answers_with_its_json(ask: Ask) -> None:
    assert ask("lab", packed(["doctor", "--json"])) == {"code": 0, "why": "a banner", "output": {"engines": []}}


def test_a_host_without_a_lab_says_so(ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STRATALAB_LAB", str(tmp_path / "absent"))
    assert job._found()["why"].endswith("absent does not run")
    monkeypatch.delenv("STRATALAB_LAB")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert "nor a `lab` in PATH" in job._found()["why"]


@pytest.mark.parametrize(
    ("code", "cancelled", "state"),
    [
        *[(0, False, State.DONE), (1, False, State.FAILED), (2, False, State.REFUSED), (130, False, State.CANCELLED)],
        *[(3, False, State.FAILED), (0, True, State.CANCELLED), (-9, True, State.CANCELLED), (-9, False, State.FAILED)],
    ],
)
def test_what_an_exit_code_says_of_a_job(code: int, cancelled: bool, state: State) -> None:
    assert _state_of(code, cancelled=cancelled) is state


def test_each_host_is_judged_by_its_own_events() -> None:
    def event(kind: str, host: str, task: str, **result: Any) -> dict[str, Any]:
        return {"event": kind, "event_data": {"host": host, "task": task, "res": result}}

    banner = 'Welcome to host a\n{"state": "running"}\n'
    found = _answers(
        [
            event("runner_on_ok", "a", "start", stdout=banner),
            event("runner_on_unreachable", "b", "start", msg="x\nNo route to host"),
            event("runner_on_failed", "c", "start", stderr="", msg="python3: not found", stdout=""),
            event("runner_on_ok", "a stranger", "start", stdout="{}"),
            {"event": "playbook_on_stats"},
        ],
        ["a", "b", "c", "d"],
    )
    assert found["a"].said == {"start": {"state": "running"}}
    assert (found["b"].away, found["c"].failed) == ("No route to host", "python3: not found")
    assert set(found) == {"a", "b", "c", "d"}


def test_what_a_host_says_is_one_printable_line() -> None:
    assert _line("first\n\x1b[31mlast\x07\n") == "?[31mlast?"
    assert len(_line("x" * 10_000)) == 300
    assert _line(None) == "it did not say why"
    changed = "@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n@@@@\nIt is possible that\nmore"
    assert "IDENTIFICATION" in _line(changed)


def test_no_name_of_a_host_leads_out_of_the_folder() -> None:
    names = {export_name(host) for host in ("a", "../a", "/etc/passwd", "a\nb", "")}
    assert len(names) == 5
    assert all(name.isalnum() for name in names)
