"""What a run tells another program while it goes on: a JSON object a line, in a file or a descriptor (docs/serve.md).

Telling must not be seen in what is told. Where a mark is made, it is put on a queue, and nothing else: no text is made,
nothing is written, nobody is woken. A thread looks at the queue ten times a second, whatever happens, and writes what
it finds there in one piece. It never waits for a reader: what a reader has not taken stays in memory, up to a limit,
beyond which it is dropped, counted and told. A reader that has gone ends the telling, and not the run.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import itertools
import json
import os
import select
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import BadInput
from lab.run.estimate import Span
from lab.run.runner import Progress
from lab.store.record import LaunchRecord, TargetRecord
from lab.store.sample import Sample
from lab.timeline import Clock, MarkRecord, Phase, Timeline

VERSION = 1
TELL_EVERY_S = 0.1
MOST_SAMPLES = 200
"""Of one launch; a scenario that takes thousands tells how many it has left out."""

_MOST_WAITING = 8 << 20
"""Bytes that a reader has not taken."""
_PIECE = 4096  # PIPE_BUF: so much a pipe takes at once, where poll(2) says that it can be written to
_LAST_WORDS_S = 2.0


class Events:
    """A `Progress` that tells, and the `on_launch` of a `Runner`. Its methods cost their caller some microseconds."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: collections.deque[tuple[int, int, Any]] = collections.deque()
        self._numbers: dict[int, tuple[int, Timeline]] = {}
        self._count = itertools.count(1)
        self._begun_ns = time.monotonic_ns()
        self._requested_ns: dict[int, int] = {}
        self._waiting = bytearray()
        self._lost = 0
        self._gone = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_telling, name="events", daemon=True)
        self._thread.start()

    def say(self, event: str, **told: Any) -> None:
        """Tell of anything that has no method of its own; JSON values."""
        self._queue.append((time.monotonic_ns(), 0, {"event": event, **told}))

    def on_launch(self, target: str, iteration: int, warmup: bool, timeline: Timeline) -> None:
        """Tell of each mark of this launch, as it is made."""
        number = next(self._count)
        self._numbers[id(timeline)] = number, timeline
        self.say("launch", launch=number, target=target, iteration=iteration, warmup=warmup)
        queue = self._queue
        timeline.watch(lambda mark: queue.append((0, number, mark)))

    def preparing(self, target: str) -> None:
        self.say("preparing", target=target)

    def launching(self, target: str, iteration: int, warmup: bool) -> None:
        self.say("turn", target=target, iteration=iteration, warmup=warmup)

    def committed(self, launch: LaunchRecord, samples: Sequence[Sample]) -> None:
        number, _ = self._numbers.pop(id(launch.timeline), (None, None))
        self.say(
            "committed",
            launch=number,
            target=launch.target,
            iteration=launch.iteration,
            warmup=launch.warmup,
            outcome=launch.outcome.value,
            error=launch.error,
            samples=[
                {"metric": one.metric, "value": one.value, "unit": one.unit, "dimensions": dict(one.dimensions)}
                for one in samples[:MOST_SAMPLES]
            ],
            samples_left_out=max(0, len(samples) - MOST_SAMPLES),
        )

    def turned(self, left: Span) -> None:
        self.say("turned", left_s=[left.least_s, left.most_s])

    def round_over(self, iteration: int, left: Span) -> None:
        self.say("round_over", iteration=iteration, left_s=[left.least_s, left.most_s])

    def target_changed(self, record: TargetRecord) -> None:
        told = {"outcome": record.outcome.value, "reason": record.reason, "remedy": record.remedy}
        self.say("target", target=record.target, **told)

    def cleaning(self) -> None:
        self.say("cleaning")

    def problem(self, text: str) -> None:
        self.say("problem", text=text)

    def close(self) -> None:
        """Write what is left, for as long as a reader takes it. Idempotent."""
        self._ended.set()
        self._thread.join(_LAST_WORDS_S + 1)

    def _keep_telling(self) -> None:
        while not self._ended.wait(TELL_EVERY_S):
            self._tell()
        until = time.monotonic() + _LAST_WORDS_S
        self._tell()
        while self._waiting and not self._gone and time.monotonic() < until:
            time.sleep(TELL_EVERY_S / 10)
            self._tell()
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def _tell(self) -> None:
        while self._queue:
            at_ns, number, what = self._queue.popleft()
            told = self._mark(number, what) if isinstance(what, MarkRecord) else self._timed(at_ns, what)
            line = json.dumps(told, separators=(",", ":"), default=str).encode() + b"\n"
            if self._gone or len(self._waiting) + len(line) > _MOST_WAITING:
                self._lost += 1
                continue
            if self._lost:
                self._waiting += b'{"event":"lost","lines":%d}\n' % self._lost
                self._lost = 0
            self._waiting += line
        self._write()

    def _timed(self, at_ns: int, told: Mapping[str, Any]) -> dict[str, Any]:
        return {"event": told["event"], "at_s": round((at_ns - self._begun_ns) / 1e9, 6), **told}

    def _mark(self, number: int, mark: MarkRecord) -> dict[str, Any]:
        """`ns` counts from the launch's own `requested`; of a guest's clock it is that clock's."""
        if mark.phase is Phase.REQUESTED:
            self._requested_ns = {number: mark.ns, **dict(itertools.islice(self._requested_ns.items(), 1000))}
        since_ns = self._requested_ns.get(number, mark.ns) if mark.clock is not Clock.GUEST else 0
        return {
            "event": "mark",
            "launch": number,
            "phase": mark.phase.value,
            "ns": mark.ns - since_ns,
            "clock": mark.clock.value,
            "source": mark.source.value,
        }

    def _write(self) -> None:
        """As much as the reader takes without waiting. The descriptor's own mode is left alone: it may be shared."""
        asked = select.poll()
        try:
            asked.register(self._descriptor, select.POLLOUT)
            while self._waiting and asked.poll(0):
                del self._waiting[: os.write(self._descriptor, self._waiting[:_PIECE])]
        except OSError:
            self._gone = True
            self._waiting.clear()


