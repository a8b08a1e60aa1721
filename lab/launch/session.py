"""One launch from `requested` to `deleted`: the port, the waiter, the marks, and the proof of the service's clock."""

from __future__ import annotations

import contextlib
import errno
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any

from lab.driver import Driver, Info, Instance, Mark
from lab.errors import (
    BadInput,
    DriverError,
    LabError,
    LaunchError,
    MeasurementError,
    ReadyRefused,
    ReadyTimeout,
    Unsupported,
)
from lab.features import EngineOnThisHost, Feature, OnThisHost, Reports, Role, Settles, TellsKill
from lab.host.facts import time_namespace
from lab.launch import listeners
from lab.launch.ends import last_lines
from lab.launch.kernels import is_this_hosts
from lab.launch.ticks import begin_at_random, tick_s
from lab.launch.waiter import Answer, Waiter, reserve_port
from lab.spec import Endpoint, Ready, Spec
from lab.store.record import KILLED_AFTER_S
from lab.timeline import Clock, HostClock, MarkRecord, Phase, Source, Timeline

_LINE = re.compile(rb"lab ([0-9a-f]{32}) (init|workload|main|listening) (\d{1,19})")
_WORKLOAD = b"workload"
_SLEPT_NS = 1_000_000_000
_SETTLE_S = 10.0
"""So long, or as long as it took to become ready, what an engine tells after that is waited for."""
_READY_S = 60.0
_STOP_S = 10.0
"""As Docker gives a container."""
_TOLD_WITHIN_S = 5.0
"""How long an engine's word of an end is waited for once it is seen that nothing runs."""

_STEADY_S = 0.25
"""A user's service that ends within this time of its first answer, as one that crashes again and again does, was not
ready. The engine's word of an end takes some tens of ms; nothing of it is in any figure."""


