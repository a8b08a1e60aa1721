"""What a user reads while a run goes on."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from lab.cli import command_run
from lab.cli.command_run import Request, _Lines, run_scenario
from lab.cli.options import RunOptions
from lab.cli.start import Intent
from lab.run.estimate import Span
from lab.run.runner import Entrant
from lab.spec import Target
from lab.store.record import LaunchRecord, Outcome, RunStatus, TargetRecord
from lab.timeline import Clock, MarkRecord, Phase, Source, Timeline

SLOW = {"facts": {"slow_launch": {"why": "it looks anew", "remedy": "chmod it", "usual_s": 0.4}}}


def plan_of(info: Mapping[str, Any] | None = None, **options: Any) -> Intent:
    entrants = [
        Entrant(
            target=Target.parse(name),
            driver=None,
            info=None,
            record=TargetRecord(target=name, outcome=Outcome.OK, info=info or {}),
        )
        for name in ("docker", "libvirt:q35")
    ]
    plan = SimpleNamespace(options=RunOptions(targets=["docker"], **options), entrants=entrants)
    return cast("Intent", plan)


def launched(started_s: float) -> LaunchRecord:
    marks = [
        MarkRecord(phase=phase, ns=ns, clock=Clock.HOST, source=Source.LAB)
        for phase, ns in ((Phase.REQUESTED, 0), (Phase.STARTED, round(started_s * 1e9)))
    ]
    return LaunchRecord(
        target="libvirt:q35", iteration=0, warmup=True, outcome=Outcome.OK, timeline=Timeline(marks), facts={}
    )


def heard(plan: Intent, *calls: Callable[[_Lines], None]) -> list[str]:
    """The lines that are no launch's."""
    console = Console(file=io.StringIO(), width=200)
    lines = _Lines(console, plan, None)
    for call in calls:
        call(lines)
    assert isinstance(console.file, io.StringIO)
    return [line for line in console.file.getvalue().splitlines() if not line.startswith("committed")]


def test_where_there_is_no_terminal_each_round_is_a_line_with_the_time_that_is_left() -> None:
    calls = [
        partial(_Lines.round_over, iteration=iteration, left=Span(left_s, left_s))
        for iteration, left_s in enumerate((131.0, 70.2, 3600.0, 0.3))
    ]
    assert heard(plan_of(rounds=3, warmup=2), *calls) == [
        "warm-up 1 of 2 is over, about 2 min 11 s left",
        "warm-up 2 of 2 is over, about 1 min 10 s left",
        "round 1 of 3 is over, about 1 h left",
        "round 2 of 3 is over, about 1 s left",
    ]
    [adaptive] = heard(plan_of(until_ci="5%", warmup=0), lambda lines: lines.round_over(0, Span(9.0, 159.0)))
    assert adaptive == "round 1 of at most 160 is over, about 9 s to 2 min 39 s left"


@pytest.mark.parametrize("warmup", [1, 2, 0])
def test_what_each_launch_loses_is_told_once_after_the_warm_up_as_it_was_measured(warmup: int) -> None:
    over = [partial(_Lines.round_over, iteration=iteration, left=Span(1.0, 1.0)) for iteration in range(4)]
    launches = [partial(_Lines.committed, launch=launched(after_s), samples=[]) for after_s in (43.0, 51.5)]
    said = heard(plan_of(SLOW, warmup=warmup), launches[0], *over[:1], launches[1], *over[1:])
    [place] = [place for place, line in enumerate(said) if "of a launch pass" in line]
    assert place == max(warmup, 1), "after the last round of warm-up"
    lost = "47.2 s" if warmup == 2 else "43.0 s"
    assert said[place] == (
        f"libvirt:q35: {lost} of a launch pass before the engine has started it, where 400 ms is usual: "
        "it looks anew (chmod it)."
    )


@pytest.mark.parametrize(("info", "started_s"), [(SLOW, 0.9), ({}, 43.0)])
def test_nothing_is_said_of_what_loses_nothing_or_for_no_known_reason(
    info: Mapping[str, Any], started_s: float
) -> None:
    said = heard(
        plan_of(info),
        lambda lines: lines.committed(launched(started_s), []),
        lambda lines: lines.round_over(0, Span(1.0, 1.0)),
    )
    assert len(said) == 1


def _said(outcome: Outcome, **told: str) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    launch = LaunchRecord(
        target="docker", iteration=2, warmup=False, outcome=outcome, timeline=Timeline(), facts={}, **told
    )
    _Lines(console, plan_of(), None).committed(launch, [])
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_failed_launch_is_told_with_the_last_ten_lines_of_its_service() -> None:
    logs = "".join(f"line {number}\n" for number in range(1, 31))
    first, *lines = _said(Outcome.FAILED, error="the service ended with exit status 3", logs=logs)
    assert first == "committed docker round 2 samples 0 failed: the service ended with exit status 3"
    assert lines == [f"  | line {number}" for number in range(21, 31)]


def test_a_good_launch_is_a_line() -> None:
    assert _said(Outcome.OK) == ["committed docker round 2 samples 0"]


def asked(**changes: Any) -> Request:
    request = Request(
        scenario="boot",
        given={"targets": ["process"]},
        config=None,
        store=None,
        html=None,
        dry_run=False,
        wait=True,
        as_json=False,
    )
    return replace(request, **changes)


def test_a_dry_run_as_json_is_the_plan_with_how_long_and_by_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_scenario(asked(store=str(tmp_path / "lab.db"), dry_run=True, as_json=True)) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["scenario"], told["targets"], told["launches"]) == ("boot", ["process"], 11)
    assert told["likely"] == {
        "least_s": pytest.approx(1.1),
        "most_s": pytest.approx(1.1),
        "earlier_runs": {"process": 0},
    }
    assert "127.0.0.1" in told["changes"][0]


def test_a_run_begins_once_it_has_this_host_and_not_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def execute(_: Console, plan: Intent, *__: object) -> tuple[RunStatus, int]:
        begun.append(plan.run.started_at)
        return RunStatus.DONE, 0

    kept = SimpleNamespace(load=lambda _: None, timed=lambda *_: [])
    monkeypatch.setattr(command_run.Store, "open", lambda _: contextlib.nullcontext(kept))
    monkeypatch.setattr(command_run, "_alone", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(command_run, "now_iso", lambda: "once it was free")
    monkeypatch.setattr(command_run, "_execute", execute)
    monkeypatch.setattr(command_run, "_show_result", lambda *_: None)
    monkeypatch.setattr(command_run, "_failed", lambda _: False)
    assert run_scenario(asked()) == 0
    assert begun == ["once it was free"]
