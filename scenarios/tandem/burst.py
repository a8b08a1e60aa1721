"""Jobs: a fixed amount of work each, asked for all at once of one instance, and what became of each."""

from __future__ import annotations

import json
import selectors
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from lab.errors import MeasurementError
from lab.launch.attempt import Attempt, Place, request_of
from lab.launch.session import Session
from lab.service import ask
from lab.service.ask import SPARE_BYTES
from lab.timeline import HostClock
from lab.units import MIB

AT_A_TIME = 16
"""As many as one instance of the lab's service works at; one more is refused (lab/service/src/server/children.c)."""

_PROBE_STEPS = 20_000_000
_PROBES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`steps` of arithmetic, while `mib` MiB are held."""

    steps: int
    mib: int

    def path(self, memory_bytes: int) -> str:
        """What an instance of so much memory is asked, which sees to it that what jobs hold together fits there."""
        held = f"&mib={self.mib}&room={(memory_bytes - SPARE_BYTES) // MIB}" if self.mib else ""
        return f"/job?steps={self.steps}{held}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One job: the instant of its whole answer in ns of the host's clock, and what that told; `why` there is none."""

    received_ns: int = 0
    told: Mapping[str, Any]
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Jobs asked for from `begun_ns` on, in ns of the host's clock; `ended_ns` is when the last was answered or given
    up. `asked_ns` is when the last one's request had left."""

    begun_ns: int
    asked_ns: int
    ended_ns: int
    jobs: Sequence[Done]

    @property
    def answered(self) -> list[Done]:
        """By the order of their answers."""
        return sorted((one for one in self.jobs if not one.why), key=lambda one: one.received_ns)

    @property
    def reasons(self) -> Counter[str]:
        """Of the jobs that were not done, how many for which reason."""
        return Counter(one.why for one in self.jobs if one.why)

    @property
    def cpu_s(self) -> list[float]:
        """CPU time that each took, by the clock of the process that did it."""
        return [int(one.told["cpu_ns"]) / 1e9 for one in self.answered]

    def seconds(self) -> list[float]:
        """From the burst's begin until each was done, in order."""
        return [(one.received_ns - self.begun_ns) / 1e9 for one in self.answered]


def step_s(session: Session) -> float:
    """CPU time of one step in the instance, by its own clock: the least of a few tries, since others can only add.
    Raises DriverError, MeasurementError."""
    tries = [ask.get(session, f"/job?steps={_PROBE_STEPS}", timeout_s=60) for _ in range(_PROBES)]
    try:
        found = min(int(told["cpu_ns"]) / int(told["steps"]) for told in tries) / 1e9
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise MeasurementError("what the service told of a job is not whole", details=repr(error)) from error
    if found <= 0:
        raise MeasurementError("a job took no CPU time by the service's clock")
    return found


def burst(session: Session, job: Job, count: int, clock: HostClock, *, timeout_s: float) -> Burst:
    """`count` jobs asked of `session` one right after the other, each on a connection of its own, once; each is waited
    for, for `timeout_s` in all. Raises MeasurementError where it has no address."""
    instance = session.instance
    if instance is None or instance.endpoint is None:
        raise MeasurementError("an instance without an address cannot be given jobs")
    spec = replace(session.spec, ready_path=job.path(session.spec.memory_bytes))
    place = Place.of(instance.endpoint)
    request = request_of(place, spec)
    attempts = [Attempt.prepare(place, spec, request).warm() for _ in range(count)]
    begun_ns = clock.now_ns()
    try:
        with selectors.DefaultSelector() as selector:
            for attempt in attempts:
                attempt.begin(clock)
            _await(selector, attempts, clock, timeout_s)
    finally:
        for attempt in attempts:
            attempt.connection.close()
    jobs = [_done(attempt, job, timeout_s) for attempt in attempts]
    asked_ns = max((one.sent_ns for one in attempts), default=begun_ns)
    return Burst(begun_ns=begun_ns, asked_ns=asked_ns, ended_ns=clock.now_ns(), jobs=jobs)


def joined(parts: Sequence[Burst], begun_ns: int) -> Burst:
    """What several instances did of one burst that began at `begun_ns`."""
    return Burst(
        begun_ns=begun_ns,
        asked_ns=max(part.asked_ns for part in parts),
        ended_ns=max(part.ended_ns for part in parts),
        jobs=[one for part in parts for one in part.jobs],
    )


def _await(selector: selectors.BaseSelector, attempts: Sequence[Attempt], clock: HostClock, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    under_way = {attempt.connection: attempt for attempt in attempts if not attempt.over}
    for attempt in under_way.values():
        selector.register(attempt.connection, attempt.awaits)
    while under_way and (left_s := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left_s):
            attempt = under_way[cast("Any", key.fileobj)]
            attempt.advance(selector, clock)
            if attempt.over:
                selector.unregister(attempt.connection)
                del under_way[attempt.connection]


def _done(attempt: Attempt, job: Job, timeout_s: float) -> Done:
    if attempt.outcome is not None:
        status = f" {attempt.outcome.status}" if attempt.outcome.status else ""
        return Done(told={}, why=f"{attempt.outcome.came}{status}")
    if not attempt.complete:
        return Done(told={}, why=f"no answer within {timeout_s:g} s")
    try:
        told = json.loads(bytes(attempt.body))
        right = int(told["steps"]) == job.steps and int(told["mib"]) == job.mib and int(told["cpu_ns"]) > 0
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        return Done(told={}, why="an answer that does not say that the job was done")
    return Done(received_ns=attempt.received_ns, told=told)
