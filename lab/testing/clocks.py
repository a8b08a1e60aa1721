"""Clocks for tests: one that stands still, and one that waits."""

from __future__ import annotations

import threading
import time


class FakeClock:
    """A clock that stands still until advanced; both of its readings are in ns."""

    def __init__(self, now_ns: int = 1_000_000_000) -> None:
        self._now_ns = now_ns
        self._slept_ns = 0
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        return self._now_ns

    def boottime_ns(self) -> int:
        return self._now_ns + self._slept_ns

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        with self._lock:
            self._now_ns += round(seconds * 1e9)

    def sleep(self, seconds: float) -> None:
        """As a wait of the lab's own."""
        self.advance(seconds)

    def sleep_host(self, seconds: float) -> None:
        """Let the host be suspended for `seconds`: only CLOCK_BOOTTIME counts them."""
        with self._lock:
            self._slept_ns += round(seconds * 1e9)


class WaitingClock(FakeClock):
    """The host's own clock; to advance it is to wait. For tests of what watches from other processes."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def boottime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        time.sleep(seconds)
