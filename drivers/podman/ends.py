"""The end of a container that nobody here ended: seen by the kernel's word of its first process, told with Podman's.

Podman's own events are read from a file that it looks at four times a second (podman, libpod/events/logfile.go).
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from drivers.podman.api import Api
from drivers.podman.errors import translated
from lab.driver import Mark
from lab.errors import DriverError
from lab.host.procs import Process
from lab.launch.ends import LINES, Ending

_TOLD_TIMEOUT_S = 20.0
_LOOK_S = 0.02
_JOIN_TIMEOUT_S = 5.0


class EndWatch:
    """Waits for the end of a container from a thread of its own, and tells `mark` of it, unless `expect` came before.
    `ended` is called at the end, whichever it was."""

    def __init__(
        self, api: Api, container: str, mark: Mark, *, memory_bytes: int, ended: Callable[[], None] = lambda: None
    ) -> None:
        self._api = api
        self._container = container
        self._mark = mark
        self._memory_bytes = memory_bytes
        self._ended = ended
        self._expected = False
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name=f"end of {container[:12]}", daemon=True)
        self._thread.start()

    def expect(self) -> None:
        """From here on its end is no failure of the launch. Idempotent."""
        self._expected = True

    def close(self) -> None:
        """Wait no more. Idempotent."""
        self.expect()
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        self._thread.join(_JOIN_TIMEOUT_S)

    def _run(self) -> None:
        try:
            with contextlib.suppress(DriverError):  # removed meanwhile, or the service ended: nothing is told then
                self._await_end()
                if not self._expected:
                    self._tell()
        finally:
            with self._lock:
                os.close(self._wake)
                self._wake = -1
            self._ended()

    def _await_end(self) -> None:
        pid = int((self._inspect().get("State") or {}).get("Pid") or 0)
        process = Process.of(pid) if pid else None
        if process is None:
            return
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if process.alive():
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                poll.register(self._wake, select.POLLIN)
                poll.poll()
        finally:
            os.close(descriptor)

    def _tell(self) -> None:
        deadline = time.monotonic() + _TOLD_TIMEOUT_S
        while (state := self._inspect().get("State") or {}).get("Running") and time.monotonic() < deadline:
            if self._expected:
                return
            time.sleep(_LOOK_S)
        with translated("read the log of the container that ended"):
            output = self._api.logs(self._container, LINES)
        if not self._expected:
            ending = Ending.by_code(int(state.get("ExitCode") or 0), out_of_memory=bool(state.get("OOMKilled")))
            self._mark.failed(ending.error(memory_bytes=self._memory_bytes, output=output))

    def _inspect(self) -> dict[str, Any]:
        with translated("inspect the container that ended"):
            return self._api.inspect(self._container) or {}
