"""A driver without any engine, for tests of the lab's own pipeline: an instance is a thread that answers HTTP on
loopback, and its phases take exactly the seconds that it was told, on a FakeClock that only it advances.

It keeps what the contract asks of it; who writes a driver reads `lab/testing/model.py` instead, where the hard parts
are.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import BadInput, LaunchError, Unsupported
from lab.features import CallPhase, Feature, Role
from lab.host.facts import boot_id, time_namespace
from lab.image.process import TMP
from lab.launch.ticks import TICK
from lab.spec import Endpoint, Restart, Spec
from lab.testing.clocks import FakeClock
from lab.timeline import Phase, Source


@dataclass(slots=True, kw_only=True)
class FakeEngine:
    """The state that a real engine's daemon would hold, and how long each step of a launch takes, in seconds."""

    clock: FakeClock = field(default_factory=FakeClock)
    created_s: float = 0.010
    started_s: float = 0.020
    main_s: float = 0.030
    listening_s: float = 0.001
    ready_s: float = 0.0005
    replica_s: float = 0.020  # until it has made or replaced one more
    restart_s: float = 0.050
    stopped_s: float = 0.0
    tick_s: float = 0.0  # with Feature.TICKS: it starts and stops an instance when its own clock ticks
    keep_alive_s: float | None = None  # with Feature.FUNCTION: how long a worker stays that nobody calls
    calls_per_worker: int | None = None  # likewise: how many calls of one are to be compared
    fail_launches: int = 0
    features: frozenset[Feature] = frozenset({Feature.NETWORK, Feature.MARKER})
    instances: dict[str, FakeInstance] = field(default_factory=dict)
    images: dict[str, FakeImage] = field(default_factory=dict)

    def await_tick(self) -> None:
        """Let its clock come to the next tick, where it ticks."""
        if Feature.TICKS in self.features:
            tick_ns = round(self.tick_s * 1e9)
            self.clock.advance((-self.clock.now_ns() % tick_ns) / 1e9)


_ENGINES: dict[Path, FakeEngine] = {}


def engine_of(context: Context) -> FakeEngine:
    """The engine that every FakeDriver with this `cache_dir` talks to."""
    return _ENGINES.setdefault(context.cache_dir, FakeEngine())


class FakeDriver:
    """A driver whose engine is in memory; `made` is the class of its instances."""

    made: ClassVar[type[FakeInstance]]

    def __init__(self, variant: str, context: Context) -> None:
        if variant not in self.variants():
            raise BadInput(f"fake has no variant '{variant}'")
        self.name = "fake"
        self.engine = engine_of(context)

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        return {"": "an engine in memory, for tests"}

    def info(self) -> Info:
        return Info(
            engine="fake",
            version="1",
            isolation="none",
            features=self.engine.features,
            facts={
                "limits": dict.fromkeys(("memory", "swap", "cpus", "pids"), "not set: a thread has none"),
                "surroundings": {"seccomp": "no filter", TMP: "not limited: a thread shares the host's"},
                "restart": {"default": "no", "best": "always"},
                TICK: self.engine.tick_s,
                "keep_alive_s": self.engine.keep_alive_s,
                "calls_per_worker": self.engine.calls_per_worker,
            },
            qualifiers={"clock": f"{self.engine.tick_s:g} s tick"} if Feature.TICKS in self.engine.features else {},
        )

    def prepare(self, spec: Spec) -> None:
        self._require(spec)
        if spec.labels:
            image = FakeImage(spec.image, spec.labels, self.engine)
            self.engine.images[image.id] = image

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        engine = self.engine
        self._require(spec)
        if engine.fail_launches:
            engine.fail_launches -= 1
            raise LaunchError("the fake engine was told to fail", details="said so")
        engine.clock.advance(engine.created_s)
        instance = self.made(spec, endpoint, engine)
        engine.instances[instance.id] = instance
        mark(Phase.CREATED, source=Source.RETURN)
        engine.clock.advance(engine.started_s)
        engine.await_tick()
        mark(Phase.STARTED, source=Source.RETURN)
        engine.clock.advance(engine.main_s)
        try:
            instance.serve(mark)
        except OSError as error:
            instance.delete()
            raise LaunchError(f"cannot listen at {endpoint}: {error.strerror}") from error
        return instance

    def _require(self, spec: Spec) -> None:
        if not spec.builtin:
            raise Unsupported(f"the fake engine knows no image '{spec.image}'")
        if spec.command is not None:
            raise Unsupported("the fake engine's service is a thread of this process, which runs no command")

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        return [instance for instance in self.engine.instances.values() if bears(instance.labels, labels)]

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        return [image for image in self.engine.images.values() if bears(image.labels, labels)]

    def close(self) -> None:
        """Nothing is held open."""


