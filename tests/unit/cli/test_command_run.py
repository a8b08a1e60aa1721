"""What a user reads while a run goes on."""

from __future__ import annotations

import io

from rich.console import Console

from lab.cli.command_run import _Lines
from lab.store.record import LaunchRecord, Outcome
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
