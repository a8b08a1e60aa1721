"""What a watch says of who was watched: the share of requests answered in time, and the longest silences.

Available is what answered within 1 s of the instant at which it was to be asked. A silence is the time from one answer
to the next, or to the end of the window. One in which the watcher itself was late by more than 5 ms (half of its
interval, see src/client/load_and_watch.c) is its own and kept apart. A watcher that was late for more than 5 % of the
time saw nothing for certain (docs/method.md, rule 18): its time are the instants at which it was to ask, one every
interval. To be late once touches all requests that are under way then, each of which says so, and is one instant all
the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from lab.errors import MeasurementError
from lab.service.load import LATE_SHARE, LoadResult, Request

ANSWER_WITHIN_S = 1.0
LATE_NS = 5_000_000

_CLIENTS_OWN = frozenset({"missed", "unsent", "cut-off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A silence in ns of the host's clock; `own` where the watcher was late in it."""

    start_ns: int
    end_ns: int
    own: bool

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One window of a watch: `asked` requests that the watcher did not miss itself, and how many were `answered`;
    `late_share` are the instants at which it was late, of all."""

    asked: int
    answered: int
    late_share: float
    gaps: Sequence[Gap]

    @property
    def inconclusive(self) -> bool:
        """Whether the watcher was late too often for its word to count."""
        return self.late_share > LATE_SHARE

    @property
    def availability(self) -> float:
        """The share that was answered within `ANSWER_WITHIN_S`, 0 to 1."""
        return self.answered / self.asked

    @property
    def throughout(self) -> bool:
        """Whether every request was answered in time."""
        return self.answered == self.asked

    @property
    def worst_gap_s(self) -> float:
        """The longest silence in which the watcher was never late; 0 where there was none such."""
        return max((gap.seconds for gap in self.gaps if not gap.own), default=0.0)

    @property
    def own_gap_s(self) -> float:
        """The longest silence in which the watcher was late."""
        return max((gap.seconds for gap in self.gaps if gap.own), default=0.0)


def window(result: LoadResult, start_ns: int, end_ns: int) -> Watched:
    """What was seen of requests meant for `start_ns` to `end_ns`, the latter not included.

    Raises MeasurementError where the watch does not span the window, or its client sent none of these itself.
    """
    if not _spans(result, start_ns, end_ns):
        raise MeasurementError("the watch does not span the time that it was to watch")
    meant = [one for one in result.requests if start_ns <= one.intended_ns < end_ns]
    asked = [one for one in meant if one.status not in _CLIENTS_OWN]
    if not asked:
        raise MeasurementError("the watch asked nothing in the time that it was to watch")
    answered = [one for one in asked if _in_time(one)]
    return Watched(
        asked=len(asked),
        answered=len(answered),
        late_share=sum(_late_to_ask(one) for one in meant) / len(meant),
        gaps=_gaps(meant, answered, start_ns, end_ns),
    )


def _spans(result: LoadResult, start_ns: int, end_ns: int) -> bool:
    """Whether requests were sent from the window's start to its end: one that was stopped early sent fewer."""
    instants = [one.intended_ns for one in result.requests if one.status != "unsent"]
    if len(instants) < 2:
        return False
    spacing_ns = instants[1] - instants[0]
    return instants[0] <= start_ns + spacing_ns and end_ns <= instants[-1] + spacing_ns


def _in_time(one: Request) -> bool:
    latency_s = one.latency_s
    return one.served and latency_s is not None and latency_s <= ANSWER_WITHIN_S


def _late_to_ask(one: Request) -> bool:
    """Whether the watcher was late at this request's own instant, and not only while it was under way."""
    return one.late and (one.sent_ns is None or one.sent_ns - one.intended_ns > LATE_NS)


def _gaps(meant: Sequence[Request], answered: Sequence[Request], start_ns: int, end_ns: int) -> list[Gap]:
    """All silences of the window, in their order. An answer that came after its end ends the last one there."""
    instants = sorted(min(one.done_ns, end_ns) for one in answered if one.done_ns is not None)
    late = [one for one in meant if one.late]
    return [
        Gap(start_ns=start, end_ns=end, own=any(_overlaps(one, start, end) for one in late))
        for start, end in itertools.pairwise([start_ns, *instants, end_ns])
    ]


def _overlaps(one: Request, start_ns: int, end_ns: int) -> bool:
    """Whether the request was meant for, or under way in, the time between."""
    done_ns = one.intended_ns if one.done_ns is None else one.done_ns
    return one.intended_ns < end_ns and (done_ns > start_ns or one.intended_ns >= start_ns)
