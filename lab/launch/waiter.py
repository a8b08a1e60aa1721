"""Waiting for `ready`: what one patient client would see, equal for every target, and cheap (docs/method.md, rule 4).

Where the service's own `listening` line reaches the lab, the first attempt follows it at once (`marker`). Where none
can, attempts start when the engine says that the instance runs, or its guest's init that the workload is begun
(`poll`); with `--ready tcp` a connection that stands is enough (`tcp`). Earlier ones would disturb what they watch:
docker-proxy takes a connection while the container has no network yet, the host's search for its address fails, and
is repeated only up to a second later; QEMU's user-mode network takes one while the guest has no interface, and asks
again after six.

While nobody takes a connection, one is tried every 2 % of the time since the waiting began, but no more often than
every 5 ms and no less often than every 20 ms. One that was taken and whose request has left is kept, since a service
that thinks for long would never answer a client that does not wait; what is reset is replaced. Only when it was silent
for two seconds is a newer one tried beside it, and after that four, eight, ... seconds later: a forwarder may have
taken the first before anybody listened. Sooner ones would take the CPU from the first answer where a service has
several workers and an answer is work: 500 ms of it are over before a second one comes two seconds later, though the
machine give it a quarter of a CPU. (Where less than one is declared, patience is as much longer.)

A complete answer that does not count (another status) is followed by another attempt once 1 % of the time has passed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lab.errors import ReadyTimeout
from lab.launch.attempt import STANDS_S, Attempt, Came, Outcome, Place, request_of
from lab.launch.telling import Tally
from lab.spec import Endpoint, Ready, Spec
from lab.timeline import HostClock

ATTEMPT_EVERY_S = 0.020
"""While nobody takes a connection, attempts are no further apart; a census asks at this rate throughout."""
ABANDON_AFTER_S = 0.200
"""A census asks each replica anew, and waits no longer for one that does not answer."""
PATIENCE_S = 2.0
"""So long the only connection that stands is waited for before a newer one is tried beside it."""

_SOONEST_S = 0.005
_SHARE = 0.02
_AFTER_ANSWER_SHARE = 0.01
_BESIDE = 3
_CONNECT_S = 1.0  # a SYN without an answer is sent again after that (tcp(7)), and a new attempt does as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The first complete answer of this launch: when its request left, when its last byte came, what it said.

    Without HTTP (Ready.TCP) both instants are that at which the connection stood. `wait_cpu_ns` is the CPU time that
    this process spent since the waiter was in place, less what the thread that launches spent; `attempts` counts the
    connections that it took.
    """

    sent_ns: int
    received_ns: int
    status: int
    body: bytes
    attempts: int
    wait_cpu_ns: int

    def clock(self) -> Mapping[str, Any] | None:
        """The body of the service's `/clock`; None when it is something else."""
        with contextlib.suppress(ValueError):
            found = json.loads(self.body)
            if isinstance(found, dict) and "nonce" in found:
                return found
        return None


