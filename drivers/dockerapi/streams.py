"""What the engine tells by itself: a container's output as it is written, and events as they happen."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from drivers.dockerapi.errors import is_engine_error, translated
from lab.driver import Mark
from lab.errors import DriverError, LaunchError
from lab.launch.lines import Lines
from lab.timeline import Source

if TYPE_CHECKING:
    from docker import APIClient

_HEADER = struct.Struct(">BxxxL")
_READ_BYTES = 65_536
_JOIN_TIMEOUT_S = 5.0
_ACTIONS = ("create", "start")
_END = "die"

Listener = Callable[[str, str], None]
"""Told of a container's event as it arrives: 'create' or 'start', and the container's id."""
EndListener = Callable[[str, int], None]
"""Told that a container ended: its id, and its exit code."""


class Frames:
    """Cuts an attached container's byte stream into (stream, payload): 1 is stdout, 2 stderr.

    Source: Docker Engine API, 'Attach to a container', stream format: 8 bytes of header, then the payload.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that `data` completes."""
        self._rest += data
        while len(self._rest) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._rest)
            end = _HEADER.size + length
            if len(self._rest) < end:
                return
            payload, self._rest = self._rest[_HEADER.size : end], self._rest[end:]
            yield stream, payload


class Output:
    """Attaches to a container that has not started, and hands each of its lines to `mark` as it comes."""

    def __init__(self, api: APIClient, container: str, mark: Mark) -> None:
        self._mark = mark
        self._connection = Connection(api.attach_socket(container, {"stdout": 1, "stderr": 1, "stream": 1}))
        self._connection.settimeout(None)  # a service may be silent for as long as it likes
        self._thread = threading.Thread(target=self._read, name=f"output of {container[:12]}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading; no line is handed on after this returns."""
        self._connection.close()
        self._thread.join(_JOIN_TIMEOUT_S)
        self._connection.release()

    def _read(self) -> None:
        frames, lines = Frames(), {1: Lines(), 2: Lines()}
        while data := self._receive():
            mark = self._mark.moment()
            for stream, payload in frames.feed(data):
                for line in lines.setdefault(stream, Lines()).feed(payload):
                    mark.line(line, source=Source.LOG)
        for rest in lines.values():
            for line in rest.end():
                self._mark.line(line, source=Source.LOG)

    def _receive(self) -> bytes:
        try:
            return self._connection.receive()
        except OSError:  # closed by `close`, or the engine went away: either way nothing more comes
            return b""


class Log:
    """Follows a running container's log from its beginning, and hands each of its lines to `mark` as it comes."""

    def __init__(self, api: Any, container: str, mark: Mark) -> None:
        self._mark = mark
        self._closing = False
        self._stream = api.logs(container, stdout=True, stderr=True, stream=True, follow=True)
        self._thread = threading.Thread(target=self._read, name=f"log of {container[:12]}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading; no line is handed on after this returns. Idempotent."""
        self._closing = True
        with contextlib.suppress(OSError):  # the engine has closed it
            self._stream.close()
        self._thread.join(_JOIN_TIMEOUT_S)

    def _read(self) -> None:
        lines = Lines()
        try:
            for data in self._stream:
                mark = self._mark.moment()
                for line in lines.feed(data):
                    mark.line(line, source=Source.LOG)
        except Exception as error:
            # As with events: the engine went away, or `close` took the connection from the SDK's reader.
            if not self._closing and not is_engine_error(error):
                raise


class Events:
    """The engine's own stream of events, read by one thread, which calls the listeners as events arrive.

    An event finds its listener by the label `lab.launch`, since it may come before the call that caused it returns.
    """

    def __init__(self, api: APIClient, *, filters: bool = True) -> None:
        """`filters`: whether the engine may choose by the names of events and of a label. Podman's own names are other
        ones (4.3 sends `die`, and lets only `died` be asked for), and there no label matches without its value."""
        self._api = api
        self._filters = {"event": [*_ACTIONS, _END], "label": "lab.launch"} if filters else {}
        self._listeners: dict[str, Listener] = {}
        self._end_listeners: dict[str, EndListener] = {}
        self._stream: Any = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def connect(self, kind: type[DriverError] = DriverError) -> None:
        """Connect, unless a connection lives; once this returns no event is missed. Raises `kind`."""
        if self._thread is not None and self._thread.is_alive():
            return
        with translated("follow its events", kind):
            # The engine answers a moment before it subscribes this client; with `since` on its own clock it repeats
            # what fell between, so that an answered request misses nothing.
            since = datetime.fromisoformat(self._api.info()["SystemTime"])
            filters = {"type": "container", **self._filters}
            self._stream = self._api.events(since=int(since.timestamp()), filters=filters, decode=True)
        self._thread = threading.Thread(target=self._read, args=(self._stream,), name="docker events", daemon=True)
        self._thread.start()

    def watch(self, launch: str, listener: Listener, on_end: EndListener | None = None) -> None:
        """Tell `listener` of the events of `launch` from here on, and `on_end` of its end. Raises LaunchError."""
        self._listeners[launch] = listener
        if on_end is not None:
            self._end_listeners[launch] = on_end
        self.connect(LaunchError)

    def expect_end(self, launch: str) -> None:
        """Tell of the end of `launch` no more."""
        self._end_listeners.pop(launch, None)

    def forget(self, launch: str) -> None:
        """Tell of `launch` no more."""
        self._listeners.pop(launch, None)
        self.expect_end(launch)

    def close(self) -> None:
        """Stop reading."""
        self._closing = True
        if self._stream is not None:
            with contextlib.suppress(OSError):  # the engine has closed it
                self._stream.close()
        if self._thread is not None:
            self._thread.join(_JOIN_TIMEOUT_S)

    def _read(self, stream: Any) -> None:
        try:
            for event in stream:
                attributes = event["Actor"]["Attributes"]
                launch = attributes.get("lab.launch", "")
                if event["Action"] == _END:
                    if (on_end := self._end_listeners.get(launch)) is not None:
                        on_end(event["Actor"]["ID"], int(attributes.get("exitCode") or attributes["containerExitCode"]))
                elif event["Action"] in _ACTIONS and (listener := self._listeners.get(launch)) is not None:
                    listener(event["Action"], event["Actor"]["ID"])
        except Exception as error:
            # The engine went away: the next `watch` connects again, or says so. And the SDK's reader, whose
            # connection `close` takes away, may fail in any manner.
            if not self._closing and not is_engine_error(error):
                raise


class Connection:
    """An upgraded HTTP connection, as the SDK returns it: a SocketIO over HTTP, a channel over SSH."""

    def __init__(self, given: Any) -> None:
        self._given = given  # it holds the response, whose end would close the connection
        self._socket: socket.socket = getattr(given, "_sock", given)

    def settimeout(self, timeout_s: float | None) -> None:
        """Let `receive` wait so long, or for ever."""
        self._socket.settimeout(timeout_s)

    def receive(self) -> bytes:
        """What has arrived; empty at the end. Raises OSError, TimeoutError."""
        return self._socket.recv(_READ_BYTES)

    def close(self) -> None:
        """End the connection, also under a `receive` in another thread."""
        with contextlib.suppress(OSError):  # the engine has closed it
            self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Let go of the descriptor, once nobody receives."""
        response = getattr(self._given, "_response", None)
        if response is not None:
            response.close()
        self._given.close()
