"""Which signals end a run, once, and what those that follow do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab.run.interrupts import Interrupts

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    assert before == {number: signal.getsignal(number) for number in NUMBERS}


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_ends_and_later_ones_only_speak(number: signal.Signals) -> None:
    said: list[str] = []
    with Interrupts(lambda: said.append("cleaning")) as interrupts:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert said == ["cleaning"]
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_nothing_ends_what_is_held() -> None:
    with Interrupts() as interrupts:
        interrupts.hold()
        for number in NUMBERS:
            os.kill(os.getpid(), number)
        interrupts.check()


def test_programs_that_clean_up_outlive_a_second_hangup() -> None:
    with Interrupts() as interrupts:
        interrupts.hold()
        code = "import os, signal; os.kill(os.getpid(), signal.SIGHUP); print('alive')"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"alive\n"


def test_an_inner_one_gives_back_to_the_outer() -> None:
    with Interrupts():
        with Interrupts() as inner:
            inner.hold()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)


def test_under_nohup_a_hangup_is_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
            with Interrupts():
                os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
