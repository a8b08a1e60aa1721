"""What a service writes, followed as it grows: each line is handed to the lab at once, and the last of it is kept."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from lab.driver import Mark
from lab.launch.lines import Lines
from lab.timeline import Source

KEPT_BYTES = 65_536
"""What `Instance.logs` gives at most."""

_END_TIMEOUT_S = 10.0
_REST_S = 0.5


class Output:
    """Follows the stream behind `descriptor`, which it closes at its end: a pipe that the service writes to, or the
    output of a program that follows a log (`podman logs --follow`).

    `on_end` is called once the stream has ended, from the thread that reads, as `mark` is.
    """

    def __init__(
        self,
        descriptor: int,
        mark: Mark,
        *,
        name: str,
        source: Source = Source.LOG,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._descriptor = descriptor
        self._mark = mark
        self._source = source
        self._on_end = on_end
        self._tail = b""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._thread.start()

    def tail(self) -> bytes:
        """The last 64 KiB so far."""
        return self._tail

    def await_end(self, timeout_s: float = _REST_S) -> None:
        """Return when the stream has ended and every line of it was handed on, or after `timeout_s`: what was written
        just before its writers died may still be on its way."""
        self._ended.wait(timeout_s)

    def close(self) -> None:
        """Wait for the end, which is there once every writer is dead. Idempotent."""
        self._thread.join(_END_TIMEOUT_S)

    def _read(self) -> None:
        lines = Lines()
        with open(self._descriptor, "rb", buffering=0) as stream:  # noqa: PTH123  a descriptor, not a path
            while data := os.read(stream.fileno(), KEPT_BYTES):
                mark = self._mark.moment()
                for line in lines.feed(data):
                    mark.line(line, source=self._source)
                self._tail = (self._tail + data)[-KEPT_BYTES:]
        for line in lines.end():
            self._mark.line(line, source=self._source)
        self._ended.set()
        self._on_end()
