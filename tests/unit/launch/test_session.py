"""One launch, against the fake engine: the waiter, the marks, the proof of the clock, and what a failure leaves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from lab.driver import Context, Instance, Mark
from lab.errors import BadInput, LaunchError, MeasurementError, ReadyTimeout
from lab.features import Feature, Role
from lab.launch.session import Session
from lab.launch.waiter import reserve_port
from lab.spec import Endpoint, Ready, Spec
from lab.store.record import KILLED_AFTER_S
from lab.testing import FakeDriver, FakeEngine, FakeInstance, engine_of
from lab.timeline import ENGINE_CHAIN, Clock, Phase, Source


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    return FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path))


@pytest.fixture
def engine(driver: FakeDriver, tmp_path: Path) -> Iterator[FakeEngine]:
    engine = engine_of(Context(run_dir=tmp_path, cache_dir=tmp_path))
    yield engine
    assert not engine.instances, "a session left an instance behind"


def session_of(driver: FakeDriver, timeout_s: float = 20, port: int | None = None, **spec: object) -> Session:
    made = Spec(labels={"lab.run": "r"}, **spec).for_launch()  # type: ignore[arg-type]
    return Session(driver, driver.info(), made, driver.engine.clock, timeout_s=timeout_s, port=port)


def test_a_known_delay_is_measured_exactly(driver: FakeDriver, engine: FakeEngine) -> None:
    engine.created_s, engine.started_s, engine.main_s = 0.1, 0.2, 0.3
    engine.listening_s, engine.ready_s = 0.04, 0.005
    with session_of(driver) as session:
        session.launch()
        assert session.timeline.duration_s(Phase.REQUESTED, Phase.READY) == 0.645
        assert session.timeline.duration_s(Phase.LISTENING, Phase.READY) == 0.005
        assert session.timeline.mark(Phase.MAIN).clock is Clock.SHARED
        assert session.wait_method == "marker"
        assert session.answer is not None and session.answer.attempts == 1


def test_without_a_marker_it_polls_on_new_connections(driver: FakeDriver, engine: FakeEngine) -> None:
    engine.features = frozenset({Feature.NETWORK})
    late = threading.Event()

    class Late(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            mark(Phase.STARTED, source=Source.EVENT)
            late.wait(0.3)
            return super().launch(spec, endpoint, mark)

    slow = Late("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    slow.engine = engine
    with session_of(slow) as session:
        session.launch()
        assert session.wait_method == "poll"
        assert session.answer is not None and 5 < session.answer.attempts <= 61  # no oftener than every 5 ms


def test_a_forwarder_that_accepts_early_is_not_ready(driver: FakeDriver, engine: FakeEngine) -> None:
    """docker-proxy and slirp accept before the service listens: what they lost is replaced when it is reset."""
    engine.features = frozenset({Feature.NETWORK})
    port = reserve_port()
    silent = socket.socket()
    silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    silent.bind(("127.0.0.1", port))
    silent.listen(64)

    class Forwarder(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            mark(Phase.STARTED, source=Source.EVENT)
            time.sleep(0.3)
            silent.close()
            return super().launch(spec, endpoint, mark)

    forwarding = Forwarder("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    forwarding.engine = engine
    session = session_of(forwarding)
    session._reserve = lambda: Endpoint("127.0.0.1", port)  # type: ignore[method-assign]
    with session:
        session.launch()
        assert session.answer is not None and session.answer.attempts >= 2


def test_no_attempt_precedes_what_the_engine_says_has_started(driver: FakeDriver, engine: FakeEngine) -> None:
    """docker-proxy takes connections before the container has a network, which delays that one by up to a second."""
    engine.features = frozenset({Feature.NETWORK})
    early: list[str] = []

    class Watched(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            assert endpoint is not None
            with socket.socket() as proxy:
                proxy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                proxy.bind((endpoint.host, endpoint.port))
                proxy.listen(64)
                proxy.settimeout(0.2)
                mark(Phase.CREATED, source=Source.RETURN)
                try:
                    proxy.accept()[0].close()
                    early.append("before `started`")
                except TimeoutError:
                    pass
                mark(Phase.STARTED, source=Source.EVENT)
                proxy.accept()[0].close()
            return super().launch(spec, endpoint, mark)

    watched = Watched("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    watched.engine = engine
    with session_of(watched) as session:
        session.launch()
    assert not early


def test_an_answer_without_this_launchs_nonce_is_not_ready(driver: FakeDriver, engine: FakeEngine) -> None:
    engine.features = frozenset({Feature.NETWORK})

    class Impostor(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            return super().launch(replace(spec, nonce="0" * 32), endpoint, mark)

    impostor = Impostor("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    impostor.engine = engine
    # /healthz is answered with 200 whatever the request's nonce.
    with session_of(impostor, timeout_s=0.5, ready_path="/healthz") as session, pytest.raises(ReadyTimeout):
        session.launch()
    assert Phase.READY not in session.timeline


def test_a_clock_that_is_not_the_hosts_is_kept_apart(
    driver: FakeDriver, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.testing.fake.boot_id", lambda: "another-kernel")
    with session_of(driver) as session:
        session.launch()
        service = [mark for mark in session.timeline if mark.source is Source.SERVICE]
        assert {mark.clock for mark in service} == {Clock.GUEST}
        assert session.timeline.mark(Phase.MAIN).source is Source.LOG


def test_without_a_network_ready_stays_absent_and_the_lines_clock_is_proven(
    driver: FakeDriver, engine: FakeEngine
) -> None:
    engine.features = frozenset({Feature.MARKER})
    with session_of(driver) as session:
        session.launch()
        assert Phase.READY not in session.timeline
        assert session.timeline.mark(Phase.LISTENING).clock is Clock.SHARED


def test_a_launch_during_which_the_host_slept_has_failed(driver: FakeDriver, engine: FakeEngine) -> None:
    class Sleepy(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            self.engine.clock.sleep_host(90)
            return super().launch(spec, endpoint, mark)

    sleepy = Sleepy("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    sleepy.engine = engine
    with session_of(sleepy) as session, pytest.raises(MeasurementError, match="slept"):
        session.launch()


def test_a_failed_launch_keeps_what_the_engine_said(driver: FakeDriver, engine: FakeEngine) -> None:
    engine.fail_launches = 1
    with session_of(driver) as session, pytest.raises(LaunchError) as raised:
        session.launch()
    assert "said so" in raised.value.details


def test_a_wanted_port_in_use_is_bad_input(driver: FakeDriver, engine: FakeEngine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with session_of(driver, port=port) as session, pytest.raises(BadInput, match=str(port)):
            session.launch()


def test_what_one_event_shows_has_one_instant_and_what_two_show_has_two(driver: FakeDriver, engine: FakeEngine) -> None:
    """Time passes between the marks, as it does on any engine: of the lab's own making, and no figure."""

    class Telling(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            mark(Phase.CREATED, source=Source.RETURN)
            self.engine.clock.advance(0.1)
            event = mark.moment()
            for phase in (Phase.SCHEDULED, Phase.POD_IP):
                event(phase, source=Source.EVENT)
                self.engine.clock.advance(0.001)
            mark.moment()(Phase.STARTED, source=Source.EVENT)
            piece = mark.moment()
            piece.line(f"lab {spec.nonce} init 5".encode(), source=Source.CONSOLE)
            self.engine.clock.advance(0.001)
            piece.moment().line(f"lab {spec.nonce} main 6".encode(), source=Source.CONSOLE)
            return super().launch(spec, endpoint, mark)

    telling = Telling("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    telling.engine = engine
    with session_of(telling) as session:
        session.launch()
        timeline = session.timeline
        assert timeline.duration_s(Phase.SCHEDULED, Phase.POD_IP) == 0.0
        engine_steps = [(start, end) for start, end, _ in timeline.steps(ENGINE_CHAIN)]
        assert (Phase.SCHEDULED, Phase.POD_IP) not in engine_steps and (Phase.POD_IP, Phase.STARTED) in engine_steps
        told = {mark.phase: mark.ns for mark in timeline if mark.source is Source.CONSOLE}
        assert told[Phase.INIT] == told[Phase.MAIN]


def test_the_waiters_thread_and_sockets_end_with_the_launch(driver: FakeDriver, engine: FakeEngine) -> None:
    for _ in range(3):
        with session_of(driver) as session:
            session.launch()
    assert not [thread for thread in threading.enumerate() if thread.name == "lab-waiter"]


def test_a_guest_with_a_users_image_is_asked_once_its_init_begins_the_workload(
    driver: FakeDriver, engine: FakeEngine
) -> None:
    """QEMU's user-mode network takes connections while the guest has none, and answers them seconds later."""
    engine.features = frozenset({Feature.NETWORK, Feature.MARKER, Feature.OWN_KERNEL})
    early: list[str] = []

    class Guest(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            assert endpoint is not None
            with socket.socket() as forwarder:
                forwarder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                forwarder.bind((endpoint.host, endpoint.port))
                forwarder.listen(64)
                forwarder.settimeout(0.2)
                mark(Phase.STARTED, source=Source.RETURN)
                mark.line(f"lab {spec.nonce} init 1".encode(), source=Source.CONSOLE)
                try:
                    forwarder.accept()[0].close()
                    early.append("before the workload")
                except TimeoutError:
                    pass
            threading.Timer(
                0.1, lambda: mark.line(f"lab {spec.nonce} workload 2".encode(), source=Source.CONSOLE)
            ).start()
            return super().launch(replace(spec, image=Spec().image), endpoint, mark)

    guest = Guest("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    guest.engine = engine
    with session_of(guest, image="somebody/else", ready_path="/healthz") as session:
        session.launch()
        assert session.wait_method == "poll" and session.answer is not None
    assert not early


def test_tcp_is_a_wait_method_of_its_own(driver: FakeDriver, engine: FakeEngine) -> None:
    engine.features = frozenset({Feature.NETWORK})

    class Any(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            return super().launch(replace(spec, image=Spec().image), endpoint, mark)

    foreign = Any("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    foreign.engine = engine
    with session_of(foreign, image="somebody/else", ready=Ready.TCP) as session:
        session.launch()
        assert session.wait_method == "tcp" and Phase.READY in session.timeline
        assert "status" not in session.facts()


class Elsewhere(FakeInstance):
    """An instance whose engine tells the process that listens for it."""

    pids: Mapping[int, Role] = {}

    def host_pids(self) -> Mapping[int, Role]:
        return self.pids


@pytest.mark.parametrize("whose", ["the instance's", "a stranger's"])
def test_a_strangers_answer_is_not_the_instances(
    driver: FakeDriver, engine: FakeEngine, whose: str, tmp_path: Path
) -> None:
    """In a container with the host's engine the ports are published elsewhere, and whoever listens here answers."""
    engine.features = frozenset({Feature.NETWORK, Feature.HOST_PIDS})
    servers: list[subprocess.Popen[bytes]] = []

    class Engine(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            assert endpoint is not None
            program = [sys.executable, "-m", "http.server", "-b", endpoint.host, str(endpoint.port)]
            servers.append(subprocess.Popen(program, cwd=tmp_path))
            mark(Phase.STARTED, source=Source.RETURN)
            made = Elsewhere(spec, endpoint, engine)
            made.pids = {os.getpid(): Role.SERVICE}
            if whose == "the instance's":
                made.pids[servers[-1].pid] = Role.PROXY
            return made

    foreign = Engine("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    foreign.engine = engine
    try:
        with session_of(foreign, image="somebody/else", ready_path="/") as session:
            if whose == "the instance's":
                session.launch()
            else:
                with pytest.raises(LaunchError, match=r"process [0-9]+\) answers at .* and not the instance"):
                    session.launch()
                assert Phase.READY not in session.timeline
    finally:
        for server in servers:
            server.kill()
            server.wait()


@pytest.mark.parametrize("killed", [True, False])
def test_that_a_stop_had_to_kill_is_a_fact_of_the_launch(
    driver: FakeDriver, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    class Stopped(FakeInstance):  # of its own: that a class has a method is remembered of it (`isinstance`)
        def was_killed(self) -> bool:
            return killed

    monkeypatch.setattr(driver, "made", Stopped, raising=False)
    with session_of(driver) as session:
        session.launch()
        session.stop(timeout_s=3)
        assert session.facts().get(KILLED_AFTER_S) == (3 if killed else None)


class _Ends(FakeDriver):
    """Its service is told to have ended, when `end` is called; it takes any image for its own."""

    def _require(self, spec: Spec) -> None: ...

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        self.end = lambda said="the service ended with exit status 3", details="": mark.failed(
            LaunchError(said, details=details)
        )
        return super().launch(spec, endpoint, mark)


@pytest.fixture
def ending(tmp_path: Path, engine: FakeEngine) -> _Ends:
    return _Ends("", Context(run_dir=tmp_path, cache_dir=tmp_path))


def test_a_service_that_ended_by_itself_is_not_alive(ending: _Ends) -> None:
    with session_of(ending) as session:
        session.launch()
        ending.end()
        with pytest.raises(LaunchError, match="the service ended with exit status 3"):
            session.require_alive()
        assert not session.ending


def test_the_first_reason_is_the_one_to_tell(ending: _Ends) -> None:
    """A guest's machine ends after its service, and because of it."""
    with session_of(ending) as session:
        session.launch()
        ending.end()
        ending.end("the guest ended by itself")
        with pytest.raises(LaunchError, match="the service ended with exit status 3"):
            session.require_alive()


def test_what_answers_once_and_ends_is_not_ready(ending: _Ends) -> None:
    """The engine's word of the end comes a moment after the answer."""
    begun = time.monotonic()
    with session_of(ending, image="another", ready_path="/healthz") as session:
        session.ask()
        threading.Timer(0.15, ending.end).start()
        with pytest.raises(LaunchError, match="the service ended with exit status 3"):
            session.await_ready()
        assert Phase.READY not in session.timeline and session.answer is None
    assert time.monotonic() - begun < 5


def test_what_is_seen_to_be_gone_is_waited_for_until_its_engine_says_how_it_ended(
    ending: _Ends, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.features = frozenset({Feature.NETWORK, Feature.HOST_PIDS})

    class Gone(FakeInstance):
        def host_pids(self) -> Mapping[int, Role]:
            return {}

    monkeypatch.setattr(ending, "made", Gone, raising=False)
    with session_of(ending, image="another", ready_path="/healthz") as session:
        session.ask()
        threading.Timer(1.0, ending.end).start()
        with pytest.raises(LaunchError, match="the service ended with exit status 3"):
            session.await_ready()


@pytest.mark.parametrize("filtered", [False, True])
def test_the_services_last_lines_stand_last_and_once(ending: _Ends, engine: FakeEngine, filtered: bool) -> None:
    """A guest's console holds its kernel's lines as well, which are left out of those."""
    engine.features = frozenset({Feature.MARKER})
    with session_of(ending) as session:
        session.ask()
        assert session.instance is not None
        written = session.instance.logs().decode()
        last = written.splitlines()[-1] if filtered else "\n".join(written.splitlines())
        ending.end(details=last)
        with pytest.raises(LaunchError) as raised:
            session.await_ready()
    assert raised.value.details.strip() == (f"{written}\n{last}" if filtered else written).strip()
