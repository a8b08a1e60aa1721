"""Waiting for `ready`: a new connection per attempt, equal for every target, and cheap (docs/method.md, rule 4).

Where the service's own `listening` line reaches the lab, the first attempt follows it at once (`marker`). Where none
can, attempts start when the engine says that the instance runs, come every 20 ms, overlap, and are abandoned after
200 ms (`poll-20ms`). Earlier ones would disturb what they watch: docker-proxy takes a connection while the container
has no network yet, the host's search for its address fails, and is repeated only up to a second later.

What takes longer than that for any answer would never be ready, kept busy by what was abandoned. So after 10 s of
asking, attempts come ever more slowly and wait ever longer; ten still overlap, and the instant of `ready` stays within
2.5 % of the time for which it was asked.
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h11

from lab.errors import ReadyTimeout
from lab.spec import Endpoint, Spec
from lab.timeline import HostClock

ATTEMPT_EVERY_S = 0.020
ABANDON_AFTER_S = 0.200
PATIENT_AFTER_S = 10.0
_PATIENCE = 0.25  # of the time since then, for each attempt
_BODY_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The first complete answer of this launch: when its request left, when its last byte came, what it said.

    `wait_cpu_ns` is the CPU time that this process spent since the waiter was in place, less what the thread that
    launches spent; `attempts` counts the connections that it took.
    """

    sent_ns: int
    received_ns: int
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

    def __init__(self, spec: Spec, clock: HostClock, *, accept: Callable[[Answer], bool] | None = None) -> None:
        """With `accept`, an answer that it refuses is passed over; it is called from the waiter's own thread."""
        self._spec = spec
        self._clock = clock
        self._accept = accept
        self._endpoint: Endpoint | None = None
        self._attempting = False
        self._cancelled = False
        self._answer: Answer | None = None
        self._failure: BaseException | None = None
        self._done = threading.Event()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._prepared: deque[_Attempt] = deque()
        self._begun: deque[_Attempt] = deque()
        self._in_place = threading.Event()
        self._cpu = _WaitCpu()
        self._thread = threading.Thread(target=self._run, name="lab-waiter", daemon=True)

    def start(self, endpoint: Endpoint | None) -> None:
        """Begin, and return when the thread waits; `endpoint` is None where the engine will choose it (see
        `set_endpoint`). From here on the lab's CPU counts as waiting, but for the calling thread's."""
        self._endpoint = endpoint
        if endpoint is not None:
            self._prepared.append(_Attempt.prepare(endpoint, self._spec))
        self._thread.start()
        self._in_place.wait()

    def set_endpoint(self, endpoint: Endpoint) -> None:
        """The engine chose where the service answers: an attempt there waits for none that went elsewhere."""
        self._endpoint = endpoint
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
        """The first complete answer. Raises ReadyTimeout, and what `fail` was given."""
        if not self._done.wait(timeout_s):
            self.cancel()
            raise ReadyTimeout(
                f"no complete answer of this launch within {timeout_s:g} s", resolution="give a longer --timeout"
            )
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

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # a full pipe wakes as well, and a closed one has nobody to wake
            self._wake_in.send(b"\0")

    def _begin_prepared(self) -> bool:
        """Begin the prepared attempt, if it is there and still meant; from any thread."""
        with contextlib.suppress(IndexError):  # another thread took it, or there is none
            attempt = self._prepared.pop()
            if attempt.endpoint == self._endpoint:
                attempt.begin(self._clock)
                self._begun.append(attempt)
                return True
            attempt.connection.close()
        return False

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector, contextlib.ExitStack() as connections:
                selector.register(self._wake_out, selectors.EVENT_READ)
                self._cpu.begin()
                self._in_place.set()
                self._attempt_until_answered(selector, connections)
        except BaseException as error:
            self._failure = error
        finally:
            self._in_place.set()
            self._done.set()

    def _attempt_until_answered(self, selector: selectors.BaseSelector, connections: contextlib.ExitStack) -> None:
        attempts: dict[socket.socket, _Attempt] = {}
        count, next_start, aimed = 0, 0.0, self._endpoint
        first: float | None = None
        while not self._cancelled:
            now = time.monotonic()
            # Who counts answers beyond the first asks at one rate throughout.
            abandon_after_s = ABANDON_AFTER_S if self._accept else patience_s(now - first if first is not None else 0.0)
            active = self._attempting and self._endpoint is not None
            if aimed != self._endpoint:
                next_start = 0.0
            for connection in [c for c, a in attempts.items() if now - a.started > abandon_after_s]:
                _drop(selector, attempts, connection)
            if active and not self._begun and now >= next_start and not self._begin_prepared():
                assert self._endpoint is not None  # noqa: S101  implied by `active`
                self._begun.append(_Attempt.prepare(self._endpoint, self._spec))
                self._begun[-1].begin(self._clock)
            while self._begun:
                attempt = self._begun.popleft()
                connections.callback(attempt.connection.close)
                attempts[attempt.connection] = attempt
                selector.register(attempt.connection, attempt.awaits, attempt.connection)
                first = attempt.started if first is None else first
                every_s = ATTEMPT_EVERY_S * abandon_after_s / ABANDON_AFTER_S
                count, next_start, aimed = count + 1, attempt.started + every_s, attempt.endpoint
            due = next_start if aimed == self._endpoint else 0.0
            timeout = max(0.0, due - time.monotonic()) if active else None
            for key, _ in selector.select(timeout):
                if key.fileobj is self._wake_out:
                    self._wake_out.recv(4096)
                    continue
                attempt = attempts[key.data]
                received_ns = attempt.advance(selector, self._clock)
                if attempt.good(self._spec) and received_ns is not None:
                    answer = Answer(
                        sent_ns=attempt.sent_ns,
                        received_ns=received_ns,
                        body=bytes(attempt.body),
                        attempts=count,
                        wait_cpu_ns=self._cpu.so_far_ns(),
                    )
                    if self._accept is None or self._accept(answer):
                        self._answer = answer
                        return
                if attempt.over:
                    _drop(selector, attempts, attempt.connection)


