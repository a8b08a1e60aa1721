"""The run that was started from the page: an ordinary `lab run` in a process of its own, heard by its events.

Nothing of this wakes the server more than four times a second, and while it measures nothing else of the lab's is run
from the page.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.web.commands import Commands, typed
from lab.web.race import Race

LEAST_BETWEEN_S = 0.25
"""Between two updates of the page: each has a browser paint, perhaps on the very machine that is measured."""

_PIECE = 256 << 10
_LONGEST_LINE = 4 << 20
_LAST_TOLD = 16 << 10


class Running:
    """The page's run, and everybody who watches it: all of them see the same."""

    def __init__(self, commands: Commands) -> None:
        self.race: Race | None = None
        self._commands = commands
        self._process: asyncio.subprocess.Process | None = None
        self._ending: asyncio.Task[None] | None = None
        self._number = 0
        self._shown = b""
        self._changed = asyncio.Event()
        self._stops = False
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a run goes on."""
        return self._ending is not None and not self._ending.done()

    async def start(self, words: Sequence[str]) -> None:
        """Begin it. Raises LabError where one goes on."""
        if self.busy or self._closed:
            raise LabError("a run goes on: it holds this machine until it ends")
        self._process, self._stops = None, False
        race = self.race = Race(typed(words))
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ending = asyncio.create_task(self._run(words, race, begun))
        await begun

    def stop(self) -> None:
        """Ask it to end, as Ctrl-C does: what was measured is kept, and what was made is removed."""
        if not self.busy or self.race is None:
            return
        self._stops = True  # it may not have begun yet
        self.race.stopping()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
        self._tell()

    async def close(self) -> None:
        """End it, and wait until it has cleaned up; then everybody who watches is let go."""
        self.stop()
        if self._ending is not None:
            await asyncio.wait([self._ending])
        self._closed = True
        self._changed.set()

    async def follow(self) -> AsyncIterator[bytes]:
        """What is to be seen now, and again whenever that has changed, as lines of an event stream; a comment at least
        every 15 s, which shows a viewer that the server lives."""
        seen = -1
        while not self._closed:
            if seen != self._number:
                seen = self._number
                yield b"id: %d\ndata: %b\n\n" % (seen, self._state())
                await asyncio.sleep(LEAST_BETWEEN_S)
                continue
            try:
                async with asyncio.timeout(15):
                    await self._changed.wait()
            except TimeoutError:
                yield b": here\n\n"

    def _state(self) -> bytes:
        """Made once for all who watch."""
        if not self._shown:
            told: Any = self.race.shown() if self.race is not None else None
            self._shown = json.dumps(told, separators=(",", ":")).encode()
        return self._shown

    def _tell(self) -> None:
        self._number += 1
        self._shown = b""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run(self, words: Sequence[str], race: Race, begun: asyncio.Future[None]) -> None:
        reads, writes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writes, True)
        async with self._commands.quiet():
            with tempfile.TemporaryDirectory(prefix="lab-serve-") as folder:
                path = Path(folder) / "told"
                try:
                    if self._stops:
                        os.close(writes)
                        raise InterruptedError(errno.EINTR, "it was stopped before")
                    await self._begin([*words, "--events", str(writes)], path, writes)
                    begun.set_result(None)
                    self._tell()
                    await self._hear(reads, race)
                    code = await self._ended()
                    race.ended(code if code >= 0 else 128 - code, _last(path))
                except OSError as error:
                    race.ended(130 if self._stops else 1, f"the run could not be started: {error.strerror}")
                    begun.set_exception(LabError(race.told))
                finally:
                    os.close(reads)
            self._tell()

    async def _ended(self) -> int:
        return await self._process.wait() if self._process is not None else 1

    async def _begin(self, words: Sequence[str], path: Path, writes: int) -> None:
        """The run's process has the only other end of the pipe once this returns. Raises OSError."""
        try:
            with path.open("wb") as told:
                self._process = await asyncio.create_subprocess_exec(
                    *self._commands.program(words),
                    env={**self._commands.environment(), "COLUMNS": "100"},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=told,
                    stderr=told,
                    pass_fds=(writes,),
                    start_new_session=True,
                )
        finally:
            os.close(writes)

    async def _hear(self, reads: int, race: Race) -> None:
        """All that the run tells, until it has closed its end."""
        loop = asyncio.get_running_loop()
        rest = b""
        while True:
            await _readable(loop, reads)
            piece = os.read(reads, _PIECE)
            if not piece:
                return
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                rest = b""
            for line in lines:
                with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):  # of another version's
                    race.hear(json.loads(line))
            self._tell()
            await asyncio.sleep(LEAST_BETWEEN_S)


async def _readable(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    there = loop.create_future()
    loop.add_reader(descriptor, there.set_result, None)
    try:
        await there
    finally:
        loop.remove_reader(descriptor)


def _last(path: Path) -> str:
    with path.open("rb") as told:
        told.seek(max(0, path.stat().st_size - _LAST_TOLD))
        return told.read().decode(errors="replace")