class FakeInstance:
    """A service in a thread of this process, or several behind one address; with Feature.HOST_PIDS each is as alive as
    a process that sleeps."""

    def __init__(self, spec: Spec, endpoint: Endpoint | None, engine: FakeEngine) -> None:
        self.id = spec.nonce
        self.labels = spec.labels
        self.endpoint = endpoint
        self._engine = engine
        self._spec = spec
        self._lines: list[bytes] = []
        self._server: _Server | None = None
        self._replicas: list[_Replica] = []
        self._changing = threading.Lock()
        self._calling = threading.Lock()
        self._called_ns = 0
        self._seen: list[Callable[[str, CallPhase, str], None]] = []
        self._stopped = False

    def serve(self, mark: Mark) -> None:
        """Be the service: say `main`, listen, say `listening`, answer. Raises OSError."""
        replica = self._new_replica(mark)
        if self.endpoint is not None:
            self._server = _Server(self.endpoint, self._engine, self._replicas, self.before_request)
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self._say(mark, Phase.LISTENING, int(replica.told["listening_ns"]))

    def logs(self) -> bytes:
        return b"".join(self._lines)

    def stop(self, *, timeout_s: float) -> None:  # noqa: ARG002  a thread ends when told
        if not self._stopped:
            self._engine.clock.advance(self._engine.stopped_s)
            self._engine.await_tick()
        self._stopped = True
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        with self._changing:
            self._keep(0)

    def delete(self) -> None:
        self.stop(timeout_s=0)
        self._engine.instances.pop(self.id, None)

    def host_pids(self) -> Mapping[int, Role]:
        return {one.process.pid: Role.SERVICE for one in self._replicas if one.process is not None}

    def endpoints(self) -> Sequence[Endpoint]:
        return [self.endpoint] if self.endpoint is not None else []

    def scale(self, replicas: int) -> None:
        self._change(lambda: self._scale(replicas))

    def update(self, spec: Spec) -> None:
        self._spec = spec
        self._change(self._replace_each)

    def update_policy(self) -> Mapping[str, str]:
        return {"order": "start-first", "readiness": "none", "grace": "0s", "pre_stop": "none"}

    # With Feature.FUNCTION its replicas are workers: a request starts one where there is none.

    def workers(self) -> Sequence[str]:
        return [replica.name for replica in self._replicas]

    def force_cold(self, *, timeout_s: float) -> None:  # noqa: ARG002  a thread's answers end when told
        with self._changing:
            self._keep(0)

    def initialize(self, *, timeout_s: float) -> None:  # noqa: ARG002  only its own clock passes
        self.start_worker()

    @contextlib.contextmanager
    def follow(self, seen: Callable[[str, CallPhase, str], None]) -> Iterator[None]:
        self._seen.append(seen)
        try:
            yield
        finally:
            self._seen.remove(seen)

    def new_worker_name(self) -> str:
        return secrets.token_hex(8)

    def start_worker(self) -> None:
        """As for a request: what of it takes how long is what a launch takes."""
        name = self.new_worker_name()
        self._engine.clock.advance(self._engine.created_s)
        self.show(name, CallPhase.CREATED)
        self._engine.clock.advance(self._engine.started_s)
        self.show(name, CallPhase.STARTED)
        self._engine.clock.advance(self._engine.main_s)
        self._new_replica(name=name)

    def show(self, worker: str, phase: CallPhase) -> None:
        for seen in list(self._seen):
            seen(worker, phase, Source.EVENT)

    def before_request(self) -> None:
        """Called before each request is answered."""
        if Feature.FUNCTION not in self._engine.features or self._stopped:
            return
        with self._calling:
            idle_s = (self._engine.clock.now_ns() - self._called_ns) / 1e9
            if self._called_ns and self._engine.keep_alive_s is not None and idle_s > self._engine.keep_alive_s:
                self._keep(0)
            if not self._replicas:
                self.start_worker()
            self._called_ns = self._engine.clock.now_ns()

    def _change(self, change: Callable[[], None]) -> None:
        def run() -> None:
            with self._changing:
                change()

        threading.Thread(target=run, daemon=True).start()

    def _scale(self, replicas: int) -> None:
        while len(self._replicas) < replicas and not self._stopped:
            self._engine.clock.advance(self._engine.replica_s)
            self._new_replica()
        self._keep(replicas)

    def _replace_each(self) -> None:
        for _ in range(len(self._replicas)):
            self._engine.clock.advance(self._engine.replica_s)
            if self._stopped:
                return
            self._new_replica()
            self._replicas.pop(0).end()

    def _keep(self, replicas: int) -> None:
        while len(self._replicas) > replicas:
            self._replicas.pop().end()

    def _new_replica(self, mark: Mark | None = None, name: str | None = None) -> _Replica:
        main_ns = self._engine.clock.now_ns()
        if mark is not None:
            self._say(mark, Phase.MAIN, main_ns)
        self._engine.clock.advance(self._engine.listening_s)
        version = self._spec.environment.get("LAB_VERSION", "")
        told = {"nonce": self.id, "main_ns": main_ns, "pid": 1, "version": version, "token": secrets.token_hex(16)}
        told |= {"listening_ns": self._engine.clock.now_ns()}
        replica = _Replica(told, name=self.new_worker_name() if name is None else name)
        if Feature.HOST_PIDS in self._engine.features:
            replica.process = subprocess.Popen(["sleep", "600"], start_new_session=True)
            threading.Thread(target=self._watch, args=(replica, replica.process), daemon=True).start()
        self._replicas.append(replica)
        return replica

    def _watch(self, replica: _Replica, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        with self._changing:
            if self._stopped or replica not in self._replicas:
                return
            self._replicas.remove(replica)
            if self._spec.restart is Restart.BEST and Feature.RESTART in self._engine.features:
                self._engine.clock.advance(self._engine.restart_s)
                self._new_replica()

    def _say(self, mark: Mark, phase: Phase, ns: int) -> None:
        line = f"lab {self.id} {phase} {ns}\n".encode()
        self._lines.append(line)
        if Feature.MARKER in self._engine.features:
            mark.line(line.rstrip(), source=Source.LOG)


FakeDriver.made = FakeInstance


@dataclass(slots=True, eq=False)
class _Replica:
    told: dict[str, Any]
    name: str = ""
    process: subprocess.Popen[bytes] | None = None
    served: int = 0

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()


@dataclass(frozen=True, slots=True)
class FakeImage:
    """An image copy in the fake engine."""

    id: str
    labels: Mapping[str, str]
    engine: FakeEngine
    kind: str = "image"

    def delete(self) -> None:
        self.engine.images.pop(self.id, None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # with socketserver's 5, a busy machine drops connections that no replica refused

    def __init__(
        self, endpoint: Endpoint, engine: FakeEngine, replicas: list[_Replica], before_request: Callable[[], None]
    ) -> None:
        self.engine = engine
        self.before_request = before_request
        self._replicas = replicas
        self._turn = itertools.count()
        super().__init__((endpoint.host, endpoint.port), _Handler)

    def next_replica(self) -> _Replica | None:
        replicas = list(self._replicas)
        return replicas[next(self._turn) % len(replicas)] if replicas else None


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.before_request()
        engine, replica = self.server.engine, self.server.next_replica()
        if replica is None:
            self.send_error(503)
            return
        replica.served += 1
        told = replica.told | {"served": replica.served}
        engine.clock.advance(engine.ready_s)
        told |= {"now_ns": engine.clock.now_ns(), "boot_id": boot_id(), "time_namespace": time_namespace()}
        good = self.path == "/healthz" or self.headers.get("X-Lab-Nonce") == told["nonce"]
        body = json.dumps(told).encode() if good else b"{}"
        self.send_response(200 if good else 403)
        self.send_header("Content-Length", str(len(body)))
        if told["version"]:
            self.send_header("X-Lab-Version", told["version"])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
