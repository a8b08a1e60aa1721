"""Calls of a function as a client makes them, each with the instants that were seen of it, and the proof of its state.

A call is one new connection and one request, without a second try: what is refused or broken is a failed call. The
clock is read just before `connect`, since on some platforms the connection itself wakes the function.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from lab.driver import Instance
from lab.errors import MeasurementError
from lab.features import Bypassed, CallPhase, Invoked
from lab.launch.attempt import Attempt, Place, request_of
from lab.launch.session import Session, proves_shared
from lab.timeline import HostClock


class Unproven(Exception):
    """A call that is no sample: it had no answer, or its state is not proven; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One answered call. Instants are in ns of the host's clock; `told` is what /clock answered."""

    begun_ns: int
    sent_ns: int
    received_ns: int
    told: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """From just before the request to the complete answer."""
        return (self.received_ns - self.begun_ns) / 1e9

    @property
    def token(self) -> str:
        """What only the worker that answered has in its memory."""
        return str(self.told.get("token") or "")

    @property
    def served(self) -> int:
        """How many requests that worker has answered, with this one."""
        return int(self.told.get("served") or 0)

    def within(self) -> list[tuple[str, int]]:
        """The service's own instants that lie within the call, by its own clock where that is proven to be the
        host's: `main`, `listening` of a worker that was started for it, and `handler`, where it read its clock."""
        if not proves_shared(self.told, sent_ns=self.sent_ns, received_ns=self.received_ns):
            return []
        read = (("main", "main_ns"), ("listening", "listening_ns"), ("handler", "now_ns"))
        instants = [(phase, int(self.told[key])) for phase, key in read if key in self.told]
        return [(phase, ns) for phase, ns in instants if self.begun_ns <= ns <= self.received_ns]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """A call that was made: answered, or `why` it was not."""

    call: Call | None = None
    why: str = ""