@dataclass(frozen=True, slots=True)
class Several:
    """A `Progress` that is told to several, one after the other."""

    watchers: Sequence[Progress]

    def preparing(self, target: str) -> None:
        for one in self.watchers:
            one.preparing(target)

    def launching(self, target: str, iteration: int, warmup: bool) -> None:
        for one in self.watchers:
            one.launching(target, iteration, warmup)

    def committed(self, launch: LaunchRecord, samples: Sequence[Sample]) -> None:
        for one in self.watchers:
            one.committed(launch, samples)

    def turned(self, left: Span) -> None:
        for one in self.watchers:
            one.turned(left)

    def round_over(self, iteration: int, left: Span) -> None:
        for one in self.watchers:
            one.round_over(iteration, left)

    def target_changed(self, record: TargetRecord) -> None:
        for one in self.watchers:
            one.target_changed(record)

    def cleaning(self) -> None:
        for one in self.watchers:
            one.cleaning()

    def problem(self, text: str) -> None:
        for one in self.watchers:
            one.problem(text)


@contextlib.contextmanager
def telling(to: str | None) -> Iterator[Events | None]:
    """Events to the file `to`, or the inherited descriptor of that number; None where nobody asked. Raises BadInput."""
    if to is None:
        yield None
        return
    events = Events(_opened(to))
    try:
        yield events
    finally:
        events.close()


def _opened(to: str) -> int:
    if to.isdecimal():
        return _inherited(int(to))
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(to, flags, 0o600)
    except OSError as error:
        why = "nobody reads that pipe" if error.errno == errno.ENXIO else error.strerror
        raise BadInput(
            f"--events {to}: {why}", resolution=f"name a file in a folder that is there, such as {Path(to).name}.jsonl"
        ) from error
    except ValueError as error:  # a NUL byte
        raise BadInput(f"--events: {error}") from error
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return descriptor
    os.set_blocking(descriptor, True)  # opened by this process alone; poll(2) tells when it takes a piece
    return descriptor


def _inherited(number: int) -> int:
    """A copy of it that nothing which the run starts inherits."""
    try:
        mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        if mode == os.O_RDONLY:
            raise BadInput(f"--events {number}: that descriptor is open for reading only")
        copy = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
        if number > 2:
            os.close(number)
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"--events {number}: no such descriptor is open",
            resolution=f"`lab run … --events {number} {number}> events.jsonl`, or name a file",
        ) from error
    return copy
