"""What of a timed call was not the API's own time: waiting because it had too much to do, and the credential program.

Both are within whatever is timed, since whoever launches there waits for them too; neither is silent.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from lab.store.record import ASKED_AGAIN

PROGRAM = "credential program"


@dataclass(slots=True)
class Told:
    """Of one thread's calls: how often the API was asked again, by its status, and how long that was waited for, in
    seconds; how often the kubeconfig's program ran, and how long."""

    again: Counter[int] = field(default_factory=Counter)
    waited_s: float = 0.0
    runs: int = 0
    ran_s: float = 0.0

    def add(self, other: Told) -> None:
        """Count `other` as well."""
        self.again.update(other.again)
        self.waited_s += other.waited_s
        self.runs += other.runs
        self.ran_s += other.ran_s

    def words(self) -> dict[str, str]:
        """For a launch's facts; empty where nothing was waited for."""
        found = {}
        if self.again:
            statuses = ", ".join(f"{count}x {status or 'no answer'}" for status, count in sorted(self.again.items()))
            found[ASKED_AGAIN] = f"{statuses}; {self.waited_s:.2f} s waited"
        if self.runs:
            found[PROGRAM] = f"ran {self.runs}x, {self.ran_s:.2f} s"
        return found


class _Listening(threading.local):
    def __init__(self) -> None:
        self.all: list[Told] = []


_listening = _Listening()


@contextlib.contextmanager
def telling() -> Iterator[Told]:
    """What this thread's calls within the block waited for."""
    told = Told()
    _listening.all.append(told)
    try:
        yield told
    finally:
        _listening.all.remove(told)


def waited(status: int, seconds: float) -> None:
    """The API refused with `status`, and is asked again after so long."""
    for told in _listening.all:
        told.again[status] += 1
        told.waited_s += seconds


def ran(seconds: float) -> None:
    """The credential program ran for so long."""
    for told in _listening.all:
        told.runs += 1
        told.ran_s += seconds
