"""Requests every 2 ms, each on a new connection, until one is answered in full: for the programs that share no code
with the lab. Python's standard library only."""

from __future__ import annotations

import selectors
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from types import FrameType

EVERY_S = 0.002
ABANDON_AFTER_S = 0.2


@dataclass(eq=False)
class Try:
    """One connection."""

    connection: socket.socket
    begun: float
    sent: bool = False
    received: bytearray = field(default_factory=bytearray)

    def answered(self, nonce: bytes) -> bool:
        """Whether all of a 200 with the nonce has come."""
        head, separator, body = bytes(self.received).partition(b"\r\n\r\n")
        if not separator or not head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            return False
        lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return len(body) >= lengths[0] and nonce in body if lengths else False


def first_answer(port: int, nonce: str, *, timeout_s: float, failed: threading.Event) -> tuple[int, int]:
    """The CLOCK_MONOTONIC instant, in ns, at which the first complete answer was there, and how many tries it took.

    Raises TimeoutError, also when `failed` is set meanwhile.
    """
    request = f"GET /clock HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Lab-Nonce: {nonce}\r\nConnection: close\r\n\r\n".encode()
    deadline = time.monotonic() + timeout_s
    tries, next_try = 0, 0.0
    with selectors.DefaultSelector() as selector:
        while (now := time.monotonic()) < deadline and not failed.is_set():
            for key in list(selector.get_map().values()):
                if now - key.data.begun > ABANDON_AFTER_S:
                    _end(selector, key.data)
            if now >= next_try:
                connection = socket.socket()
                connection.setblocking(False)
                connection.connect_ex(("127.0.0.1", port))
                selector.register(connection, selectors.EVENT_WRITE, Try(connection, now))
                tries, next_try = tries + 1, now + EVERY_S
            for key, _ in selector.select(max(0.0, next_try - time.monotonic())):
                if _step(selector, key.data, request) and key.data.answered(nonce.encode()):
                    ended_ns = time.monotonic_ns()
                    for left in list(selector.get_map().values()):
                        _end(selector, left.data)
                    return ended_ns, tries
    raise TimeoutError(f"no complete answer within {timeout_s:g} s, in {tries} tries")


def _step(selector: selectors.BaseSelector, one: Try, request: bytes) -> bool:
    """Go on with a connection; True when it brought data."""
    try:
        if not one.sent:
            one.connection.sendall(request)
            one.sent = True
            selector.modify(one.connection, selectors.EVENT_READ, one)
            return False
        data = one.connection.recv(65536)
    except BlockingIOError:
        return False
    except OSError:  # refused or reset: nobody listens there yet
        data = b""
    if not data:
        _end(selector, one)
    one.received += data
    return bool(data)


def _end(selector: selectors.BaseSelector, one: Try) -> None:
    selector.unregister(one.connection)
    one.connection.close()


def end_on_sigterm() -> None:
    """Make SIGTERM an exception, so that what was made is removed."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(f"ended by signal {number}")

    signal.signal(signal.SIGTERM, end)
