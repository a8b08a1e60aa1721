"""The marks of one instance's life, and honest differences between them (docs/method.md, rules 1 and 2)."""

from __future__ import annotations

import enum
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from lab.errors import ClockMismatch, MeasurementError, MissingPhase


class Phase(enum.StrEnum):
    """An instant in an instance's life; docs/method.md, rule 1, defines each."""

    REQUESTED = "requested"
    CREATED = "created"
    SCHEDULED = "scheduled"
    POD_IP = "pod_ip"
    STARTED = "started"
    ENGINE_READY = "engine_ready"
    KERNEL = "kernel"
    INIT = "init"
    USERSPACE = "userspace"
    MAIN = "main"
    LISTENING = "listening"
    READY = "ready"
    SSHD = "sshd"
    LOGIN = "login"
    SETTLED = "settled"
    STOP_REQUESTED = "stop_requested"
    STOPPED = "stopped"
    DELETED = "deleted"


class Source(enum.StrEnum):
    """How an instant was learnt of. `RETURN` and `EVENT` of one phase are two marks, kept apart."""

    LAB = "lab"  # the lab's own act
    RETURN = "return"  # an engine call returned
    EVENT = "event"  # an event of the engine arrived
    CONSOLE = "console"  # a line of the guest's console arrived
    LOG = "log"  # a line of the service's output arrived
    SERVICE = "service"  # the service told its own clock's value


class Clock(enum.StrEnum):
    """Which clock a mark was read from. `SHARED` is a service's clock proven to be the host's in this launch."""

    HOST = "host"
    SHARED = "shared"
    GUEST = "guest"


ENGINE_CHAIN = (
    Phase.REQUESTED,
    Phase.CREATED,
    Phase.SCHEDULED,  # an orchestrator gave it a node
    Phase.POD_IP,  # and an address there
    Phase.STARTED,
    Phase.ENGINE_READY,  # the orchestrator's own word, by event; `ready` is the client's
)
SERVICE_CHAIN = (
    Phase.REQUESTED,
    Phase.KERNEL,
    Phase.INIT,
    Phase.USERSPACE,  # a whole guest's systemd
    Phase.MAIN,
    Phase.LISTENING,
    Phase.READY,
)
LOGIN_CHAIN = (Phase.USERSPACE, Phase.SSHD, Phase.LOGIN)
SETTLING_CHAIN = (Phase.USERSPACE, Phase.SETTLED)
"""What a whole guest shows beside its service, in no order with that: each begins where systemd does."""
TEARDOWN_CHAIN = (Phase.STOP_REQUESTED, Phase.STOPPED, Phase.DELETED)
CHAINS = (ENGINE_CHAIN, SERVICE_CHAIN, LOGIN_CHAIN, SETTLING_CHAIN, TEARDOWN_CHAIN)

_TOLD = frozenset({Source.EVENT, Source.CONSOLE, Source.LOG})
_SOURCE_ORDER = (Source.LAB, Source.SERVICE, Source.RETURN, Source.CONSOLE, Source.LOG, Source.EVENT)


class HostClock(Protocol):
    """The lab's clock: CLOCK_MONOTONIC, and CLOCK_BOOTTIME, which also counts while the host sleeps; both in ns.
    `sleep` lets seconds of it pass."""

    def now_ns(self) -> int: ...
    def boottime_ns(self) -> int: ...
    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The host's real clocks."""

    def now_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def boottime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRecord:
    """One instant: `ns` on `clock`, good to `resolution_ns`."""

    phase: Phase
    ns: int
    clock: Clock
    source: Source
    resolution_ns: int = 1


