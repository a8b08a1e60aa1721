"""What instances hold of this host's memory while bursts come and go: looked at by a thread, at a bounded cost."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from lab.errors import LabError
from lab.features import OnThisHost
from lab.host import procs
from lab.host.memory import standing
from lab.launch.session import Session
from lab.timeline import HostClock

BUSY_SHARE, IDLE_SHARE = 0.2, 0.05
"""Of the time, the most that looks may take: while jobs are done, and else."""

_EVERY_S = 0.05
_MOST_LOOKS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """PSS of all processes of all instances, at an instant in ns of the host's clock; `took_s` is the look's own."""

    at_ns: int
    pss_bytes: int
    took_s: float


class Holding:
    """Looks while it is entered; `busy` while jobs are done."""

    def __init__(self, sessions: Sequence[Session], clock: HostClock) -> None:
        self.looks: list[Look] = []
        self.busy = False
        instances: list[object] = [one.instance for one in sessions]
        self._seen = [one for one in instances if isinstance(one, OnThisHost)]
        self.whole = len(self._seen) == len(sessions)
        self._clock = clock
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="lab-holding", daemon=True)

    def look(self) -> Look | None:
        """Now; None where it could not be looked at, as while a worker is just being made or removed."""
        with self._lock:
            begun = time.monotonic()
            at_ns = self._clock.now_ns()
            try:
                pids = {pid: role for instance in self._seen for pid, role in instance.host_pids().items()}
                held = standing(procs.present(pids))
            except LabError:
                return None
            found = Look(
                at_ns=at_ns,
                pss_bytes=sum(one.pss_bytes for one in held.values()),
                took_s=time.monotonic() - begun,
            )
            if len(self.looks) < _MOST_LOOKS:
                self.looks.append(found)
            return found

    def peak(self, begun_ns: int, ended_ns: int) -> int | None:
        """The most that was seen between two instants; None where nobody looked."""
        return max((one.pss_bytes for one in self.looks if begun_ns <= one.at_ns <= ended_ns), default=None)

    def mean(self, begun_ns: int, ended_ns: int) -> float | None:
        """What was held between two instants, each look counting until the next; None for fewer than two."""
        found = sorted((one for one in self.looks if begun_ns <= one.at_ns <= ended_ns), key=lambda one: one.at_ns)
        if len(found) < 2:
            return None
        ends = [*(one.at_ns for one in found[1:]), ended_ns]
        held = sum(one.pss_bytes * (end - one.at_ns) for one, end in zip(found, ends, strict=True))
        return held / (ended_ns - found[0].at_ns) if ended_ns > found[0].at_ns else None

    def share(self) -> float:
        """Of the time from the first look to the last, what looking took."""
        if len(self.looks) < 2:
            return 0.0
        first, last = min(one.at_ns for one in self.looks), max(one.at_ns for one in self.looks)
        took_s = sum(one.took_s for one in itertools.islice(self.looks, len(self.looks)))
        return took_s / ((last - first) / 1e9 + self.looks[-1].took_s)

    def __enter__(self) -> Holding:
        if self.whole:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        rest_s = 0.0
        while not self._over.wait(rest_s):
            begun = time.monotonic()
            self.look()
            took_s = time.monotonic() - begun
            rest_s = _EVERY_S
            # In small pieces, since a burst may begin meanwhile, in which it may look more often.
            while not self._over.is_set() and time.monotonic() - begun + _EVERY_S < took_s / (
                BUSY_SHARE if self.busy else IDLE_SHARE
            ):
                self._over.wait(_EVERY_S)