@dataclass(slots=True)
class Followed:
    """What the platform showed while it was followed: the first instant of each worker's phases, and its source."""

    clock: HostClock
    seen: dict[str, dict[CallPhase, tuple[int, str]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, worker: str, phase: CallPhase, source: str) -> None:
        """`phase` of `worker` is now."""
        now_ns = self.clock.now_ns()
        with self._lock:
            self.seen.setdefault(worker, {}).setdefault(phase, (now_ns, source))


class Caller:
    """Calls the function of `session`, and remembers every worker and token that it ever met."""

    def __init__(self, session: Session, clock: HostClock, *, timeout_s: float) -> None:
        instance: Instance | None = session.instance
        if instance is None or instance.endpoint is None or not isinstance(instance, Invoked):
            raise MeasurementError("this instance is no function that can be called")
        self.function = instance
        self._session = session
        self._clock = clock
        self._timeout_s = timeout_s
        self._place = Place.of(instance.endpoint)
        self._request = request_of(self._place, session.spec)
        self._workers: set[str] = set(instance.workers())
        told = session.answer.clock() if session.answer is not None else None
        self._tokens: set[str] = {str(told["token"])} if told and told.get("token") else set()

    def make(self, count: int) -> list[Attempted]:
        """`count` calls, begun one right after the other, each waited for; in the order in which they were begun."""
        return self._complete([self._prepared(self._place, self._request) for _ in range(count)], bytes)

    def _complete(self, attempts: Sequence[Attempt], read: Callable[[bytes], bytes]) -> list[Attempted]:
        begun_ns = []
        try:
            with selectors.DefaultSelector() as selector:
                for attempt in attempts:
                    begun_ns.append(self._clock.now_ns())
                    attempt.begin(self._clock)
                self._await(selector, attempts)
        finally:
            for attempt in attempts:
                attempt.connection.close()
        return [_outcome(*each, self._timeout_s, read) for each in zip(attempts, begun_ns, strict=True)]

    def cold(self) -> tuple[Call, Followed]:
        """End every worker, and call: by a worker that was never seen before, whose first answer this is. Raises
        Unproven, DriverError."""
        self.to_zero()
        followed = Followed(self._clock)
        with self.function.follow(followed.note):
            call = _answered(self.make(1)[0])
            new = self.met(followed)
        self._require_first(call)
        if len(new) != 1:
            raise Unproven(
                f"one call was answered with {len(new)} new workers: {', '.join(sorted(new))}"
                if new
                else "its worker had been seen before"
            )
        self._tokens.add(call.token)
        return call, followed

    def first(self) -> Call:
        """Call a worker that is initialized and has answered nobody. Raises Unproven."""
        ready = self.function.workers()
        if not set(ready) - self._workers:
            raise Unproven("no worker was initialized that had not been seen before")
        self._workers |= set(ready)
        call = _answered(self.make(1)[0])
        new = self.met()
        self._require_first(call)
        if new:
            raise Unproven("it was answered by a worker that was started for it")
        self._tokens.add(call.token)
        return call

    def warm(self) -> Call:
        """Call a worker that has answered before. Raises Unproven."""
        call = _answered(self.make(1)[0])
        if not self.is_warm(call):
            raise Unproven(f"it was the answer {call.served} of a worker that had not answered before")
        return call

    def direct(self, before: Call) -> Call:
        """Ask the worker that answered `before` without its platform, when nobody else calls. Raises Unproven,
        DriverError."""
        if not isinstance(self.function, Bypassed):
            raise MeasurementError("this function's worker cannot be asked without its platform")
        if len(workers := self.function.workers()) != 1:
            raise Unproven(f"there is not one worker to be asked directly, but {len(workers)}")
        endpoint, request = self.function.past_platform(self._session.spec.ready_path)
        attempt = self._prepared(Place.of(endpoint), request)
        call = _answered(self._complete([attempt], self.function.service_answer)[0])
        if call.token != before.token:
            raise Unproven("it was answered by another worker than the call before it")
        if call.served != before.served + 1:
            raise Unproven(f"it was the answer {call.served} of its worker, and not {before.served + 1}")
        return call

    def to_zero(self) -> None:
        """End every worker, and see that there is none. Raises Unproven, DriverError."""
        self.function.force_cold(timeout_s=self._timeout_s)
        self._workers |= set(left := self.function.workers())
        if left:
            raise Unproven(f"workers were there after they were ended: {', '.join(sorted(left))}")

    def met(self, followed: Followed | None = None) -> set[str]:
        """The workers that are there now, or were followed, and were never seen before; from now on they were."""
        found = set(self.function.workers()) | set(followed.seen if followed else ())
        new = found - self._workers
        self._workers |= new
        return new

    def is_first(self, call: Call) -> bool:
        """Whether it is the first answer of what answered; the worker is another question."""
        return call.served == 1 and bool(call.token) and call.token not in self._tokens

    def is_warm(self, call: Call) -> bool:
        """Whether it is a later answer of a worker that answered before."""
        return call.served > 1 and call.token in self._tokens

    def learn(self, calls: Collection[Call]) -> None:
        """The workers that answered these have answered."""
        self._tokens |= {call.token for call in calls}

    def _require_first(self, call: Call) -> None:
        if not self.is_first(call):
            raise Unproven(f"it was the answer {call.served} of its worker, by what that counts in its memory")

    def _prepared(self, place: Place, request: bytes) -> Attempt:
        return Attempt.prepare(place, self._session.spec, request).warm()

    def _await(self, selector: selectors.BaseSelector, attempts: Sequence[Attempt]) -> None:
        deadline = time.monotonic() + self._timeout_s
        under_way = {attempt.connection: attempt for attempt in attempts if not attempt.over}
        for attempt in under_way.values():
            selector.register(attempt.connection, attempt.awaits)
        while under_way and (left_s := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                attempt = under_way[cast(socket.socket, key.fileobj)]
                attempt.advance(selector, self._clock)
                if attempt.over:
                    selector.unregister(attempt.connection)
                    del under_way[attempt.connection]


def _outcome(attempt: Attempt, begun_ns: int, timeout_s: float, read: Callable[[bytes], bytes]) -> Attempted:
    """`read` finds in the answer's body what the service said."""
    if attempt.outcome is not None:
        status = f" {attempt.outcome.status}" if attempt.outcome.status else ""
        return Attempted(why=f"{attempt.outcome.came}{status}")
    if not attempt.complete:
        return Attempted(why=f"no complete answer within {timeout_s:g} s")
    try:
        told = json.loads(read(bytes(attempt.body)))
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return Attempted(why="an answer that is not the service's /clock")
    return Attempted(call=Call(begun_ns=begun_ns, sent_ns=attempt.sent_ns, received_ns=attempt.received_ns, told=told))


def _answered(attempted: Attempted) -> Call:
    if attempted.call is None:
        raise Unproven(attempted.why)
    return attempted.call


def answered(attempted: Sequence[Attempted]) -> list[Call]:
    """Those that were answered, by the order of their answers."""
    calls = [one.call for one in attempted if one.call is not None]
    return sorted(calls, key=lambda call: call.received_ns)
