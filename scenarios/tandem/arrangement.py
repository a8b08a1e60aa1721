"""Who does the jobs of a burst: the service itself, another instance, a function's workers, or guests that wake."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from lab.driver import Instance
from lab.errors import MeasurementError, Unsupported
from lab.features import Invoked, Limited, Sleeps, SleepState
from lab.launch.session import Session
from lab.launch.waiter import Waiter
from lab.scenario import Bench
from lab.timeline import HostClock
from scenarios.tandem.burst import AT_A_TIME, Burst, Job, burst, joined

_COLD_S = 60.0
_SLEEP_S = 120.0
_PATIENCE_S = 0.1
"""As `wake` has it: a guest's forwarder may have taken a connection before the guest's memory was back."""
_OWN_LIMIT = f"{AT_A_TIME} jobs at a time in one instance, and none waits: one more is refused with 503"


class Name(StrEnum):
    """Of an arrangement: the dimension `arrangement`."""

    WITHIN = "within"
    BESIDE = "beside"
    FUNCTION = "function"
    WOKEN = "woken"


class Arrangement(Protocol):
    """`parts` are the instances beside the service's own; `limit` says how many jobs are taken at a time."""

    name: Name
    parts: Sequence[Session]
    limit: str

    def burst(self, job: Job, count: int, *, timeout_s: float) -> Burst:
        """Have `count` jobs done. Raises DriverError, MeasurementError."""

    def to_rest(self) -> None:
        """Bring it to where it is long after a burst. Raises DriverError, MeasurementError."""

    def settle(self) -> None:
        """Do what the tandem itself does when a burst is over. Raises DriverError."""

    def cold_starts(self) -> int:
        """How many came for the last burst that had not been there before. Raises DriverError, MeasurementError."""

    def files(self) -> Sequence[Path]:
        """What of it lies on disk while it rests. Raises DriverError."""


class Plain:
    """By the service's own instance (`within`), or by one that is always there."""

    def __init__(self, worker: Session, clock: HostClock, *, beside: bool) -> None:
        self.name = Name.BESIDE if beside else Name.WITHIN
        self.parts: Sequence[Session] = [worker] if beside else []
        self.limit = _OWN_LIMIT
        self._worker = worker
        self._clock = clock

    def burst(self, job: Job, count: int, *, timeout_s: float) -> Burst:
        """As `Arrangement.burst`."""
        return burst(self._worker, job, count, self._clock, timeout_s=timeout_s)

    def to_rest(self) -> None:
        """Nothing: it rests where it is."""

    def settle(self) -> None:
        """Nothing."""

    def cold_starts(self) -> int:
        """None: it was there."""
        return 0

    def files(self) -> Sequence[Path]:
        """None."""
        return ()


class Function:
    """By the workers of a function, which come by call."""

    def __init__(self, bench: Bench, session: Session) -> None:
        self.name = Name.FUNCTION
        self.parts: Sequence[Session] = [session]
        self.limit = _function_limit(bench, session.instance)
        self._session = session
        self._clock = bench.clock
        self._met: set[str] = set(self._function.workers())
        self._at_zero = False

    @property
    def _function(self) -> Invoked:
        assert isinstance(self._session.instance, Invoked)  # noqa: S101  its target has the feature
        return self._session.instance

    def burst(self, job: Job, count: int, *, timeout_s: float) -> Burst:
        """As `Arrangement.burst`."""
        return burst(self._session, job, count, self._clock, timeout_s=timeout_s)

    def to_rest(self) -> None:
        """End every worker, and see that none is there (docs/method.md, rule 23)."""
        self._function.force_cold(timeout_s=_COLD_S)
        if left := self._function.workers():
            raise MeasurementError(f"workers were there after they were ended: {', '.join(left)}")
        self._at_zero = True

    def cold_starts(self) -> int:
        """Workers that were never seen before. Raises MeasurementError where none is new and none was there."""
        new = set(self._function.workers()) - self._met
        self._met |= new
        if self._at_zero and not new:
            raise MeasurementError("no worker was there before the burst, and none that is new after it")
        self._at_zero = False
        return len(new)

    def settle(self) -> None:
        """Nothing: its platform ends what nobody calls."""

    def files(self) -> Sequence[Path]:
        """None."""
        return ()


