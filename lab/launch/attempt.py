"""One attempt at an instance: a connection, what was asked on it, and what came of that.

An answer is what curl takes as one: any version of HTTP/1, 1xx before it, a body by length, by chunks with or without
trailers, or until the connection closes, of whatever size. h11 reads it; where h11 refuses headers that curl takes,
the status line counts, and the answer is complete when its length has come or the connection closes.
"""

from __future__ import annotations

import enum
import errno
import os
import re
import selectors
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h11

from lab.errors import LaunchError
from lab.spec import Endpoint, Ready, Spec
from lab.timeline import HostClock

STANDS_S = 0.25
"""A connection that says nothing counts as taken by the service when it is still open after this (`--ready tcp`)."""

_KEPT_BYTES = 65_536  # of a body: what the lab's own service tells is less
_HEADERS_BYTES = 300 * 1024  # curl, lib/http.h: MAX_HTTP_RESP_HEADER_SIZE
_SHOWN_BYTES = 60
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9][0-9])(?:[ \r\n]|$)")
_LENGTH = re.compile(rb"^content-length[ \t]*:[ \t]*(\d{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_NEEDS_TLS = re.compile(rb"HTTP request (was sent )?to (an )?HTTPS|speaking plain HTTP to an SSL")  # nginx, Go, Apache
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_TOLD_HEADERS = ("location", "allow", "www-authenticate")


class Came(enum.StrEnum):
    """What came instead of the answer that counts."""

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    RESET = "reset"
    CLOSED = "closed without a byte"
    SILENT = "accepted and silent"
    NO_HTTP = "no HTTP"
    TLS = "TLS"
    STATUS = "a status"
    BROKEN = "an answer that broke off"
    UNFINISHED = "an answer without an end"
    OTHERS = "another launch's answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one attempt ended; `said` are the first bytes of what is no HTTP, printable, or the system's words."""

    came: Came
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    said: str = ""

    def same_as(self, other: Outcome | None) -> bool:
        """Whether `other` tells a reader the same."""
        return other is not None and (self.came, self.status) == (other.came, other.status)


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint whose address is known to the system: IPv4, IPv6, or what its name stands for."""

    endpoint: Endpoint
    family: socket.AddressFamily
    address: tuple[Any, ...]

    @classmethod
    def of(cls, endpoint: Endpoint) -> Place:
        """Raises LaunchError for a name that stands for no address."""
        try:
            found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise LaunchError(
                f"the address {endpoint} at which the instance is to answer cannot be used: {error}",
                resolution="see what the engine tells as the instance's address",
            ) from error
        family, _, _, _, address = found[0]
        return cls(endpoint, family, address)


def request_of(place: Place, spec: Spec) -> bytes:
    """The bytes that each attempt at `place` sends; none where nothing is asked (Ready.TCP)."""
    return _asked(place.endpoint, spec)[1] if spec.ready is Ready.HTTP else b""


@dataclass(slots=True, eq=False)
class Attempt:
    """One connection, its request and as much of the answer as came; `sent_ns` is 0 until it stands.

    With Ready.TCP nothing is sent: `sent_ns` is then the instant at which the connection stood.
    """

    place: Place
    spec: Spec
    request: bytes
    connection: socket.socket
    started: float = 0.0
    sent_ns: int = 0
    received_ns: int = 0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    outcome: Outcome | None = None
    complete: bool = False
    _parser: h11.Connection | None = None
    _head: bytearray = field(default_factory=bytearray)
    _total: int = 0
    _loose: bool = False

    @classmethod
    def prepare(cls, place: Place, spec: Spec, request: bytes) -> Attempt:
        """What an attempt needs before it begins; `request` are the bytes that `request_of` gave. Raises OSError."""
        connection = socket.socket(place.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        return cls(place, spec, request, connection)

    def warm(self) -> Attempt:
        """Make what the answer will be read with now, and not when it comes."""
        if self.request:
            self._parser = _asked(self.place.endpoint, self.spec)[0]
        return self

    @property
    def awaits(self) -> int:
        """What the connection must be ready for next."""
        return selectors.EVENT_READ if self.sent_ns else selectors.EVENT_WRITE

    @property
    def stands(self) -> bool:
        """Whether it was accepted, its request has left, and nothing has ended it."""
        return self.sent_ns > 0 and not self.over

    @property
    def over(self) -> bool:
        return self.complete or self.outcome is not None

    @property
    def bytes_came(self) -> bool:
        """Whether the other side said anything."""
        return self._total > 0

    def begin(self, clock: HostClock) -> None:
        """Connect, and send at once: over loopback the connection stands when `connect` returns, whatever it says.
        Where it does not stand yet, or not at all, `advance` sees to it."""
        self.started = time.monotonic()
        try:
            code = self.connection.connect_ex(self.place.address)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            self._send(clock)
        except BlockingIOError:
            pass  # the handshake is under way
        except OSError as error:
            self.outcome = self._broken_off(error)

    def advance(self, selector: selectors.BaseSelector, clock: HostClock) -> None:
        """Send or receive what is possible now; afterwards `over` may be true."""
        try:
            if not self.sent_ns:
                self._send(clock)
                selector.modify(self.connection, selectors.EVENT_READ, self.connection)
                return
            data = self.connection.recv(65_536)
            self.received_ns = clock.now_ns()
        except BlockingIOError:
            return
        except OSError as error:
            self.outcome = self._broken_off(error)
            return
        self._take(data)

    def ripen(self, now: float) -> None:
        """Without HTTP, the connection is the answer once it has stood long enough; counted from when it stood."""
        if self.stands and self.spec.ready is Ready.TCP and now - self.started >= STANDS_S:
            self.received_ns, self.complete = self.sent_ns, True

    def so_far(self, now: float) -> Outcome | None:
        """What has come of it until `now`, where that is no answer that counts; None while nothing is known, as of one
        that has only just begun to stand."""
        if self.over or not self.sent_ns or now - self.started < STANDS_S:
            return self.outcome
        if self.status or self._head:
            return Outcome(came=Came.UNFINISHED, status=self.status, said=f"{self._total} bytes so far")
        return Outcome(came=Came.SILENT)

    def _send(self, clock: HostClock) -> None:
        """Raises BlockingIOError while the connection does not stand yet, and the OSError for which it will not."""
        sent_ns = clock.now_ns()
        if self.request:
            self.connection.sendall(self.request)
        else:
            self.connection.send(b"")  # says whether it stands, and nothing to the other side
        self.sent_ns = sent_ns

    def _take(self, data: bytes) -> None:
        self._total += len(data)
        self._head += data[: max(0, _KEPT_BYTES - len(self._head))]
        if self.spec.ready is Ready.TCP:
            if data:  # the service speaks first
                self.received_ns, self.complete = self.sent_ns, True
            else:
                self.outcome = Outcome(came=Came.CLOSED)
            return
        if self._head and not self.status and not self._head.startswith(b"HTTP/"[: len(self._head)]):
            self.outcome = _no_http(bytes(self._head))
            return
        try:
            done = self._read_loosely(data) if self._loose else self._parse(data)
        except h11.RemoteProtocolError:
            done = self._misread(data)
        if done:
            self._judge()

    def _parse(self, data: bytes) -> bool:
        parser = self._parser = self._parser or _asked(self.place.endpoint, self.spec)[0]
        parser.receive_data(data)
        while (event := parser.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response):
                self.status = event.status_code
                self.headers = _told(event.headers)
            elif isinstance(event, h11.Data):
                self.body += event.data[: max(0, _KEPT_BYTES - len(self.body))]
            elif isinstance(event, h11.EndOfMessage):
                return True
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                self.outcome = Outcome(came=Came.CLOSED)
                return False
        return False

    def _misread(self, data: bytes) -> bool:
        """h11 would not have it: an answer that broke off, one with headers that only curl takes, or no HTTP."""
        found = _STATUS_LINE.match(self._head)
        if self.status:
            self.outcome = Outcome(came=Came.BROKEN, status=self.status, said=f"after {self._total} bytes")
        elif found is not None:
            self.status, self._loose = int(found[1]), True
            return self._read_loosely(data)
        else:
            self.outcome = _no_http(bytes(self._head)) if self._total else Outcome(came=Came.CLOSED)
        return False

    def _read_loosely(self, data: bytes) -> bool:
        """By its length, or else to the connection's end."""
        blank = _BLANK_LINE.search(self._head)
        if blank is None:
            if not data or len(self._head) >= _KEPT_BYTES:
                self.outcome = Outcome(came=Came.BROKEN, status=self.status, said="within its headers")
            return False
        self.body = self._head[blank.end() :]
        length = _LENGTH.search(self._head, 0, blank.end())
        enough = length is not None and self._total >= blank.end() + int(length[1])
        if not data and length is not None and not enough:
            self.outcome = Outcome(came=Came.BROKEN, status=self.status, said=f"after {self._total} bytes")
            return False
        return enough or not data

    def _judge(self) -> None:
        """Whether the complete answer is this launch's, and its status one of those that count."""
        if self.status == 400 and _NEEDS_TLS.search(self.body):
            self.outcome = Outcome(came=Came.TLS)
        elif not any(low <= self.status <= high for low, high in self.spec.ready_status):
            self.outcome = Outcome(came=Came.STATUS, status=self.status, headers=self.headers)
        elif self.spec.builtin and self.spec.nonce.encode() not in self.body:
            self.outcome = Outcome(came=Came.OTHERS, status=self.status)
        else:
            self.complete = True

    def _broken_off(self, error: OSError) -> Outcome:
        if self.status:
            return Outcome(came=Came.BROKEN, status=self.status, said=f"after {self._total} bytes")
        if isinstance(error, ConnectionRefusedError):
            return Outcome(came=Came.REFUSED)
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            return Outcome(came=Came.RESET)
        return Outcome(came=Came.UNREACHABLE, said=error.strerror or str(error))


def _asked(endpoint: Endpoint, spec: Spec) -> tuple[h11.Connection, bytes]:
    """A parser that has sent the request, and the request's bytes."""
    given = {name.lower() for name, _ in spec.ready_headers}
    own = (("Host", endpoint.named), ("User-Agent", "stratalab"), ("Accept", "*/*"))
    headers = [(name, value) for name, value in own if name.lower() not in given]
    headers += [("Connection", "close"), *spec.ready_headers]
    if spec.builtin:
        headers.append(("X-Lab-Nonce", spec.nonce))
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEADERS_BYTES)
    request = parser.send(h11.Request(method="GET", target=spec.ready_path, headers=headers)) or b""
    return parser, request + (parser.send(h11.EndOfMessage()) or b"")


def _no_http(head: bytes) -> Outcome:
    if head[:2] == b"\x15\x03":  # RFC 8446, 5.1: an alert, which is how TLS answers a plain request
        return Outcome(came=Came.TLS)
    return Outcome(came=Came.NO_HTTP, said=_printable(head[:_SHOWN_BYTES]))


def _told(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Those headers that help a reader, printable and short."""
    return {
        name.decode(): _printable(value[:200])
        for name, value in headers
        if name.decode("ascii", "replace") in _TOLD_HEADERS
    }


def _printable(data: bytes) -> str:
    """What a terminal may show of it."""
    text = data.decode("ascii", "backslashreplace").strip()
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
