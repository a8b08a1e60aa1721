"""The lab's own commands as children: all that the page shows is what a user would have got by typing.

So the server stays small beside what is measured, a page is never other than its command, and what a page asks for is
in one place: a few words, each of a form that no option has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import BadInput, LabError

MOST_ROUNDS = 1000
MOST_TARGETS = 32

_LONGEST_S = 120.0
_QUEUE = 8
_TO_END_S = 10.0
_LINES = 12

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,127}")
_SCENARIO = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_TARGET = re.compile(r"[a-z][a-z0-9_-]{0,63}(?::[A-Za-z0-9][A-Za-z0-9._+-]{0,63})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a run is to ask of which targets."""

    scenario: str
    targets: Sequence[str]
    rounds: int

    @classmethod
    def read(cls, told: object) -> Question:
        """Of what the page sent. Raises BadInput."""
        if not isinstance(told, dict) or set(told) != {"scenario", "targets", "rounds"}:
            raise BadInput("a question has scenario, targets and rounds")
        targets, rounds = told["targets"], told["rounds"]
        if not isinstance(targets, list) or not 1 <= len(targets) <= MOST_TARGETS:
            raise BadInput(f"choose one target at least, and at most {MOST_TARGETS}")
        if not isinstance(rounds, int) or isinstance(rounds, bool) or not 1 <= rounds <= MOST_ROUNDS:
            raise BadInput(f"the rounds are a number from 1 to {MOST_ROUNDS}")
        return cls(
            scenario=_word(told["scenario"], _SCENARIO, "scenario"),
            targets=[_word(one, _TARGET, "target") for one in targets],
            rounds=rounds,
        )

    @property
    def words(self) -> tuple[str, ...]:
        """What a user would type after `lab`."""
        return "run", self.scenario, "--targets", ",".join(self.targets), "--rounds", str(self.rounds)


def typed(words: Sequence[str]) -> str:
    """A command as a user would type it."""
    return shlex.join(["lab", *words])


def run_id(text: str) -> str:
    """Raises BadInput where it can be no run's."""
    return _word(text, _RUN, "run")


def scenario_name(text: str) -> str:
    """Raises BadInput where it can be no scenario's."""
    return _word(text, _SCENARIO, "scenario")


def _word(text: object, form: re.Pattern[str], what: str) -> str:
    if not isinstance(text, str) or not form.fullmatch(text):
        raise BadInput(f"{str(text)[:60]!r} is no {what}'s name")
    return text


@dataclass(slots=True)
class Commands:
    """Runs `lab` on the store `store`: a command at a time, since more would only disturb each other."""

    store: str | None = None
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    _waiting: int = 0

    def environment(self) -> Mapping[str, str]:
        """A child's. The store goes by it, and not by an argument, which every user of this machine can read."""
        return {**os.environ, **({"LAB_STORE": self.store} if self.store is not None else {})}

    def program(self, words: Sequence[str]) -> list[str]:
        """What is executed for `lab WORDS`; the folder that the server stands in is not where the lab is looked for."""
        return [sys.executable, "-P", "-m", "lab", *words]

    async def json(self, *words: str) -> Any:
        """What `lab WORDS --json` prints. Raises LabError with what it complained of."""
        out = await self._ran([*words, "--json"])
        try:
            return json.loads(out)
        except ValueError as error:
            raise LabError(f"`{typed(words)}` printed no JSON") from error

    async def page(self, *words: str) -> bytes:
        """The page that `lab WORDS --html FILE` writes. Raises LabError."""
        with tempfile.TemporaryDirectory(prefix="lab-serve-") as folder:
            path = Path(folder) / "page.html"
            await self._ran([*words, "--html", str(path)])
            return path.read_bytes()

    async def _ran(self, words: Sequence[str]) -> bytes:
        async with self._one_at_a_time():
            child = await asyncio.create_subprocess_exec(
                *self.program(words),
                env=self.environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(_LONGEST_S):
                    out, complaint = await child.communicate()
            except TimeoutError as error:
                raise LabError(f"`{typed(words)}` did not end within {_LONGEST_S:.0f} s") from error
            finally:
                await _end(child)
        # A doctor's or a plan's exit code may tell of what is shown; without output there is only the complaint.
        if child.returncode and not out.strip():
            raise LabError(complained(complaint) or f"`{typed(words)}` ended with {child.returncode}")
        return out

    @contextlib.asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """While it is entered, no command runs: those that are asked for wait."""
        async with self._turn:
            yield

    @contextlib.asynccontextmanager
    async def _one_at_a_time(self) -> AsyncIterator[None]:
        if self._waiting >= _QUEUE:
            raise LabError("too much was asked for at once: wait a little")
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1


async def _end(child: asyncio.subprocess.Process) -> None:
    """End a child that was broken off: as Ctrl-C does, then by force."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TO_END_S):
                await child.wait()


def complained(written: bytes) -> str:
    """The last lines that a command wrote to say why it ended, without the lab's name in front."""
    lines = written.decode(errors="replace").strip().splitlines()[-_LINES:]
    found = [number for number, line in enumerate(lines) if line.startswith("lab: ")]
    if found:
        lines = [lines[found[-1]].removeprefix("lab: "), *(line.strip() for line in lines[found[-1] + 1 :])]
    return "\n".join(lines)