class Woken:
    """By guests that were saved to files, which are woken for a burst, and saved again after it."""

    def __init__(self, bench: Bench, sessions: Sequence[Session]) -> None:
        self.name = Name.WOKEN
        self.parts = sessions
        self.limit = _OWN_LIMIT
        self._clock = bench.clock
        self._awake: list[Session] = list(sessions)
        self._woken = 0

    def burst(self, job: Job, count: int, *, timeout_s: float) -> Burst:
        """As many guests as there are jobs for; each job is asked for when its guest has answered for the first time,
        and counts from just before the first was asked to wake."""
        shares = [count // len(self.parts) + (place < count % len(self.parts)) for place in range(len(self.parts))]
        wanted = [(session, share) for session, share in zip(self.parts, shares, strict=True) if share]
        begun_ns = self._clock.now_ns()
        self._awake = [session for session, _ in wanted]
        self._woken = len(wanted)
        with ThreadPoolExecutor(len(wanted)) as pool:
            parts = list(pool.map(lambda one: self._by(one[0], job, one[1], timeout_s), wanted))
        return joined(parts, begun_ns)

    def to_rest(self) -> None:
        """Save all."""
        self.settle()

    def settle(self) -> None:
        """Save what is awake."""
        awake, self._awake = self._awake, []
        for session in awake:
            _sleeper(session).sleep(SleepState.SAVED, timeout_s=_SLEEP_S)

    def cold_starts(self) -> int:
        """How many were woken."""
        return self._woken

    def files(self) -> Sequence[Path]:
        """What its guests were saved to."""
        return [path for session in self.parts for path in _sleeper(session).sleeps_on(SleepState.SAVED)]

    def _by(self, session: Session, job: Job, count: int, timeout_s: float) -> Burst:
        before = _token(session)
        waiter = Waiter(session.spec, self._clock, patience_s=_PATIENCE_S)
        try:
            waiter.start(session.instance.endpoint if session.instance is not None else None)
            _sleeper(session).wake(SleepState.SAVED)
            waiter.attempt()
            waiter.wait(timeout_s)
        finally:
            waiter.cancel()
        found = burst(session, job, count, self._clock, timeout_s=timeout_s)
        if any(one.told.get("token") != before for one in found.answered):
            raise MeasurementError("a guest that was to be restored was started anew: its token is another")
        return found


@contextlib.contextmanager
def arranged(bench: Bench, service: Session, name: Name, *, guests: int) -> Iterator[Arrangement]:
    """The arrangement of this name for the launched `service`, with what it needs beside it. Raises Unsupported where
    an instance of the target cannot be saved; DriverError, MeasurementError."""
    if name is Name.WITHIN:
        yield Plain(service, bench.clock, beside=False)
    elif name is Name.BESIDE:
        with bench.session() as other:
            yield Plain(other, bench.clock, beside=True)
    elif name is Name.FUNCTION:
        with bench.session() as function:
            yield Function(bench, function)
    else:
        with contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(bench.session()) for _ in range(guests)]
            for session in sessions:
                why = _sleeper(session).sleep_states().get(SleepState.SAVED, "its engine knows no such state")
                if why:
                    raise Unsupported(f"its instances cannot be saved and woken: {why}")
            yield Woken(bench, sessions)


def _sleeper(session: Session) -> Sleeps:
    if not isinstance(session.instance, Sleeps):
        raise Unsupported("its instances cannot sleep")
    return session.instance


def _token(session: Session) -> str:
    """What only the instance that was launched has in its memory, by its first answer."""
    told = session.answer.clock() if session.answer is not None else None
    return str(told.get("token", "")) if told else ""


def _function_limit(bench: Bench, instance: Instance | None) -> str:
    """How many calls a function takes at a time, by its platform's own word."""
    if isinstance(instance, Limited):
        most = bench.info.facts.get("workers_at_most")
        promised = instance.promises().get("concurrency", "its platform does not tell")
        return f"{promised}; here {most}" if most else promised
    return str(bench.info.facts.get("concurrency") or f"one worker takes what comes; {_OWN_LIMIT}")
