"""How long from asleep to the first answer, and what does an instance hold while it sleeps?

Each state that an instance can sleep in has a launch of its own in each round. `state` is `paused` (its processes are
held still), `stopped` (ended and kept by its engine), `saved` (its memory is in a file) or `zero` (its service is there,
and nothing of it runs).

| metric | start | end | unit |
|---|---|---|---|
| `boot_s` | `requested`: just before the first engine call of the launch | `ready`: the first complete answer of the launch that is then put to sleep, cold as in `boot` | s |
| `sleep_s` (`state`) | just before the engine is asked to put it to sleep | the engine says that it sleeps, and a look at this host's processes confirms it | s |
| `wake_s` (`state`) | just before the engine is asked to wake it | the client holds the first complete answer of the same instance, on a connection made since that start | s |
| `answer_s` (`state`, `answer`) | the request of the answer leaves, on a connection of its own | its last byte is there: `answer`=`1` is the first after waking, else the median of those that follow it one after the other | s |
| `woken_answer_s` (`state`, `answer`) | the same | the same, for each answer: kept and exported, and in no row | s |
| `clock_late_s` (`state`) | the service's time of day less the host's, before it slept | the same at the first answer after waking: the loss; 0 where its clock went on | s |

| metric | what it is | unit |
|---|---|---|
| `awake_pss_bytes` | PSS summed over all host processes that exist because of the instance, just before it is put to sleep | bytes |
| `asleep_pss_bytes` (`state`) | the same once it has slept for `asleep` seconds; 0 where no process is left | bytes |
| `asleep_swap_bytes` (`state`) | what of these processes lies in swap then | bytes |
| `asleep_disk_bytes` (`state`) | blocks on disk of the files that hold it while it sleeps so: the snapshot of a saved one | bytes |

What sleeps is proven (docs/method.md, rule 23): its processes on this host are stopped, frozen or gone after `asleep`
seconds. A virtual machine's process runs on: the threads of its virtual CPUs must not have run in those seconds, or its
guest's own clock must have stood still for them. What wakes is the same instance only if it proves it: the service's
token and its counter of answers lie in its memory alone, and are as before after `paused` and `saved`, and new after
`stopped` and `zero`. Else the launch has failed, and has no figure.

Of a paused instance the first connection is made at the start, since nothing refuses it; of the others when the engine
has accepted the request to wake it (docs/method.md, rule 4). Nothing inside an instance can time its waking: all is read
from the host's clock. On an engine that ticks a random part of its tick precedes sleeping and waking, untimed.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from lab.errors import BadInput, DriverError, DriverUnavailable, LabError, MeasurementError
from lab.features import Feature, Sleeps, SleepState
from lab.figures.series import ABSENT
from lab.launch.session import Session
from lab.scenario import Bench
from lab.timeline import Phase
from lab.units import parse_seconds
from scenarios.wake.cycle import Cycle

Seconds = Annotated[float, BeforeValidator(parse_seconds)]


def _known(given: str) -> str:
    """The states named in `given`, each once."""
    names = [name.strip() for name in given.split(",")]
    if unknown := [name for name in names if name not in set(SleepState)]:
        raise ValueError(f"there is no state '{unknown[0]}': there are {', '.join(SleepState)}")
    return ",".join(dict.fromkeys(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Each of `states`, named with commas between them, for `asleep` seconds; then `answers` answers. With `evict` the
    file that an instance was saved in is out of the page cache when it is woken, proven."""

    states: Annotated[str, AfterValidator(_known)] = ",".join(SleepState)
    asleep: Annotated[Seconds, Field(ge=0.1, le=86_400)] = 1.0
    answers: Annotated[int, Field(ge=2, le=1000)] = 20
    within: Annotated[Seconds, Field(gt=0, le=3600)] = 60.0
    evict: bool = False

    name: ClassVar[str] = "wake"
    question: ClassVar[str] = "How long from asleep to the first answer, and what does it hold while it sleeps?"
    headline: ClassVar[str] = "wake_s"
    own_service: ClassVar[bool] = True
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.NETWORK, Feature.SLEEP})
    calls_by: ClassVar[str] = "answers"

    @property
    def calls_per_worker(self) -> int:
        return self.answers

    @property
    def launches(self) -> int:
        return len(self.states.split(","))

    @property
    def at_once(self) -> int:
        return 1

    @property
    def likely_s_per_round(self) -> float:
        return self.launches * (self.asleep + 1.0)

    def measure(self, bench: Bench) -> None:
        """A state that fails leaves the others to be measured, and is told as the round's failure after them."""
        left: list[SleepState] | None = None
        failed: LabError | None = None
        while left is None or left:
            state = left.pop(0) if left else None
            try:
                with bench.session() as session:
                    _emit_boot(bench, session)
                    if left is None:
                        left = self._offered(bench, session)
                        state = left.pop(0) if left else None
                    if state is not None:
                        self._cycle(bench, session, state).run()
            except (BadInput, DriverUnavailable):
                raise
            except (DriverError, MeasurementError) as error:
                if left is None:  # nothing is known of its states, and so of what else there is to measure
                    raise
                failed = error
        if failed is not None:
            raise failed

    def _cycle(self, bench: Bench, session: Session, state: SleepState) -> Cycle:
        return Cycle(
            bench,
            session,
            state,
            asleep_s=self.asleep,
            answers=self.answers,
            within_s=self.within,
            evict=self.evict,
        )

    def _offered(self, bench: Bench, session: Session) -> list[SleepState]:
        """The states to be measured, in an order of this round's own; of the others it is told why they are not."""
        if not isinstance(session.instance, Sleeps):
            raise DriverError("the engine says that its instances can sleep, and this one does not")
        states = session.instance.sleep_states()
        found = []
        for state in map(SleepState, self.states.split(",")):
            if state in states and not states[state]:
                found.append(state)
            elif state in states:
                bench.emit(ABSENT, 1, "", of=f"wake_s state={state}", why=states[state])
        bench.random().shuffle(found)
        return found


def _emit_boot(bench: Bench, session: Session) -> None:
    seconds = session.timeline.duration_s(Phase.REQUESTED, Phase.READY)
    bench.emit("boot_s", seconds, "s", wait_method=session.wait_method)
