"""What a user reads while a run goes on."""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from lab.cli import command_run
from lab.cli.command_run import Request, _Lines, run_scenario
from lab.cli.start import Intent
from lab.store.record import LaunchRecord, Outcome, RunStatus
from lab.timeline import Timeline


def _said(outcome: Outcome, **told: str) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    launch = LaunchRecord(
        target="docker", iteration=2, warmup=False, outcome=outcome, timeline=Timeline(), facts={}, **told
    )
    _Lines(console, None).committed(launch, [])
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_failed_launch_is_told_with_the_last_ten_lines_of_its_service() -> None:
    logs = "".join(f"line {number}\n" for number in range(1, 31))
    first, *lines = _said(Outcome.FAILED, error="the service ended with exit status 3", logs=logs)
    assert first == "committed docker round 2 samples 0 failed: the service ended with exit status 3"
    assert lines == [f"  | line {number}" for number in range(21, 31)]


def test_a_good_launch_is_a_line() -> None:
    assert _said(Outcome.OK) == ["committed docker round 2 samples 0"]


def test_a_run_begins_once_it_has_this_host_and_not_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def execute(_: Console, plan: Intent, *__: object) -> tuple[RunStatus, int]:
        begun.append(plan.run.started_at)
        return RunStatus.DONE, 0

    kept = SimpleNamespace(load=lambda _: None)
    monkeypatch.setattr(command_run.Store, "open", lambda _: contextlib.nullcontext(kept))
    monkeypatch.setattr(command_run, "_alone", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(command_run, "now_iso", lambda: "once it was free")
    monkeypatch.setattr(command_run, "_execute", execute)
    monkeypatch.setattr(command_run, "_show_result", lambda *_: None)
    monkeypatch.setattr(command_run, "_failed", lambda _: False)
    asked = Request(
        scenario="boot",
        given={"targets": ["process"]},
        config=None,
        store=None,
        html=None,
        dry_run=False,
        wait=True,
        as_json=False,
    )
    assert run_scenario(asked) == 0
    assert begun == ["once it was free"]
