"""What the contract's tests look at: one driver, one instance of it that serves, and the whole life of another."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from host_view import HostView, Listener, Snapshot, born_since, listeners

from lab.driver import Context, Driver, Info, Instance, Mark
from lab.errors import DriverError, LabError
from lab.features import Feature, OnThisHost, Role, Sleeps, SleepState
from lab.host import procs
from lab.host.limits import Limit
from lab.host.procs import Entry, Process
from lab.launch.session import Session
from lab.service import ask
from lab.service.serving import workload
from lab.spec import Endpoint, Spec, Target
from lab.testing.engine import Engine
from lab.timeline import HostClock, Phase, Source
from lab.units import MIB

VERSION = "contract-1"
LEFT_OUT = "left to `make test-whole`: it would boot another whole distribution"


def not_promised(why: str) -> NoReturn:
    """Skip what the contract leaves open: allowed also where LAB_REQUIRE names the driver."""
    pytest.skip(f"not promised: {why}")


@dataclass(slots=True, eq=False)
class Heard:
    """All that a driver handed to the lab of one launch: `phases` and `lines` in order, and `failures`. `existed` says
    of the first mark of each (phase, source) whether at that instant the object was found by its label, and for
    `started` with processes of this host, whether it had one."""

    phases: list[tuple[Phase, Source]] = field(default_factory=list)
    lines: list[tuple[bytes, Source]] = field(default_factory=list)
    failures: list[DriverError] = field(default_factory=list)
    existed: dict[tuple[Phase, Source], bool] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.phases) + len(self.lines) + len(self.failures)


class Recording:
    """The `Mark` that a driver is given: notes, looks, and hands on."""

    def __init__(self, mark: Mark | None, heard: Heard, looks: Callable[[Phase], bool] | None = None) -> None:
        self._mark = mark
        self._heard = heard
        self._looks = looks

    def __call__(self, phase: Phase, *, source: Source) -> None:
        self._heard.phases.append((phase, source))
        if self._mark is not None:
            self._mark(phase, source=source)
        if self._looks is not None and source is Source.RETURN and (phase, source) not in self._heard.existed:
            self._heard.existed[phase, source] = self._looks(phase)

    def line(self, text: bytes, *, source: Source) -> None:
        self._heard.lines.append((text, source))
        if self._mark is not None:
            self._mark.line(text, source=source)

    def moment(self) -> Recording:
        held = self._mark.moment() if hasattr(self._mark, "moment") else self._mark  # type: ignore[union-attr]
        return Recording(held, self._heard, self._looks)

    def failed(self, error: DriverError) -> None:
        self._heard.failures.append(error)
        if self._mark is not None:
            self._mark.failed(error)


class _Recorded:
    """`driver`, whose marks are noted in `heard` on their way to the lab."""

    def __init__(self, driver: Driver, heard: Heard, looks: Callable[[str, Phase], bool] | None) -> None:
        self._driver = driver
        self._heard = heard
        self._looks = looks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        looks = self._looks
        see = (lambda phase: looks(spec.labels["lab.launch"], phase)) if looks is not None else None
        return self._driver.launch(spec, endpoint, Recording(mark, self._heard, see))


@dataclass(frozen=True, eq=False)
class Served:
    """An instance that serves, as it is looked at by many tests; `born` are the processes that came with it."""

    session: Session
    instance: Instance
    heard: Heard
    pids: Mapping[int, Role]
    workload: list[int]
    born: Mapping[int, Entry]
    new_listeners: set[Listener]

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        return ask.facts(self.session)


@dataclass(slots=True, eq=False)
class Life:
    """One instance from its launch by a driver of its own to that driver's `close`, and what was seen on the way;
    `errors` by the call that raised."""

    before: Snapshot
    heard: Heard = field(default_factory=Heard)
    errors: dict[str, Exception] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    cgroups: list[Path] = field(default_factory=list)
    log: bytes = b""
    nonce: str = ""
    timeline: Any = None
    alive_after_stop: list[Process] = field(default_factory=list)
    served_after_stop: bool = False
    log_after_delete: bytes = b""
    alive_after_delete: list[Process] = field(default_factory=list)
    listed_after_delete: bool = False
    heard_at_delete: int = 0
    heard_later: int = 0
    after: Snapshot | None = None

    @contextlib.contextmanager
    def tried(self, call: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.errors[call] = error


@dataclass(slots=True, eq=False)
class Rest:
    """What was seen of one state of sleep: what the service told `before` and `after`, whether it answered `asleep`,
    which processes of its workload ran then, and what it slept on that is not there; `error` is what a call raised."""

    state: SleepState
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    answered_asleep: bool = False
    running: list[int] = field(default_factory=list)
    files: Sequence[Path] = ()
    missing: list[Path] = field(default_factory=list)
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class Slept:
    """One instance in each state that it can sleep in, one after the other, and in the first of them removed by a
    driver that did not put it there; `refusals` by the state that it does not offer."""

    states: Mapping[SleepState, str] = field(default_factory=dict)
    rests: list[Rest] = field(default_factory=list)
    refusals: dict[SleepState, Exception | None] = field(default_factory=dict)
    found: bool = False
    error: Exception | None = None
    alive_after_delete: list[Process] = field(default_factory=list)
    listed_after_delete: bool = False


class Rig:
    """One driver, prepared; `make` makes another like it."""

    def __init__(
        self,
        target: Target,
        make: Callable[[], Driver],
        context: Context,
        labels: Mapping[str, str],
        *,
        clock: HostClock,
        view: HostView,
        timeout_s: float = 120.0,
        settle_s: float = 3.0,
        shared_only: bool = False,
    ) -> None:
        """`settle_s` is what threads, descriptors and helpers get to end by themselves. With `shared_only` nothing is
        launched but what `served` shares: a whole distribution takes a minute to boot, and more."""
        self.target = target
        self.fresh = make
        self.context = context
        self.clock = clock
        self.view = view
        self.timeout_s = timeout_s
        self.settle_s = settle_s
        self._shared_only = shared_only
        self._failed: Exception | None = None
        self._open: Session | None = None
        self.driver = make()
        self.info: Info = self.driver.info()
        self.timeout_s = max(self.timeout_s, float(self.info.facts.get("ready_timeout_s", 0)))
        # Other sizes than the defaults, which a driver may have written down instead of taking them from the spec.
        self.spec = Spec(
            labels={**labels, "lab.target": str(target)},
            environment={"LAB_VERSION": VERSION},
            memory_bytes=max(112 * MIB, int(self.info.facts.get("least_memory_bytes", 0))),
            cpus=0.75,
            pids=100,
            scratch_bytes=12 * MIB,
        )
        self.driver.prepare(self.spec)

    @property
    def run(self) -> dict[str, str]:
        """The label by which all of this rig's are found."""
        return {"lab.run": self.spec.labels["lab.run"]}

    def has(self, feature: Feature) -> bool:
        return feature in self.info.features

    def needs(self, *features: Feature) -> None:
        """Skip where the driver does not claim them."""
        for feature in features:
            if not self.has(feature):
                not_promised(f"{self.target} does not claim {feature}")

    def isolated(self, by: str) -> bool:
        """Whether `Info.isolation` says so, in the words of docs/drivers.md."""
        return self.info.isolation.startswith(by)

    def limit_not_set(self, limit: str) -> str:
        """Why the driver says that it cannot set `limit`; empty where it does."""
        said = str(self.info.facts.get("limits", {}).get(limit, ""))
        return said if said.startswith("not set") else ""

    def session(self, *, heard: Heard | None = None, driver: Driver | None = None, **changes: Any) -> Session:
        self._anew()
        spec = replace(self.spec, **changes).for_launch()
        recorded = _Recorded(driver or self.driver, heard or Heard(), None)
        return Session(recorded, self.info, spec, self.clock, timeout_s=self.timeout_s)  # type: ignore[arg-type]

    def _anew(self) -> None:
        """Skips what must launch once more, where only one is to be launched."""
        if self._shared_only:
            pytest.skip(LEFT_OUT)

    @cached_property
    def served(self) -> Served:
        """Launched at the first look, once and for all, and deleted with the rig."""
        if self._failed is not None:
            raise self._failed
        try:
            return self._serve()
        except Exception as error:
            self._failed = error
            raise

    def _serve(self) -> Served:
        heard = Heard()
        cpuset = (max(os.sched_getaffinity(0)),) if self.has(Feature.PINNING) else ()
        spec = replace(self.spec, cpuset=cpuset).for_launch()
        recorded = _Recorded(self.driver, heard, self._exists)
        table, listening = procs.table(), listeners()
        session = Session(recorded, self.info, spec, self.clock, timeout_s=self.timeout_s)  # type: ignore[arg-type]
        self._open = session
        session.launch()
        instance = session.instance
        assert instance is not None
        pids = dict(instance.host_pids()) if self.has(Feature.HOST_PIDS) and isinstance(instance, OnThisHost) else {}
        port = instance.endpoint.port if instance.endpoint else 0
        look = partial(born_since, table, pids, workload(pids), [spec.labels["lab.launch"], instance.id], port)
        deadline = time.monotonic() + self.settle_s
        born = look()
        while set(born) - set(pids) and pids and time.monotonic() < deadline:
            time.sleep(0.1)  # what an engine runs only while it launches is no part of the instance
            born = {pid: one for pid, one in look().items() if pid in born}
        return Served(session, instance, heard, pids, workload(pids), born, listeners() - listening)

    @cached_property
    def life(self) -> Life:
        """Lived at the first look. `served` comes first, so that what an SDK makes once for all is there before."""
        self._anew()
        _ = self.served
        life = Life(Snapshot.take(self.context.run_dir))
        driver = self.fresh()
        driver.info()
        session = self.session(heard=life.heard, driver=driver)
        life.nonce, life.timeline = session.spec.nonce, session.timeline
        try:
            session.launch()
            self._end(life, session)
        finally:
            with contextlib.suppress(Exception):
                session.delete()
            with life.tried("close"):
                driver.close()
            with life.tried("close again"):
                driver.close()
        deadline = time.monotonic() + self.settle_s
        while True:
            life.after = Snapshot.take(self.context.run_dir)
            if life.after == life.before or time.monotonic() > deadline:
                return life
            time.sleep(0.05)

    @cached_property
    def slept(self) -> Slept:
        """Slept at the first look, once and for all, by the instance that `served`: who looks at that afterwards has a
        new one."""
        self._anew()
        slept = Slept()
        session, instance = self.served.session, self.served.instance
        assert isinstance(instance, Sleeps)
        try:
            slept.states = instance.sleep_states()
            offered = [state for state, why in slept.states.items() if not why]
            for state in set(SleepState) - set(offered):
                slept.refusals[state] = _refusal(instance, state, self.timeout_s)
            slept.rests = [self._rest(session, instance, state) for state in offered]
            if offered and slept.rests[0].error is None:
                self._remove_asleep(slept, session, instance, offered[0])
        finally:
            with contextlib.suppress(Exception):
                session.delete()
            self._open = None
            del self.__dict__["served"]
        return slept

    def _rest(self, session: Session, instance: Sleeps, state: SleepState) -> Rest:
        rest = Rest(state, before=clock_of(session, None, timeout_s=min(30.0, self.timeout_s)))
        try:
            instance.sleep(state, timeout_s=min(30.0, self.timeout_s))
            assert session.instance is not None
            endpoint = session.instance.endpoint
            called_awake = state is SleepState.ZERO and self.has(Feature.FUNCTION)  # by any request: it is not asked
            rest.answered_asleep = not called_awake and endpoint is not None and serves(endpoint, timeout_s=0.3)
            rest.running = [pid for pid in self._service(instance) if not procs.held_still(pid)]
            rest.files = instance.sleeps_on(state)
            rest.missing = [path for path in rest.files if not path.exists()]
            instance.wake(state)
            rest.after = self._answer_after(session)
        except Exception as error:
            rest.error = error
        return rest

    def _answer_after(self, session: Session) -> Mapping[str, Any]:
        deadline = time.monotonic() + min(90.0, self.timeout_s)
        while not (told := clock_of(session, None, timeout_s=1.0)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return told

    def _remove_asleep(self, slept: Slept, session: Session, instance: Sleeps, state: SleepState) -> None:
        processes = [one for pid in self._service(instance) if (one := Process.of(pid)) is not None]
        launched = {"lab.launch": session.spec.labels["lab.launch"]}
        with contextlib.closing(self.fresh()) as other:
            try:
                instance.sleep(state, timeout_s=min(30.0, self.timeout_s))
                found = other.list_instances(launched)
                slept.found = len(found) == 1
                for one in found:
                    one.delete()
            except Exception as error:
                slept.error = error
            slept.alive_after_delete = procs.all_ended(processes, self.settle_s)
            slept.listed_after_delete = bool(other.list_instances(launched))

    def _service(self, instance: object) -> list[int]:
        """Its processes of this host's kernel's own, which that can tell of."""
        pids = instance.host_pids() if self.has(Feature.HOST_PIDS) and isinstance(instance, OnThisHost) else {}
        return [pid for pid, role in pids.items() if role is Role.SERVICE]

    def _end(self, life: Life, session: Session) -> None:
        instance = session.instance
        assert instance is not None
        pids = dict(instance.host_pids()) if self.has(Feature.HOST_PIDS) and isinstance(instance, OnThisHost) else {}
        life.processes = [one for pid in pids if (one := Process.of(pid)) is not None]
        working = [one for one in life.processes if one.pid in workload(pids)]
        held = [self.view.held(limit, workload(pids), set(pids)) for limit in Limit]
        life.cgroups = [one.file.parent for one in held if not isinstance(one, str)]
        life.log = self.log_with(instance, session.spec.nonce.encode())
        with life.tried("stop"):
            session.stop()
        life.alive_after_stop = procs.all_ended(working, 1.0)
        life.served_after_stop = instance.endpoint is not None and serves(instance.endpoint)
        with life.tried("stop again"):
            instance.stop(timeout_s=1)
        with life.tried("delete"):
            session.delete()
        life.heard_at_delete = life.heard.count
        with life.tried("delete again"):
            instance.delete()
        with life.tried("stop a deleted one"):
            instance.stop(timeout_s=1)
        with life.tried("the log of a deleted one"):
            life.log_after_delete = instance.logs()
        life.alive_after_delete = procs.all_ended(life.processes, self.settle_s)
        with contextlib.closing(self.fresh()) as other:
            launched = {"lab.launch": session.spec.labels["lab.launch"]}
            life.listed_after_delete = any(one.id == instance.id for one in other.list_instances(launched))
        time.sleep(0.2)  # for what comes late
        life.heard_later = life.heard.count

    def log_with(self, instance: Instance, wanted: bytes, timeout_s: float = 30.0) -> bytes:
        """Its log, once a line with `wanted` is in it and has its end: an engine may log what it has forwarded already,
        and its log may be asked for between two parts of a line."""
        deadline = time.monotonic() + min(timeout_s, self.timeout_s)
        while wanted not in _whole_lines(log := instance.logs()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return log

    def close(self) -> None:
        """Remove all that this rig made, and see that nothing is left."""
        try:
            if self._open is not None:
                self._open.delete()
        finally:
            with contextlib.closing(self.fresh()) as fresh:
                for found in (fresh.list_instances, fresh.leftovers):
                    for one in found(self.run):
                        one.delete()
                left = [one.id for found in (fresh.list_instances, fresh.leftovers) for one in found(self.run)]
            self.driver.close()
        assert not left, f"still there after it was deleted: {left}"

    def give_up(self) -> None:
        """Remove all that can be removed of a driver that need not keep its promises."""
        model = getattr(self.driver, "engine", None)
        if isinstance(model, Engine):
            model.shut_down()
        else:
            self.close()

    def _exists(self, launch: str, phase: Phase) -> bool:
        with contextlib.closing(self.fresh()) as other:
            found = other.list_instances({"lab.launch": launch})
            if phase is not Phase.STARTED or not self.has(Feature.HOST_PIDS):
                return bool(found)
            return any(isinstance(one, OnThisHost) and one.host_pids() for one in found)


def _refusal(instance: Sleeps, state: SleepState, timeout_s: float) -> Exception | None:
    """What it says to a state that it does not offer; None where it says nothing."""
    try:
        instance.sleep(state, timeout_s=min(5.0, timeout_s))
    except Exception as error:
        return error
    return None


def serves(endpoint: Endpoint, *, timeout_s: float = 2.0) -> bool:
    """Whether anything is answered there; a cluster's own forwarder may take a connection that it cannot pass on, and
    a platform that serves by name refuses a name in words of its own."""
    request = f"GET /healthz HTTP/1.1\r\nHost: {endpoint.named}\r\nConnection: close\r\n\r\n"
    within_s = max(timeout_s, 20.0) if endpoint.authority else timeout_s
    try:
        with socket.create_connection((endpoint.host, endpoint.port), within_s) as connection:
            connection.sendall(request.encode())
            status = connection.recv(12)
            return b" 200" in status if endpoint.authority else bool(status)
    except OSError:
        return False


def get(
    session: Session, path: str, *, nonce: str = "", endpoint: Endpoint | None = None, timeout_s: float = 30.0
) -> bytes:
    """The whole answer to GET `path`. Raises OSError."""
    where = endpoint or (session.instance.endpoint if session.instance else None)
    assert where is not None
    request = f"GET {path} HTTP/1.1\r\nHost: {where.named}\r\nConnection: close\r\nX-Lab-Nonce: {nonce}\r\n\r\n"
    with socket.create_connection((where.host, where.port), timeout_s) as connection:
        connection.sendall(request.encode())
        answer = b""
        while part := connection.recv(4096):
            answer += part
    return answer


def clock_of(session: Session, endpoint: Endpoint | None, *, timeout_s: float = 30.0) -> Mapping[str, Any]:
    """What is answered to /clock there; empty where nobody does."""
    try:
        answer = get(session, "/clock", nonce=session.spec.nonce, endpoint=endpoint, timeout_s=timeout_s)
        found: Mapping[str, Any] = json.loads(answer.split(b"\r\n\r\n", 1)[1])
        return found
    except (OSError, ValueError, LookupError):
        return {}


def who_answers(session: Session, endpoint: Endpoint | None) -> tuple[object, ...] | None:
    """By what no two starts are alike; None where nobody answers."""
    told = clock_of(session, endpoint)
    return (told["boot_id"], told["pid"], told["main_ns"]) if told else None


def one_line(error: BaseException) -> bool:
    """Whether it is an error of the lab's whose brief is one line for a user."""
    return isinstance(error, LabError) and bool(error.brief) and "\n" not in error.brief


def _whole_lines(log: bytes) -> bytes:
    return log[: log.rfind(b"\n") + 1]


def whole_cpus(cpus: float) -> int:
    return max(1, math.ceil(cpus))


def threads_named(threads: frozenset[threading.Thread]) -> list[str]:
    return sorted(thread.name for thread in threads)
