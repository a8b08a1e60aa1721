"""The run of the page: it can be stopped at any time, also before it has begun."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from lab.errors import LabError
from lab.web.commands import Commands
from lab.web.running import Running

TELLS = """
import os, sys, time
descriptor = int(sys.argv[sys.argv.index("--events") + 1])
os.write(descriptor, b'[]\\n{"event": "mark"}\\nno json\\n{"event": "begun", "run": "x"}\\n')
print("printed")
time.sleep(float(sys.argv[1]))
sys.exit(3)
"""


class Played(Commands):
    """A run that tells nonsense and one event."""

    def program(self, words: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", TELLS, *words]


async def _until_over(running: Running) -> dict[str, Any]:
    async for told in running.follow():
        if told.startswith(b"id: "):
            state = json.loads(told.partition(b"data: ")[2])
            if state is not None and state["code"] is not None:
                return dict(state)
    raise AssertionError


def test_nonsense_is_passed_over_and_its_words_and_code_are_kept() -> None:
    async def play() -> dict[str, Any]:
        running = Running(Played())
        await running.start(["0"])
        with pytest.raises(LabError, match="a run goes on"):
            await running.start(["0"])
        return await _until_over(running)

    state = asyncio.run(play())
    assert (state["state"], state["code"], state["told"]) == ("failed", 3, "printed\n")


def test_a_run_that_waits_for_a_command_of_the_page_is_stopped_before_it_begins() -> None:
    async def play() -> dict[str, Any]:
        commands = Played()
        running = Running(commands)
        async with commands.quiet():
            begun = asyncio.create_task(running.start(["60"]))
            await asyncio.sleep(0)
            assert running.busy
            running.stop()
        with pytest.raises(LabError, match="stopped before"):
            await begun
        return await _until_over(running)

    assert asyncio.run(play())["code"] == 130


def test_who_watches_is_let_go_when_the_page_closes() -> None:
    async def play() -> int:
        running = Running(Played())
        await running.start(["60"])
        watching = asyncio.create_task(_count(running))
        await asyncio.sleep(0.3)
        await running.close()
        assert not running.busy
        with pytest.raises(LabError):
            await running.start(["0"])
        return await watching

    assert asyncio.run(play()) >= 1


async def _count(running: Running) -> int:
    return len([told async for told in running.follow()])