class Session:
    """Launches `spec` once through `driver`, and keeps the instance until `delete`, which leaving the context calls.

    After `launch`: `timeline` has the marks, `answer` the first answer (None without a network), `instance` the
    instance, `asked_at` where it was asked to answer. `beside` takes JSON values to keep with the launch's record, by
    name. Once `ending`, the stop was begun, and an error takes back nothing that was measured before. `spec` must be a
    launch's own (`Spec.for_launch`). Without `timeout_s` it becomes ready within a minute, or what the driver's facts
    say (`ready_timeout_s`). With `chance`, a launch and a stop on an engine that ticks begin a random part of its tick
    later.
    """

    def __init__(
        self,
        driver: Driver,
        info: Info,
        spec: Spec,
        clock: HostClock,
        *,
        timeout_s: float | None = None,
        port: int | None = None,
        chance: Random | None = None,
    ) -> None:
        self.spec = spec
        self.timeline = Timeline()
        self.instance: Instance | None = None
        self.answer: Answer | None = None
        self.asked_at: Endpoint | None = None
        self.beside: dict[str, Any] = {}
        self.ending = False
        self._driver = driver
        self._clock = clock
        self._timeout_s = timeout_s or float(info.facts.get("ready_timeout_s", _READY_S))
        self._port = port
        self._info = info
        self._chance = chance
        self._waited_s: dict[str, float] = {}
        self._network = Feature.NETWORK in info.features
        self._seen_from_here = Feature.HOST_PIDS in info.features
        self._marker = spec.builtin and Feature.MARKER in info.features
        # The lab's own init tells of a guest's network: before that QEMU takes connections that are answered late.
        self._guest = not spec.builtin and {Feature.MARKER, Feature.OWN_KERNEL} <= info.features
        self._marks = _Marks(self.timeline, spec, clock)
        self._refused = _refused(spec, info)
        self._waiter: Waiter | None = None
        self._slept_before_ns = 0
        self._logs = b""
        self._reported: dict[str, str] = {}

    @property
    def wait_method(self) -> str:
        """How `ready` was waited for; rows that differ in it are not compared without saying so."""
        if not self._network:
            return "none"
        if self.spec.ready is Ready.TCP:
            return "tcp"
        return "marker" if self._marker else "poll"

    def launch(self) -> None:
        """`ask`, then `await_ready`."""
        self.ask()
        self.await_ready()

    def ask(self) -> None:
        """Launch; returns when the engine has accepted it, a waiter being in place since before that was asked. The
        calling thread must live until `await_ready` has returned: its CPU time does not count as waiting.

        Raises LaunchError, DriverUnavailable, and Unsupported, before anything is made, for what the driver does not
        honour; what was made is removed by `delete`.
        """
        if self._refused:
            raise Unsupported(self._refused, resolution="leave this target out")
        self._begin_at_random("launch")
        endpoint = self.asked_at = self._reserve() if self._network else None
        waiter = self._waiter = Waiter(self.spec, self._clock)
        if self._guest:
            self._marks.on_workload = waiter.attempt
        else:
            self._marks.heard[Phase.LISTENING if self._marker else Phase.STARTED] = waiter.attempt
        self._marks.on_failed = waiter.fail
        self._slept_before_ns = self._slept_ns()
        if self._network:
            waiter.start(endpoint)
        with self._explained():
            self._marks(Phase.REQUESTED, source=Source.LAB)
            self.instance = self._driver.launch(self.spec, endpoint, self._marks)
            if self._network and self.instance.endpoint is None:
                raise LaunchError("the engine gave the instance no address to answer at")
            if self.instance.endpoint is not None and self.instance.endpoint != endpoint:
                waiter.set_endpoint(self.instance.endpoint)
            if not self._marker and not self._guest:
                waiter.attempt()  # at the latest, where the driver has not marked `started`

    def await_ready(self) -> None:
        """Wait until the first served request of what was asked for (without a network: until the service listens).

        Raises ReadyTimeout, MeasurementError, LaunchError where another program answered, and what the engine says
        where it gives the launch up.
        """
        with self._explained():
            if self._network and self._waiter is not None:
                answer = self._await_answer(self._waiter)
                self.timeline.add(
                    MarkRecord(phase=Phase.READY, ns=answer.received_ns, clock=Clock.HOST, source=Source.LAB)
                )
                self.answer = answer
            elif not self._marks.listening.wait(self._timeout_s):
                raise ReadyTimeout(f"the service did not say within {self._timeout_s:g} s that it listens")
            elif self._marks.failure is not None:
                raise self._marks.failure
        self._cancel_waiter()
        if isinstance(self.instance, Settles):
            self.instance.settle(timeout_s=max(_SETTLE_S, self._ready_after_s()))
        if abs(self._slept_ns() - self._slept_before_ns) > _SLEPT_NS:
            raise MeasurementError("the host slept during this launch")
        self._read_service_clock()
        self._keep_reported()

    def await_answer(self) -> None:
        """The first part of `await_ready`: wait for the first answer, and no longer. Whether it is this launch's, and
        whether what gave it stands, `await_ready` then says. Raises as that does."""
        if self._network and self._waiter is not None:
            with self._explained():
                self._first_answer(self._waiter)

    def on_phase(self, heard: Callable[[Phase], None]) -> None:
        """Have `heard` called with each phase at the instant at which the engine or the service shows it, from any
        thread; it must not take long."""
        self._marks.listeners.append(heard)

    def give_up(self, error: DriverError) -> None:
        """Let whoever awaits it get `error`, unless the answer is there. From any thread."""
        if (waiter := self._waiter) is not None:
            waiter.fail(error)

    def require_alive(self) -> None:
        """Raise how the service ended, where its engine has told that it did: what comes would be no stop of it."""
        if self._marks.failure is not None:
            raise self._marks.failure

    def stop(self, *, timeout_s: float | None = None, at_once: bool = False) -> None:
        """Stop the instance, marking `stop_requested` and `stopped`. Without `timeout_s` it gets ten seconds, or what
        its driver's facts say (`stop_timeout_s`); `at_once` where the caller times it, and has
        waited for a random instant itself. Raises DriverError."""
        if self.instance is None:
            return
        if timeout_s is None:
            timeout_s = float(self._info.facts.get("stop_timeout_s", _STOP_S))
        self.ending = True
        self._keep_logs()
        if not at_once:
            self._begin_at_random("stop")
        self._marks(Phase.STOP_REQUESTED, source=Source.LAB)
        self.instance.stop(timeout_s=timeout_s)
        self._marks(Phase.STOPPED, source=Source.RETURN)
        if isinstance(self.instance, TellsKill) and self.instance.was_killed():
            self.beside[KILLED_AFTER_S] = timeout_s

    def delete(self) -> None:
        """Remove the instance, verified, marking `deleted`. Idempotent. Raises CleanupError."""
        self._cancel_waiter()
        if self.instance is None or Phase.DELETED in self.timeline:
            return
        self._keep_logs()
        self.instance.delete()
        self._marks(Phase.DELETED, source=Source.RETURN)

    def facts(self) -> dict[str, Any]:
        """What a reader of the figures must know of this launch beside its marks; JSON values."""
        endpoint = self.instance.endpoint if self.instance else None
        found: dict[str, Any] = {"wait_method": self.wait_method, "address": endpoint.host if endpoint else None}
        if self.answer is not None:
            found["attempts"] = self.answer.attempts
            found |= {"status": self.answer.status} if self.answer.status else {}
        self._keep_reported()
        if self._reported:
            found["reported"] = self._reported
        if self._waited_s:
            found["tick"] = {"s": tick_s(self._info), "waited_s": dict(self._waited_s)}
        return found | self.beside

    def logs(self) -> bytes:
        """The end of what the instance wrote, also after it is gone."""
        return self._logs

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.delete()
        except DriverError as failed:
            if not isinstance(error, LabError):
                raise
            # The launch's own error is the one to keep; what is left is found again by its labels at the run's end.
            error.details = "\n".join(part for part in (error.details, f"and then: {failed}") if part)

    def _ready_after_s(self) -> float:
        if Phase.READY not in self.timeline:
            return 0.0
        return self.timeline.duration_s(Phase.REQUESTED, Phase.READY)

    def _begin_at_random(self, what: str) -> None:
        """Wait a random part of the engine's tick, untimed, and keep how long."""
        if self._chance is not None and tick_s(self._info):
            self._waited_s[what] = begin_at_random(self._info, self._clock, self._chance)

    def _reserve(self) -> Endpoint:
        try:
            return Endpoint("127.0.0.1", reserve_port(self._port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and self._port:
                raise BadInput(
                    f"port {self._port} on 127.0.0.1 is in use", resolution="give another --host-port, or none"
                ) from error
            raise LaunchError(f"no port can be had on 127.0.0.1: {error.strerror}") from error

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Ends the waiting at an error, and puts what the instance wrote into its details."""
        try:
            yield
        except LabError as error:
            self._keep_logs()
            written = self.logs().decode(errors="replace")
            parts = (error.details, written)
            if error is self._marks.failure:  # the service's last lines stand last, and once
                parts = (written, error.details if error.details != last_lines(written.encode()) else "")
            error.details = "\n".join(part for part in parts if part)
            self._cancel_waiter()
            raise
        except BaseException:
            self._cancel_waiter()
            raise

    def _await_answer(self, waiter: Waiter) -> Answer:
        """The answer, of this instance and no other. Raises as `await_ready`."""
        answer = self._first_answer(waiter)
        self._require_steady(answer)
        if not self.spec.builtin and self.asked_at is not None and (other := self._stranger(self.asked_at)):
            raise LaunchError(
                f"{other} answers at {self.asked_at}, and not the instance",
                resolution="leave that port to the lab: end that program, or give another --host-port",
            )
        if self.spec.ready is Ready.TCP and listeners.taken_by_a_forwarder(self.instance, self.spec.port):
            raise ReadyTimeout(
                f"a connection stood, and inside the instance nobody has port {self.spec.port}: a forwarder took it",
                resolution="see that it listens at --port, on all addresses of its own",
            )
        return answer

    def _first_answer(self, waiter: Waiter) -> Answer:
        try:
            return waiter.wait(self._timeout_s)
        except ReadyRefused:
            raise
        except ReadyTimeout as error:
            if why := listeners.inside(self.instance, self.spec.port):
                raise ReadyTimeout(f"{error.brief}; {why}", details=error.details) from error
            raise

    def _stranger(self, endpoint: Endpoint) -> str:
        """Who else answers at the lab's own port; a nonce would tell, and a user's image has none."""
        instance, driver = self.instance, self._driver
        if not isinstance(instance, OnThisHost) or instance.endpoint != endpoint:
            return ""
        engine = driver.engine_pids() if isinstance(driver, EngineOnThisHost) else {}
        return listeners.stranger(endpoint, instance.host_pids().keys(), engine)

    def _require_steady(self, answer: Answer) -> None:
        """Raise how the service ended, if that is what answered and it ended at once."""
        if not self.spec.builtin:
            left_s = _STEADY_S - (self._clock.now_ns() - answer.received_ns) / 1e9
            if not self._marks.failed_already.wait(max(0.0, left_s)) and self._is_gone():
                self._marks.failed_already.wait(_TOLD_WITHIN_S)
        self.require_alive()

    def _is_gone(self) -> bool:
        """Whether nothing of the instance is seen to run: on a busy machine an engine's word of that comes late."""
        if not self._seen_from_here or not isinstance(self.instance, OnThisHost):
            return False
        return not {Role.SERVICE, Role.VMM} & set(self.instance.host_pids().values())

    def _cancel_waiter(self) -> None:
        waiter, self._waiter = self._waiter, None
        self._marks.heard.clear()  # one that sleeps and is woken, or is run again, says anew what nobody waits for
        if waiter is not None:
            waiter.cancel()

    def _read_service_clock(self) -> None:
        """Add the service's own marks, on the shared clock where this launch proves it and on a guest's elsewhere."""
        told = self.answer.clock() if self.answer else None
        if told is not None and self.answer is not None:
            instants = {"sent_ns": self.answer.sent_ns, "received_ns": self.answer.received_ns}
            shared = proves_shared(told, **instants, instance=self.instance)
            for phase, key in ((Phase.MAIN, "main_ns"), (Phase.LISTENING, "listening_ns")):
                self._add_service_mark(phase, int(told[key]), shared=shared)
        elif not self._network:
            requested_ns = self.timeline.mark(Phase.REQUESTED).ns
            for phase, (told_ns, arrived_ns) in self._marks.told.items():
                self._add_service_mark(phase, told_ns, shared=requested_ns <= told_ns <= arrived_ns)

    def _add_service_mark(self, phase: Phase, ns: int, *, shared: bool) -> None:
        clock = Clock.SHARED if shared else Clock.GUEST
        self.timeline.add(MarkRecord(phase=phase, ns=ns, clock=clock, source=Source.SERVICE))

    def _keep_reported(self) -> None:
        """As of now; an engine that has forgotten the instance, or cannot be asked, takes back nothing of it."""
        if isinstance(self.instance, Reports):
            with contextlib.suppress(DriverError):
                self._reported |= self.instance.reported()

    def _keep_logs(self) -> None:
        if self.instance is not None and not self._logs:
            with contextlib.suppress(DriverError):  # evidence is kept where it can be had; its lack hides no failure
                self._logs = self.instance.logs()

    def _slept_ns(self) -> int:
        return self._clock.boottime_ns() - self._clock.now_ns()


class _Marks:
    """The `Mark` that a driver is given: reads the clock first, then everything else."""

    def __init__(self, timeline: Timeline, spec: Spec, clock: HostClock) -> None:
        self.told: dict[Phase, tuple[int, int]] = {}
        self.listening = threading.Event()
        self.heard: dict[Phase, Callable[[], None]] = {}
        self.listeners: list[Callable[[Phase], None]] = []
        self.failure: DriverError | None = None
        self.failed_already = threading.Event()
        self.on_failed: Callable[[DriverError], None] = lambda _: None
        self.on_workload: Callable[[], None] = lambda: None
        self._timeline = timeline
        self._nonce = spec.nonce.encode()
        self._clock = clock

    def __call__(self, phase: Phase, *, source: Source) -> None:
        self.hear(phase, self._clock.now_ns(), source)

    def line(self, text: bytes, *, source: Source) -> None:
        self.read(text, self._clock.now_ns(), source)

    def moment(self) -> Mark:
        return _Moment(self, self._clock.now_ns())

    def read(self, text: bytes, arrived_ns: int, source: Source) -> None:
        """Find the marks that a line bears."""
        found = _LINE.search(text)
        if found is None or found[1] != self._nonce:
            return
        if found[2] == _WORKLOAD:
            self.on_workload()
            return
        phase = Phase(found[2].decode())
        self.told.setdefault(phase, (int(found[3]), arrived_ns))
        self.hear(phase, arrived_ns, source)
        if phase is Phase.LISTENING:
            self.listening.set()

    def failed(self, error: DriverError) -> None:
        if self.failure is None:  # what follows, such as the end of its machine, is the first one's effect
            self.failure = error
            self.failed_already.set()
            self.on_failed(error)
            self.listening.set()

    def hear(self, phase: Phase, ns: int, source: Source) -> None:
        """Keep an instant, and tell whoever waits for its phase."""
        self._timeline.add(MarkRecord(phase=phase, ns=ns, clock=Clock.HOST, source=source))
        if (waiting := self.heard.get(phase)) is not None:
            waiting()
        for listener in self.listeners:
            listener(phase)


@dataclass(frozen=True, slots=True)
class _Moment:
    """Marks, all at one instant."""

    marks: _Marks
    ns: int

    def __call__(self, phase: Phase, *, source: Source) -> None:
        self.marks.hear(phase, self.ns, source)

    def line(self, text: bytes, *, source: Source) -> None:
        self.marks.read(text, self.ns, source)

    def moment(self) -> Mark:
        return self

    def failed(self, error: DriverError) -> None:
        self.marks.failed(error)


def _refused(spec: Spec, info: Info) -> str:
    """Why an instance of `spec` must not be launched there; empty where it may."""
    if (spec.guest_panic or spec.guest_clock_offset_s) and Feature.OWN_KERNEL not in info.features:
        return f"{info.engine} runs no guest with a kernel of its own, whose panic or clock would be its own alone"
    if spec.cpuset and Feature.PINNING not in info.features:
        return f"{info.engine} cannot hold an instance to CPUs here"
    if spec.node and Feature.NODES not in info.features:
        return f"{info.engine} has no nodes to choose from here"
    if spec.peers and Feature.PEERS not in info.features:
        return f"{info.engine} offers no way from inside one instance to another"
    return ""


def proves_shared(told: Mapping[str, Any], *, sent_ns: int, received_ns: int, instance: Instance | None = None) -> bool:
    """Whether the clock of the service that answered `told` is the lab's own (docs/method.md, rule 2): its `now` lies
    between the request's leaving and the answer's arrival, and it runs in this kernel and this time namespace."""
    return (
        sent_ns <= int(told["now_ns"]) <= received_ns
        and is_this_hosts(told, instance)
        and told.get("time_namespace") == time_namespace() != ""
    )