class Waiter:
    """A thread that waits for the first complete answer of one launch; started before the launch is asked for.

    What can be done ahead is: the first attempt's socket, request and parser are made by `start`, and the thread that
    hears the marker sends that request itself, so that no hand-over between threads counts as the platform's time.
    """

    def __init__(
        self,
        spec: Spec,
        clock: HostClock,
        *,
        accept: Callable[[Answer], bool] | None = None,
        patience_s: float | None = None,
    ) -> None:
        """With `accept`, who answers is asked again and again, at one rate: it is called with each answer, from the
        waiter's own thread, and ends the waiting by returning true. Less patience than `PATIENCE_S` is for where
        something takes connections that lead nowhere: a forwarder whose guest's memory is not back yet."""
        self._spec = spec
        self._clock = clock
        self._accept = accept
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._place: Place | None = None
        self._request = b""
        self._attempting = False
        self._cancelled = False
        self._answer: Answer | None = None
        self._failure: BaseException | None = None
        self._done = threading.Event()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._prepared: deque[Attempt] = deque()
        self._begun: deque[Attempt] = deque()
        self._in_place = threading.Event()
        self._cpu = _WaitCpu()
        self._tally = Tally(0.0)
        self._under_way: list[Outcome] = []
        self._thread = threading.Thread(target=self._run, name="lab-waiter", daemon=True)

    def start(self, endpoint: Endpoint | None) -> None:
        """Begin, and return when the thread waits; `endpoint` is None where the engine will choose it (see
        `set_endpoint`). From here on the lab's CPU counts as waiting, but for the calling thread's. Raises LaunchError
        for an address that cannot be used."""
        self._tally = Tally(time.monotonic())
        if endpoint is not None:
            self._aim(endpoint)
        self._thread.start()
        self._in_place.wait()

    def set_endpoint(self, endpoint: Endpoint) -> None:
        """The engine chose where the service answers: an attempt there waits for none that went elsewhere. Raises
        LaunchError for an address that cannot be used."""
        self._aim(endpoint)
        self._wake()

    def attempt(self) -> None:
        """Attempts make sense from now on: the first leaves within this call, more may follow. From any thread."""
        self._begin_prepared()
        self._attempting = True  # not before: the thread would begin an attempt of its own beside that one
        self._wake()

    def fail(self, error: Exception) -> None:
        """No answer will come: `wait` raises `error`, unless it has one. From any thread."""
        if not self._done.is_set():
            self._failure = error
            self._cancelled = True
            self._done.set()
            self._wake()

    def wait(self, timeout_s: float) -> Answer:
        """The first complete answer. Raises ReadyTimeout, which tells what came instead, ReadyRefused once that will
        not change by itself, and what `fail` was given."""
        if not self._done.wait(timeout_s):
            self.cancel()
            raise self._tally.timeout(self._spec, timeout_s, self._under_way)
        self.check()
        if self._answer is None:
            raise ReadyTimeout("the wait was cancelled")
        return self._answer

    def check(self) -> None:
        """Raises what ended the waiting, where that was no answer and no `cancel`."""
        if self._failure is not None:
            raise self._failure

    def cancel(self) -> None:
        """End the thread and its connections. Idempotent."""
        self._cancelled = True
        self._wake()
        if self._thread.ident is not None:
            self._thread.join()
        for unused in (*self._prepared, *self._begun):
            unused.connection.close()
        self._wake_in.close()
        self._wake_out.close()

    def _aim(self, endpoint: Endpoint) -> None:
        place = Place.of(endpoint)
        self._request = request_of(place, self._spec)
        self._tally.by_name = bool(endpoint.authority)
        self._place = place
        if not self._attempting:
            self._prepared.append(Attempt.prepare(place, self._spec, self._request).warm())

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # a full pipe wakes as well, and a closed one has nobody to wake
            self._wake_in.send(b"\0")

    def _begin_prepared(self) -> bool:
        """Begin the prepared attempt, if it is there and still meant; from any thread."""
        with contextlib.suppress(IndexError):  # another thread took it, or there is none
            attempt = self._prepared.pop()
            if attempt.place is self._place:
                attempt.begin(self._clock)
                self._begun.append(attempt)
                return True
            attempt.connection.close()
        return False

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_out, selectors.EVENT_READ)
                self._cpu.begin()
                self._in_place.set()
                self._attempt_until_answered(selector)
        except BaseException as error:
            self._failure = error
        finally:
            self._in_place.set()
            self._done.set()

    def _attempt_until_answered(self, selector: selectors.BaseSelector) -> None:
        open_ones = _Open(selector)
        pace: _Pace = _Census() if self._accept else _Patient(self._tally.began, self._spec, self._patience_s)
        count, aimed = 0, self._place
        try:
            while not self._cancelled:
                now, place = time.monotonic(), self._place
                if aimed is not place:
                    pace.anew()
                    open_ones.close_all()
                    aimed = place
                for one in pace.given_up(open_ones.attempts(), now):
                    open_ones.close(one)
                if place is not None and self._attempting and not self._begun and now >= pace.next_at():
                    self._begin(place)
                while self._begun:
                    attempt = self._begun.popleft()
                    count += 1
                    pace.began(attempt)
                    open_ones.add(attempt)
                due = pace.next_at() if self._attempting and place is not None else None
                open_ones.look(self._until(due, open_ones), self._wake_out, self._clock)
                for attempt in open_ones.ended():
                    if attempt.complete and self._is_enough(attempt, count):
                        return
                    self._note(attempt, pace)
        finally:
            now = time.monotonic()
            self._under_way = [told for one in open_ones.attempts() if (told := one.so_far(now)) is not None]
            open_ones.close_all()

    def _begin(self, place: Place) -> None:
        if not self._begin_prepared():
            self._begun.append(Attempt.prepare(place, self._spec, self._request))
            self._begun[-1].begin(self._clock)

    def _until(self, due: float | None, open_ones: _Open) -> float | None:
        """How long to look at most: to the next attempt, or to the instant at which a bare connection counts."""
        ripe = [one.started + STANDS_S for one in open_ones.attempts() if self._spec.ready is Ready.TCP and one.stands]
        instants = [*ripe, *([due] if due is not None else [])]
        return max(0.0, min(instants) - time.monotonic()) if instants else None

    def _is_enough(self, attempt: Attempt, count: int) -> bool:
        answer = Answer(
            sent_ns=attempt.sent_ns,
            received_ns=attempt.received_ns,
            status=attempt.status,
            body=bytes(attempt.body),
            attempts=count,
            wait_cpu_ns=self._cpu.so_far_ns(),
        )
        if self._accept is not None and not self._accept(answer):
            return False
        self._answer = answer
        return True

    def _note(self, attempt: Attempt, pace: _Pace) -> None:
        if attempt.outcome is None:
            return
        now = time.monotonic()
        pace.ended(attempt.outcome)
        self._tally.add(attempt.outcome, now)
        if self._accept is None and self._tally.steady(now):
            raise self._tally.refusal(self._spec, now)


