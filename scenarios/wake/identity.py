"""Who answers: by what lies in a service's memory alone, restored and started anew are told apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lab.errors import MeasurementError
from lab.features import SleepState
from lab.host.facts import boot_id
from lab.launch.waiter import Answer

KEEPS_MEMORY = frozenset({SleepState.PAUSED, SleepState.SAVED})
"""The states after which the service's memory is as it was; after the others it is new."""
_LATE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one answer told of the service, and the host's clocks at that instant."""

    token: str
    served: int
    boot_id: str
    monotonic_ns: int
    realtime_ns: int
    host_ns: int
    host_realtime_ns: int

    @classmethod
    def of(cls, answer: Answer, *, host_realtime_ns: int) -> Told:
        """Raises MeasurementError where it is not the lab's own service's, or an older one's."""
        told = answer.clock()
        if told is None or not told.get("token"):
            raise MeasurementError(
                "the answer bears no token by which what was restored could be told from what was not"
            )
        return cls(
            token=str(told["token"]),
            served=int(told["served"]),
            boot_id=str(told["boot_id"]),
            monotonic_ns=int(told["now_ns"]),
            realtime_ns=int(told.get("realtime_ns", 0)),
            host_ns=answer.received_ns,
            host_realtime_ns=host_realtime_ns,
        )

    def monotonic_lost_s(self, before: Told) -> float:
        """How long the service's monotonic clock stood still since `before`; meaningful within one boot of it."""
        return ((self.host_ns - before.host_ns) - (self.monotonic_ns - before.monotonic_ns)) / 1e9

    def late_s(self, before: Told) -> float:
        """How much later its time of day is than it was before, by the host's."""
        return ((self.host_realtime_ns - self.realtime_ns) - (before.host_realtime_ns - before.realtime_ns)) / 1e9


def require_the_right_one(state: SleepState, before: Told, after: Told, *, asked: int) -> None:
    """Who answers after `state` has its memory, if `state` keeps it, and is another if not; `asked` requests were sent
    since it was to wake. Raises MeasurementError."""
    counted = f"its counter went from {before.served} to {after.served}"
    if state in KEEPS_MEMORY:
        if after.token != before.token:
            raise MeasurementError(
                f"what woke from '{state}' was not restored: its token is another, as after a restart ({counted})"
            )
        if not before.served < after.served <= before.served + asked:
            raise MeasurementError(f"what woke from '{state}' has the token of before, and yet {counted}")
    elif after.token == before.token:
        raise MeasurementError(f"what woke from '{state}' had never ended: its token is that of before ({counted})")
    elif after.served > asked:
        raise MeasurementError(f"what woke from '{state}' is not new: {counted}, and it was asked {asked} times")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What one copy of what was saved told when it was woken; `random` are the first bytes that its kernel gave."""

    told: Told
    random: str

    def shares(self, other: Copy) -> list[str]:
        """What it has in common with `other`, in words."""
        own_kernel = self.told.boot_id != boot_id()
        alike = {
            "token": self.told.token == other.told.token,
            "boot id of their kernel": own_kernel and self.told.boot_id == other.told.boot_id,
            "first random bytes": self.random == other.random,
        }
        return [what for what, same in alike.items() if same]


def uniqueness(first: Copy, second: Copy) -> str:
    """Whether two copies of what was saved can be told apart, by what they told."""
    shared = first.shares(second)
    named = " and ".join(filter(None, [", ".join(shared[:-1]), *shared[-1:]]))
    return (
        f"no: two copies that were woken of it had the same {named}" if shared else "yes: two copies had nothing alike"
    )


def said_of(state: SleepState, before: Told, after: Told) -> Iterator[tuple[str, str]]:
    """What a reader must know of who answers, each by what it is about."""
    if state in KEEPS_MEMORY:
        yield "who answers", "the same: its token and its counter go on, so that it was restored and not started anew"
    else:
        yield "who answers", "a new one: its token is another, and its counter began again"
    if state is SleepState.SAVED:
        own_kernel = after.boot_id == before.boot_id != boot_id()
        boot = " and the boot id of its kernel" if own_kernel else ""
        yield "uniqueness", f"no: every copy that is woken of what was saved has its token{boot}"
    elif state is SleepState.PAUSED:
        yield "uniqueness", "yes: there is no second copy of its memory"
    else:
        yield "uniqueness", "yes: it draws a token of its own after each waking"
    late_s = after.late_s(before)
    yield "its clock", "right" if abs(late_s) < _LATE_S else "late after waking, by as long as it slept and woke"