class Timeline:
    """All marks of one instance. A phase may be marked once per source; `mark()` picks the one that figures use."""

    def __init__(self, marks: Iterable[MarkRecord] = ()) -> None:
        self._marks: dict[tuple[Phase, Source], MarkRecord] = {}
        self._unread: Iterable[MarkRecord] = ()
        self._tell: Callable[[MarkRecord], object] | None = None
        for mark in marks:
            self.add(mark)

    def add(self, mark: MarkRecord) -> None:
        """Keep `mark`; the first of a phase and source stands (an instant happens once)."""
        kept = self._read().setdefault((mark.phase, mark.source), mark)
        if self._tell is not None and kept is mark:
            self._tell(mark)

    def watch(self, tell: Callable[[MarkRecord], object]) -> None:
        """Have `tell` called with each mark from now on, in the thread and at the instant that it is made: it must
        take no time."""
        self._tell = tell

    def __iter__(self) -> Iterator[MarkRecord]:
        return iter(list(self._read().values()))

    def __contains__(self, phase: object) -> bool:
        return any(mark.phase == phase for mark in self)

    def mark(self, phase: Phase) -> MarkRecord:
        """The mark of `phase` that figures use: on the host's clock before a guest's, the nearest source first.

        Raises MissingPhase.
        """
        found = [mark for mark in self if mark.phase == phase]
        if not found:
            raise MissingPhase(f"no instant '{phase}' was seen in this launch")
        return min(found, key=lambda mark: (mark.clock is Clock.GUEST, _SOURCE_ORDER.index(mark.source)))

    def duration_s(self, start: Phase, end: Phase) -> float:
        """Seconds from `start` to `end`.

        Raises MissingPhase; ClockMismatch where the two were read from a host's and a guest's clock;
        MeasurementError where it is negative within a chain. Between chains the difference is signed.
        """
        first, last = self.mark(start), self.mark(end)
        if (first.clock is Clock.GUEST) != (last.clock is Clock.GUEST):
            raise ClockMismatch(f"'{start}' is on the {first.clock} clock and '{end}' on the {last.clock} clock")
        seconds = (last.ns - first.ns) / 1e9
        if seconds < 0 and _in_order(start, end):
            raise MeasurementError(f"'{end}' comes {-seconds:.6f} s before '{start}', which it follows")
        return seconds

    def steps(self, chain: tuple[Phase, ...]) -> list[tuple[Phase, Phase, float]]:
        """The differences in seconds between neighbouring seen phases of `chain`; phases known only on a guest's
        clock are passed over, and there is none between phases that one event showed (docs/method.md, rule 21). Raises
        MeasurementError as `duration_s` does."""
        seen = [phase for phase in chain if phase in self and self.mark(phase).clock is not Clock.GUEST]
        pairs = [(a, b) for a, b in itertools.pairwise(seen) if not self._same_event(a, b)]
        return [(a, b, self.duration_s(a, b)) for a, b in pairs]

    def _same_event(self, first: Phase, second: Phase) -> bool:
        """Whether two phases were learnt of at one reading of the clock, of what tells of several."""
        one, other = self.mark(first), self.mark(second)
        return (one.ns, one.source, one.clock) == (other.ns, other.source, other.clock) and one.source in _TOLD

    def to_json(self) -> list[dict[str, Any]]:
        """The marks in order of time, each as a mapping of its fields."""
        return [asdict(mark) for mark in sorted(self, key=lambda m: (m.clock is Clock.GUEST, m.ns))]

    @classmethod
    def unread(cls, marks: Iterable[MarkRecord]) -> Timeline:
        """A timeline whose marks are read from `marks` when one is first asked for: most of a long run's never are."""
        found = cls()
        found._unread = marks
        return found

    def _read(self) -> dict[tuple[Phase, Source], MarkRecord]:
        if self._unread:
            marks, self._unread = self._unread, ()
            for mark in marks:
                self._marks.setdefault((mark.phase, mark.source), mark)
        return self._marks

    @classmethod
    def from_json(cls, marks: Iterable[Mapping[str, Any]]) -> Timeline:
        """The inverse of `to_json`."""
        return cls(
            MarkRecord(
                phase=Phase(mark["phase"]),
                ns=int(mark["ns"]),
                clock=Clock(mark["clock"]),
                source=Source(mark["source"]),
                resolution_ns=int(mark["resolution_ns"]),
            )
            for mark in marks
        )


def _in_order(start: Phase, end: Phase) -> bool:
    return any(start in chain and end in chain and chain.index(start) <= chain.index(end) for chain in CHAINS)
