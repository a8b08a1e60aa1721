"""A program that is run to its end, and each way in which it fails."""

from __future__ import annotations

import os
import sys
import time

import pytest

from lab.errors import CleanupError, DriverError, DriverUnavailable
from lab.host import programs


def test_what_it_wrote_comes_back_apart_and_whole() -> None:
    ran = programs.run(["sh", "-c", "echo out; echo err >&2"], doing="speak", timeout_s=10)
    assert (ran.code, ran.stdout, ran.stderr) == (0, b"out\n", b"err\n")


def test_a_code_is_an_error_that_says_on_one_line_what_the_program_said_and_keeps_all_of_it() -> None:
    with pytest.raises(CleanupError) as raised:
        programs.run(["sh", "-c", "echo no; echo such >&2; exit 3"], doing="x", timeout_s=10, error=CleanupError)
    assert raised.value.brief == "sh could not x: such"
    assert raised.value.details == "such\nno"
    assert programs.run(["sh", "-c", "exit 3"], doing="x", timeout_s=10, check=False).code == 3


def test_a_program_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(DriverUnavailable, match=r"/no/such cannot be run: No such file"):
        programs.run(["/no/such"], doing="run", timeout_s=10)


def test_one_that_does_not_end_is_killed_and_what_it_began_is_ended_by_the_caller() -> None:
    told: list[str] = []
    begun = time.monotonic()
    with pytest.raises(DriverError, match=r"sleep could not wait within 0.2 s"):
        programs.run(["sleep", "60"], doing="wait", timeout_s=0.2, on_timeout=lambda: told.append("late"))
    assert told == ["late"] and time.monotonic() - begun < 30


def test_what_it_leaves_running_with_its_output_is_not_waited_for() -> None:
    begun = time.monotonic()
    ran = programs.run(["sh", "-c", "sleep 20 & echo done $!"], doing="leave one", timeout_s=10)
    os.kill(int(ran.stdout.split()[1]), 9)
    assert time.monotonic() - begun < 10


def test_a_flood_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "MOST_BYTES", 100)
    with pytest.raises(DriverError, match="more than 100 bytes"):
        programs.run([sys.executable, "-c", "print('x' * 200)"], doing="flood", timeout_s=30)