# Launches asked for at once get different ports, though none of them listens yet.
_PLACES = itertools.count(int.from_bytes(os.urandom(2), "big"), 7)


def reserve_port(wanted: int | None = None) -> int:
    """A loopback TCP port on which nothing listens, below the range that the kernel hands out by itself.

    Raises OSError (EADDRINUSE) when `wanted` is taken.
    """
    first = 20_000 + next(_PLACES) % 12_000
    for port in [wanted] if wanted else range(first, first + 500):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # Closed connections of a service that just ended do not take the port; one that listens still does.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if wanted or error.errno != errno.EADDRINUSE:
                    raise
                continue
            return port
    raise OSError(errno.EADDRINUSE, "no free port was found on 127.0.0.1")


class _Open:
    """The connections of the attempts under way, and the selector that watches them."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._attempts: dict[socket.socket, Attempt] = {}
        self._ended: list[Attempt] = []

    def attempts(self) -> Collection[Attempt]:
        return self._attempts.values()

    def add(self, attempt: Attempt) -> None:
        """Watch it; one that has ended already is told by `ended` at once."""
        if attempt.over:
            attempt.connection.close()
            self._ended.append(attempt)
            return
        self._attempts[attempt.connection] = attempt
        self._selector.register(attempt.connection, attempt.awaits, attempt.connection)

    def look(self, timeout_s: float | None, wake: socket.socket, clock: HostClock) -> None:
        """Wait for something to happen, and do it."""
        if self._ended:
            return
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is wake:
                wake.recv(4096)
            else:
                self._attempts[key.data].advance(self._selector, clock)
        now = time.monotonic() if self._attempts else 0.0
        for attempt in list(self._attempts.values()):
            attempt.ripen(now)
            if attempt.over:
                self.close(attempt)
                self._ended.append(attempt)

    def ended(self) -> list[Attempt]:
        """Those that have ended since this was last asked."""
        ended, self._ended = self._ended, []
        return ended

    def close(self, attempt: Attempt) -> None:
        if self._attempts.pop(attempt.connection, None) is not None:
            self._selector.unregister(attempt.connection)
        attempt.connection.close()

    def close_all(self) -> None:
        for attempt in list(self._attempts.values()):
            self.close(attempt)


class _Pace(Protocol):
    """When the next attempt begins, and which of those under way are given up; times are of the monotonic clock."""

    def next_at(self) -> float: ...
    def began(self, attempt: Attempt) -> None: ...
    def ended(self, outcome: Outcome) -> None: ...
    def given_up(self, attempts: Collection[Attempt], now: float) -> list[Attempt]: ...
    def anew(self) -> None: ...


class _Patient:
    """One connection that stands is kept, and few newer ones are tried beside it."""

    def __init__(self, began: float, spec: Spec, patience_s: float) -> None:
        self._waiting_since = began
        self._patience_s = patience_s / min(1.0, spec.cpus)
        self._started: float | None = None
        self._standing = 0
        self._beside = 0
        self._last: Came | None = None

    def next_at(self) -> float:
        if self._started is None:
            return 0.0
        passed_s = self._started - self._waiting_since
        if self._standing and self._last is None:
            return self._started + self._patience_s * float(1 << self._beside)
        if self._last in (Came.STATUS, Came.OTHERS, Came.BROKEN, Came.NO_HTTP, Came.TLS):
            return self._started + max(ATTEMPT_EVERY_S, passed_s * _AFTER_ANSWER_SHARE)
        return self._started + min(ATTEMPT_EVERY_S, max(_SOONEST_S, passed_s * _SHARE))

    def began(self, attempt: Attempt) -> None:
        if self._standing and self._last is None:
            self._beside += 1
        self._started, self._last = attempt.started, None

    def ended(self, outcome: Outcome) -> None:
        self._last = outcome.came

    def given_up(self, attempts: Collection[Attempt], now: float) -> list[Attempt]:
        standing = [one for one in attempts if one.stands]
        connecting = [one for one in attempts if not one.stands]
        if not standing:
            self._beside = 0
        elif not self._standing:  # the first that stands is the one to wait for
            gone = connecting
            self._standing = len(standing)
            return gone
        self._standing = len(standing)
        # The oldest is the patient client's; of the others the newest are the likeliest to meet someone who listens.
        return [*standing[1:-_BESIDE], *(one for one in connecting if now - one.started > _CONNECT_S)]

    def anew(self) -> None:
        self._started, self._standing, self._beside, self._last = None, 0, 0, None


class _Census:
    """One attempt every 20 ms throughout, each waited for 200 ms."""

    def __init__(self) -> None:
        self._started: float | None = None

    def next_at(self) -> float:
        return 0.0 if self._started is None else self._started + ATTEMPT_EVERY_S

    def began(self, attempt: Attempt) -> None:
        self._started = attempt.started

    def ended(self, outcome: Outcome) -> None:
        """It makes no difference."""

    def given_up(self, attempts: Collection[Attempt], now: float) -> list[Attempt]:
        return [one for one in attempts if now - one.started > ABANDON_AFTER_S]

    def anew(self) -> None:
        self._started = None


class _WaitCpu:
    """This process's CPU time from `begin` on, less that of the thread that made this."""

    def __init__(self) -> None:
        self._launcher_clock = time.pthread_getcpuclockid(threading.get_ident())
        self._before_ns = 0

    def begin(self) -> None:
        self._before_ns = self._read()

    def so_far_ns(self) -> int:
        return self._read() - self._before_ns

    def _read(self) -> int:
        return time.process_time_ns() - time.clock_gettime_ns(self._launcher_clock)
