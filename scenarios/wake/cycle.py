"""One instance put to sleep and woken: the instants, what it holds meanwhile, and the proofs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lab.errors import DriverError, MeasurementError
from lab.features import Copies, Feature, OnThisHost, Role, Sleeps, SleepState
from lab.figures.evidence import Seen, tell
from lab.figures.series import ABSENT
from lab.host.cold import evict
from lab.host.memory import Account, account, held_on_disk
from lab.launch.asleep import GONE, how_asleep, virtual_cpus_ran_ns
from lab.launch.session import Session
from lab.launch.waiter import Answer, Waiter
from lab.scenario import Bench
from lab.service import ask
from lab.service.serving import workload
from lab.spec import Endpoint
from scenarios.wake.identity import Copy, Told, require_the_right_one, said_of, uniqueness

T = TypeVar("T")

_PATIENCE_S = 0.1
"""A connection that stands and says nothing for so long may be one that a guest's forwarder took before the guest's
memory was back: a newer one is tried beside it."""
_STILL_SHARE = 0.8  # of the time asleep: a guest's clock is read by requests, before and after it
_SILENT_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Woken:
    """The first answer after `woken_ns`, the instant just before the engine was asked."""

    woken_ns: int
    answer: Answer

    @property
    def seconds(self) -> float:
        return (self.answer.received_ns - self.woken_ns) / 1e9


class Cycle:
    """`state` of the launched, answering instance of `session`, once."""

    def __init__(
        self,
        bench: Bench,
        session: Session,
        state: SleepState,
        *,
        asleep_s: float,
        answers: int,
        within_s: float,
        evict: bool,
    ) -> None:
        self._bench = bench
        self._session = session
        self._state = state
        self._asleep_s = asleep_s
        self._answers = answers
        self._within_s = within_s
        self._evict = evict and state is SleepState.SAVED
        self._unanswered = 0  # requests that were sent while it slept
        self._of = {"state": state.value} | ({"file": "evicted"} if self._evict else {})

    def run(self) -> None:
        """Emit all. Raises DriverError, and MeasurementError where a proof fails."""
        bench, instance = self._bench, self._instance()
        before = self._told(self._ask())
        if (held := self._counted("awake_pss_bytes", self._account)) is not None:
            bench.emit("awake_pss_bytes", held.pss_bytes, "bytes")
        working = self._workload()
        bench.begin_at_random()
        start_ns = bench.clock.now_ns()
        instance.sleep(self._state, timeout_s=self._within_s)
        sleep_s = (bench.clock.now_ns() - start_ns) / 1e9
        ran_ns = virtual_cpus_ran_ns(working)
        bench.clock.sleep(self._asleep_s)
        how = self._require_asleep(working, ran_ns)
        held, files = self._counted("asleep_pss_bytes", self._account), instance.sleeps_on(self._state)
        on_disk = self._counted("asleep_disk_bytes", lambda: held_on_disk(files)) if files else None
        if self._evict:
            evict(files)
        bench.begin_at_random()
        woken = self._wake(instance)
        after = self._told(woken.answer)
        first = self._copy(after) if isinstance(instance, Copies) and self._state is SleepState.SAVED else None
        require_the_right_one(self._state, before, after, asked=woken.answer.attempts + self._unanswered)
        if not how:
            how = self._stood_still(before, after)
        latencies = [_latency_s(woken.answer), *(_latency_s(self._ask()) for _ in range(self._answers - 1))]
        self._emit(sleep_s, woken, before, after)
        self._emit_held(held, on_disk)
        self._emit_answers(latencies)
        tell(bench, Seen.OUTSIDE, f"{self._state}: asleep", how)
        said = dict(said_of(self._state, before, after))
        if first is not None and isinstance(instance, Copies):
            said["uniqueness"] = self._compared(instance, first)
        for probe, words in said.items():
            tell(bench, Seen.INSIDE, f"{self._state}: {probe}", words)

    def _copy(self, told: Told) -> Copy:
        """What the copy that `told` of itself gives as its first random bytes. Raises DriverError."""
        return Copy(told=told, random=str(ask.facts(self._session).get("random", "")))

    def _compared(self, instance: Copies, first: Copy) -> str:
        """A second copy of what was saved beside the `first`. Raises DriverError, ReadyTimeout."""
        second = self._woken(instance.wake_copy)
        return uniqueness(first, self._copy(self._told(second.answer)))

    def _wake(self, instance: Sleeps) -> Woken:
        """Raises DriverError, ReadyTimeout."""
        return self._woken(lambda: instance.wake(self._state))

    def _woken(self, wake: Callable[[], None]) -> Woken:
        """Raises DriverError, ReadyTimeout."""
        patience_s = _PATIENCE_S if self._state is SleepState.SAVED else None
        waiter = Waiter(self._session.spec, self._bench.clock, patience_s=patience_s)
        same = self._state is not SleepState.ZERO  # what runs then may answer at another address
        endpoint = self._session.instance.endpoint if self._session.instance is not None and same else None
        try:
            waiter.start(endpoint)
            woken_ns = self._bench.clock.now_ns()
            if self._state is SleepState.PAUSED:
                waiter.attempt()
            wake()
            if endpoint is None:
                waiter.set_endpoint(self._endpoint())
            if self._state is not SleepState.PAUSED:
                waiter.attempt()
            return Woken(woken_ns=woken_ns, answer=waiter.wait(self._within_s))
        finally:
            waiter.cancel()

    def _ask(self) -> Answer:
        """One request on a connection of its own, as the first is made."""
        waiter = Waiter(self._session.spec, self._bench.clock)
        try:
            waiter.start(self._endpoint())
            waiter.attempt()
            return waiter.wait(self._within_s)
        finally:
            waiter.cancel()

    def _require_asleep(self, working: Mapping[int, Role], ran_ns: int | None) -> str:
        """How it sleeps, as this host's kernel shows it, its virtual CPUs having run for `ran_ns` when it fell asleep;
        empty where only its guest's clock can tell, afterwards."""
        if not working:
            return "by its engine's word alone: its processes are not this host's"
        pids = self._workload() or working
        how = how_asleep(pids)
        if how != GONE and self._state is not SleepState.PAUSED:
            raise MeasurementError(f"it was put to sleep ({self._state}), and its processes {_are(how)}, not gone")
        if how:
            return f"its processes are {how}" if how != GONE else "no process of it is left"
        if Role.SERVICE in pids.values():
            raise MeasurementError(f"it was put to sleep ({self._state}), and its processes run")
        if Feature.OWN_KERNEL in self._bench.info.features:
            still = ran_ns is not None and virtual_cpus_ran_ns(pids) == ran_ns
            return "its virtual CPUs are held still: their threads did not run" if still else ""
        self._unanswered = 1
        try:  # a sandbox with a kernel of its own: its process tells nothing, and its clock is the host's
            ask.get(self._session, "/clock", timeout_s=_SILENT_S)
        except DriverError:
            return "its engine says so, and a request got no answer"
        raise MeasurementError(f"it was put to sleep ({self._state}), and it answers")

    def _stood_still(self, before: Told, after: Told) -> str:
        """That the guest's clock did. Raises MeasurementError where it went on."""
        lost_s = after.monotonic_lost_s(before)
        if lost_s < self._asleep_s * _STILL_SHARE:
            raise MeasurementError(
                f"it was put to sleep ({self._state}) for {self._asleep_s:g} s, and its clock stood still for "
                f"{lost_s:.3f} s of them"
            )
        return "its virtual CPUs are held still: its own clock did not go on"

    def _emit(self, sleep_s: float, woken: Woken, before: Told, after: Told) -> None:
        self._bench.emit("sleep_s", sleep_s, "s", **self._of)
        self._bench.emit("wake_s", woken.seconds, "s", **self._of)
        self._bench.emit("clock_late_s", after.late_s(before), "s", **self._of)

    def _emit_held(self, held: Account | None, on_disk: int | None) -> None:
        if held is not None:
            self._bench.emit("asleep_pss_bytes", held.pss_bytes, "bytes", **self._of)
            self._bench.emit("asleep_swap_bytes", held.swap_bytes, "bytes", **self._of)
        if on_disk is not None:
            self._bench.emit("asleep_disk_bytes", on_disk, "bytes", **self._of)

    def _counted(self, metric: str, count: Callable[[], T]) -> T | None:
        """What this user may not look into is told to be absent: how long it takes to wake does not hang on it."""
        try:
            return count()
        except MeasurementError as error:
            self._bench.emit(ABSENT, 1, "", of=f"{metric} state={self._state}", why=error.brief)
            return None

    def _emit_answers(self, latencies: Sequence[float]) -> None:
        first, *rest = latencies
        self._bench.emit("answer_s", first, "s", answer="1", **self._of)
        self._bench.emit("answer_s", statistics.median(rest), "s", answer=f"2-{len(latencies)}", **self._of)
        for number, seconds in enumerate(latencies, 1):
            self._bench.emit("woken_answer_s", seconds, "s", answer=str(number), **self._of)

    def _account(self) -> Account | None:
        """What its processes hold, which is nothing where none is left; None where they are not this host's. Raises
        MeasurementError where this user may not look."""
        instance = self._session.instance
        if not self._on_this_host() or not isinstance(instance, OnThisHost):
            return None
        return account(instance.host_pids) if instance.host_pids() else Account(by_pid={}, netns=0)

    def _workload(self) -> Mapping[int, Role]:
        """The processes of this host that it works in: the service's own, or its VMM."""
        instance = self._session.instance
        pids: Mapping[int, Role] = {}
        if self._on_this_host() and isinstance(instance, OnThisHost):
            pids = instance.host_pids()
        return {pid: pids[pid] for pid in workload(pids)}

    def _on_this_host(self) -> bool:
        return Feature.HOST_PIDS in self._bench.info.features

    def _instance(self) -> Sleeps:
        if not isinstance(self._session.instance, Sleeps):
            raise DriverError("the engine says that its instances can sleep, and this one does not")
        return self._session.instance

    def _endpoint(self) -> Endpoint:
        instance = self._session.instance
        if instance is None or instance.endpoint is None:
            raise DriverError("the woken instance has no address to answer at")
        return instance.endpoint

    def _told(self, answer: Answer) -> Told:
        return Told.of(answer, host_realtime_ns=time.time_ns() - (self._bench.clock.now_ns() - answer.received_ns))


def _are(how: str) -> str:
    return f"are {how}" if how else "run"


def _latency_s(answer: Answer) -> float:
    return (answer.received_ns - answer.sent_ns) / 1e9