def patience_s(asked_s: float) -> float:
    """How long an attempt is waited for, in seconds, when the first was made `asked_s` ago; ten overlap."""
    return max(ABANDON_AFTER_S, (asked_s - PATIENT_AFTER_S) * _PATIENCE)


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


@dataclass(slots=True, eq=False)
class _Attempt:
    """One connection, its request and as much of the answer as came."""

    endpoint: Endpoint
    connection: socket.socket
    parser: h11.Connection
    request: bytes
    started: float = 0.0
    sent_ns: int = 0
    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    over: bool = False
    complete: bool = False

    @classmethod
    def prepare(cls, endpoint: Endpoint, spec: Spec) -> _Attempt:
        """All of an attempt that needs no service yet. Raises OSError."""
        parser = h11.Connection(h11.CLIENT)
        headers = [("Host", str(endpoint)), ("Connection", "close")]
        if spec.builtin:
            headers.append(("X-Lab-Nonce", spec.nonce))
        request = parser.send(h11.Request(method="GET", target=spec.ready_path, headers=headers)) or b""
        request += parser.send(h11.EndOfMessage()) or b""
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(endpoint, connection, parser, request)

    @property
    def awaits(self) -> int:
        """What the connection must be ready for next."""
        return selectors.EVENT_READ if self.sent_ns else selectors.EVENT_WRITE

    def begin(self, clock: HostClock) -> None:
        """Connect, and send at once: over loopback the connection stands when `connect` returns, whatever it says.
        Where it does not stand yet, or not at all, `advance` sees to it."""
        self.started = time.monotonic()
        self.connection.connect_ex((self.endpoint.host, self.endpoint.port))
        with contextlib.suppress(OSError):
            self._send(clock)

    def advance(self, selector: selectors.BaseSelector, clock: HostClock) -> int | None:
        """Send or receive what is possible now; the instant of the last reception once the answer is complete."""
        try:
            if not self.sent_ns:
                failure = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failure:
                    raise OSError(failure, os.strerror(failure))
                self._send(clock)
                selector.modify(self.connection, selectors.EVENT_READ, self.connection)
                return None
            data = self.connection.recv(65536)
            received_ns = clock.now_ns()
            self._parse(data)
        except BlockingIOError:
            return None
        except (OSError, h11.ProtocolError):  # refused, reset or not HTTP: not an answer; another attempt follows
            self.over = True
            return None
        return received_ns if self.complete else None

    def _send(self, clock: HostClock) -> None:
        sent_ns = clock.now_ns()
        self.connection.sendall(self.request)
        self.sent_ns = sent_ns

    def good(self, spec: Spec) -> bool:
        """Whether the answer is this launch's: a complete 200, and of the lab's own service one with the nonce."""
        return self.complete and self.status == 200 and (not spec.builtin or spec.nonce.encode() in self.body)

    def _parse(self, data: bytes) -> None:
        self.parser.receive_data(data)
        while (event := self.parser.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response):
                self.status = event.status_code
            elif isinstance(event, h11.Data):
                self.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.complete = self.over = True
                return
            if isinstance(event, h11.ConnectionClosed) or len(self.body) > _BODY_LIMIT_BYTES:
                self.over = True
                return


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


def _drop(selector: selectors.BaseSelector, attempts: dict[socket.socket, _Attempt], connection: socket.socket) -> None:
    selector.unregister(connection)
    connection.close()
    del attempts[connection]
