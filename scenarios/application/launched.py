"""The launch of a whole application: each service is asked for once those that it waits for are as far as it wants."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, fields

from lab.errors import DriverError, LabError, LaunchError
from lab.launch.session import Session
from lab.scenario import Bench
from lab.spec import Spec
from lab.timeline import Phase
from scenarios.application.applied import Applied
from scenarios.application.described import Condition

SERVICE = "service"
"""The launch's fact, and the dimension, that tell which service of an application it is of."""
AFTER = "after"
NOTHING = "nothing"
_OF_A_LAUNCH = ("labels", "nonce")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A whole application: each service's session, that of the entry last to have answered; `after` tells whom each
    service waited for last. `requested_ns` is just before the first engine call."""

    sessions: Mapping[str, Session]
    after: Mapping[str, str]
    entry: Session
    requested_ns: int

    def ready_s(self) -> float:
        """Until the first complete answer of the entry's that counts. Raises MissingPhase."""
        return self.at_s(self.entry, Phase.READY)

    def at_s(self, session: Session, phase: Phase) -> float:
        """An instant of one service on the whole's timeline. Raises MissingPhase."""
        return (session.timeline.mark(phase).ns - self.requested_ns) / 1e9


@contextlib.contextmanager
def launched(bench: Bench, applied: Applied) -> Iterator[Running]:
    """The application, ready as a whole; on leaving, its services are removed, all at once. Where one fails, that is
    recorded as its launch's failure, and raised."""
    application, specs = applied.application, applied.begin(bench)
    ports = applied.ports(bench.spec.labels.get("lab.target", ""))
    with contextlib.ExitStack() as stack:
        own: dict[str, contextlib.ExitStack] = {}
        sessions: dict[str, Session] = {}
        for name in application.services:
            own[name] = stack.enter_context(contextlib.ExitStack())
            sessions[name] = own[name].enter_context(bench.unlaunched(host_port=ports[name], **_changes(specs[name])))
            sessions[name].beside[SERVICE] = name
        stack.callback(_remove, list(sessions.values()))
        bench.begin_at_random()
        start = _Start(sessions, {name: one.depends_on for name, one in application.services.items()})
        failed = start.run()
        if failed is not None:
            name, error = failed
            # Its own record first: to the others it is somebody else's.
            own[name].__exit__(type(error), error, error.__traceback__)
            raise error
        requested = [one.timeline.mark(Phase.REQUESTED).ns for one in sessions.values()]
        yield Running(
            sessions=sessions, after=start.after, entry=sessions[application.entry], requested_ns=min(requested)
        )


def _remove(sessions: Sequence[Session]) -> None:
    """Side by side, since an engine may take its time over each (Swarm some 6 s for what is on an overlay). Whoever
    leaves a session finds it done, or fails as this did, and says so."""
    with ThreadPoolExecutor(len(sessions), thread_name_prefix="lab-removal") as pool:
        wait([pool.submit(session.delete) for session in sessions])


def _changes(spec: Spec) -> dict[str, object]:
    return {one.name: getattr(spec, one.name) for one in fields(spec) if one.name not in _OF_A_LAUNCH}


@dataclass(slots=True)
class _Start:
    """A thread for each service, which waits for others, asks for its own, and awaits that."""

    sessions: Mapping[str, Session]
    depends_on: Mapping[str, Mapping[str, Condition]]
    after: dict[str, str] = field(default_factory=dict)
    _failed: tuple[str, BaseException] | None = None
    _met: dict[tuple[str, Condition], threading.Event] = field(default_factory=dict)
    _met_ns: dict[tuple[str, Condition], int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> tuple[str, BaseException] | None:
        """Whose launch failed first, and how; None where all are ready. What ends the waiting otherwise (an
        interruption) is raised once no thread works any more."""
        self._met = {(name, condition): threading.Event() for name in self.sessions for condition in Condition}
        with ThreadPoolExecutor(len(self.sessions), thread_name_prefix="lab-service") as pool:
            begun = [pool.submit(self._one, name) for name in self.sessions]
            try:
                wait(begun)
            except BaseException:
                self._fail("", LaunchError("the launch was broken off"))
                raise
        return self._failed

    def _one(self, name: str) -> None:
        try:
            self._launch(name, self.sessions[name])
        except BaseException as error:
            self._fail(name, error)

    def _launch(self, name: str, session: Session) -> None:
        for wanted in self.depends_on[name].items():
            self._met[wanted].wait()
        if self._failed is not None:
            return
        last = max(self.depends_on[name].items(), key=lambda wanted: self._met_ns[wanted], default=(NOTHING, None))
        self.after[name] = last[0]

        def heard(phase: Phase) -> None:
            if phase is Phase.STARTED:
                self._meet(name, Condition.STARTED)

        session.on_phase(heard)
        session.ask()
        if self._failed is not None:  # before there was anybody to give up
            return
        session.await_answer()
        self._meet(name, Condition.STARTED)  # at the latest, where its engine does not say so
        self._meet(name, Condition.HEALTHY)
        session.await_ready()

    def _meet(self, name: str, condition: Condition) -> None:
        """The first time counts."""
        self._met_ns.setdefault((name, condition), time.monotonic_ns())
        self._met[name, condition].set()

    def _fail(self, name: str, error: BaseException) -> None:
        """The first failure ends the others' waiting."""
        with self._lock:
            if self._failed is not None:
                return
            self._failed = name, error
        for other, session in self.sessions.items():
            if other != name:
                said = error.brief if isinstance(error, LabError) else str(error)
                session.give_up(DriverError(f"another service of the application, {name or 'any'}, failed: {said}"))
        for key, event in self._met.items():
            self._met_ns.setdefault(key, 0)
            event.set()
