"""Does trouble stay inside? Each trouble is made in one instance, while a neighbour and the host are watched.

| metric | what it is | unit |
|---|---|---|
| `availability` (`trouble`, `of`=`neighbour`, `host`) | requests answered within 1 s of their instants, one every 10 ms, of those that the watcher did not miss itself | share |
| `worst_gap_s` (`trouble`, `of`) | the longest time from one answer to the next, or to the window's ends, in which the watcher was never late by more than 5 ms | s |
| `own_gap_s` (`trouble`, `of`) | the longest in which it was | s |
| `quiet_availability`, `quiet_worst_gap_s` (`trouble`, `of`) | the same in the window of equal length before the trouble | share, s |
| `late_share` (`trouble`, `of`, `window`) | instants at which the watcher itself was late by more than 5 ms, of all at which it was to ask | share |
| `outcome_s` (`trouble`) | from the trouble's start to the end of its process, where something else than its own deadline ended it; by the service's clock | s |
| `ended_s` (`trouble`) | from just before the trouble was asked for to the end of the instance's main process, where that ended | s |
| `reached_count`, `reached_bytes` (`trouble`) | processes, descriptors or bytes that it had got by then, by its own count | processes, bytes |
| `left_processes`, `left_bytes` (`trouble`, `what`) | what is seen from the host after the window, and still 3 s later, and was not there before: processes, memory charged to the instance, files in its /tmp; signed | processes, bytes |
| `clock_offset_s` (`trouble`=`clock`) | the guest's time of day less the host's, just before and after it was asked | s |
| `host_clock_moved_s` (`trouble`=`clock`) | how far the host's time of day moved against its monotonic clock meanwhile | s |

A trouble's window begins just before it is asked for and lasts `seconds`, as long as the trouble's own deadline within
the instance. The wrong clock's begins when the guest that has it is ready. The host is a control instance of the lab
that is in no cgroup of an instance. `connections` tells whether each request had a `new` one, or was sent on one of
those `kept` open (see scenarios/containment/watching.py). Where the watcher was late at more than 5 % of a window's
instants, that window is inconclusive: it has no figure.

The troubles of one round share an instance as long as that goes on serving; after that there is a new one.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from lab.features import Feature
from lab.figures.evidence import Meaning, Seen, tell
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service.control import control
from lab.spec import Endpoint
from scenarios.containment import clock, made, proof, words
from scenarios.containment.troubles import CLOCK_OFFSET_S, Trouble, likely_s
from scenarios.containment.victim import Victim
from scenarios.containment.watching import HOST, NEIGHBOUR, Watchee, unwatched

_LAUNCH_S = 120.0


def _in_order(given: str) -> str:
    """The troubles named in `given`, each once, in the order in which they are made."""
    names = {name.strip() for name in given.split(",")}
    if unknown := sorted(names - set(Trouble)):
        raise ValueError(f"there is no trouble '{unknown[0]}': there are {', '.join(Trouble)}")
    return ",".join(trouble for trouble in Trouble if trouble in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Containment:
    """Each of `troubles`, named with commas between them, with a window of `seconds`."""

    seconds: Annotated[int, Field(ge=1, le=30)] = 3
    troubles: Annotated[str, AfterValidator(_in_order)] = ",".join(Trouble)

    name: ClassVar[str] = "containment"
    question: ClassVar[str] = "Does trouble in one instance stay inside?"
    headline: ClassVar[str] = "availability"
    own_service: ClassVar[bool] = True
    rounds: ClassVar[int] = 3
    warmup: ClassVar[int] = 0
    requires: ClassVar[frozenset[Feature]] = frozenset()
    claim: ClassVar[str] = words.CLAIM
    caveats: ClassVar[Sequence[str]] = words.CAVEATS
    meanings: ClassVar[Mapping[str, Meaning]] = words.MEANINGS

    @property
    def chosen(self) -> Sequence[Trouble]:
        """The troubles, in the order in which they are made."""
        return [Trouble(name) for name in self.troubles.split(",")]

    @property
    def done(self) -> Sequence[str]:
        return words.done(self.seconds, self.chosen)

    @property
    def launches(self) -> int:
        return 1 + len(self.chosen)

    @property
    def at_once(self) -> int:
        return 2

    @property
    def likely_s_per_round(self) -> float:
        return len(self.chosen) * likely_s(self.seconds)

    @property
    def memory_bytes(self) -> int:
        return 0  # what trouble takes is within its instance's limits; the control is a page or two

    @property
    def changes(self) -> str:
        return f"makes trouble in one instance at a time, within limits read back first: {', '.join(self.chosen)}"

    def measure(self, bench: Bench) -> None:
        lasts_s = self.launches * (_LAUNCH_S + likely_s(self.seconds))
        with control(bench.spec.labels, seconds=lasts_s) as host, ExitStack() as stack:
            who = {HOST: Watchee(host)}
            if not unwatched(bench.info):
                keep = Feature.OWN_KERNEL in bench.info.features
                who[NEIGHBOUR] = Watchee(_address(stack.enter_context(bench.session())), keep=keep)
            panics = Trouble.PANIC in self.chosen and Feature.OWN_KERNEL in bench.info.features
            with Victim(bench, guest_panic=panics) as victim:
                for trouble in self.chosen:
                    self._one(bench, victim, who, trouble)

    def _one(self, bench: Bench, victim: Victim, who: Mapping[str, Watchee], trouble: Trouble) -> None:
        if why := proof.impossible(trouble, bench.info):
            tell(bench, Seen.INSIDE, f"{trouble}: the instance", f"not made: {why}")
            return
        if trouble is Trouble.CLOCK:
            victim.leave()
            clock.start_with_another(bench, who, self.seconds, CLOCK_OFFSET_S)
        else:
            made.make(bench, victim.serving(), who, trouble, self.seconds)


def _address(session: Session) -> Endpoint:
    assert session.instance is not None and session.instance.endpoint is not None  # noqa: S101  it has a network
    return session.instance.endpoint
