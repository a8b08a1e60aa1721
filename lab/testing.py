"""A driver and a clock for tests: of the lab's own pipeline, and a model for those who write a driver.

FakeDriver keeps the whole contract without any engine: an instance is a thread that answers HTTP on loopback, and its
phases take exactly the seconds that it was told, on a FakeClock that only it advances.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lab.driver import Context, Feature, Info, Instance, Leftover, Mark, bears
from lab.errors import BadInput, DriverError, LaunchError, Unsupported
from lab.host import boot_id, time_namespace
from lab.spec import Endpoint, Spec
from lab.timeline import Phase, Source


class FakeClock:
    """A clock that stands still until advanced; both of its readings are in ns."""

    def __init__(self, now_ns: int = 1_000_000_000) -> None:
        self._now_ns = now_ns
        self._slept_ns = 0
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        return self._now_ns

    def boottime_ns(self) -> int:
        return self._now_ns + self._slept_ns

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        with self._lock:
            self._now_ns += round(seconds * 1e9)

    def sleep_host(self, seconds: float) -> None:
        """Let the host be suspended for `seconds`: only CLOCK_BOOTTIME counts them."""
        with self._lock:
            self._slept_ns += round(seconds * 1e9)


@dataclass(slots=True, kw_only=True)
class FakeEngine:
    """The state that a real engine's daemon would hold, and how long each step of a launch takes, in seconds."""

    clock: FakeClock = field(default_factory=FakeClock)
    created_s: float = 0.010
    started_s: float = 0.020
    main_s: float = 0.030
    listening_s: float = 0.001
    ready_s: float = 0.0005
    fail_launches: int = 0
    features: frozenset[Feature] = frozenset({Feature.NETWORK, Feature.MARKER})
    instances: dict[str, FakeInstance] = field(default_factory=dict)
    images: dict[str, FakeImage] = field(default_factory=dict)


_ENGINES: dict[Path, FakeEngine] = {}


def engine_of(context: Context) -> FakeEngine:
    """The engine that every FakeDriver with this `cache_dir` talks to."""
    return _ENGINES.setdefault(context.cache_dir, FakeEngine())


class FakeDriver:
    """A driver whose engine is in memory."""

    def __init__(self, variant: str, context: Context) -> None:
        if variant not in self.variants():
            raise BadInput(f"fake has no variant '{variant}'")
        self.name = "fake"
        self.engine = engine_of(context)

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        return {"": "an engine in memory, for tests"}

    def info(self) -> Info:
        return Info(engine="fake", version="1", isolation="none", features=self.engine.features)

    def prepare(self, spec: Spec) -> None:
        if not spec.builtin:
            raise Unsupported(f"the fake engine knows no image '{spec.image}'")
        if spec.labels:
            image = FakeImage(spec.image, spec.labels, self.engine)
            self.engine.images[image.id] = image

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        engine = self.engine
        if engine.fail_launches:
            engine.fail_launches -= 1
            raise LaunchError("the fake engine was told to fail", details="said so")
        engine.clock.advance(engine.created_s)
        mark(Phase.CREATED, source=Source.RETURN)
        engine.clock.advance(engine.started_s)
        mark(Phase.STARTED, source=Source.RETURN)
        engine.clock.advance(engine.main_s)
        instance = FakeInstance(spec, endpoint, engine)
        engine.instances[instance.id] = instance
        instance.serve(mark)
        return instance

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        return [instance for instance in self.engine.instances.values() if bears(instance.labels, labels)]

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        return [image for image in self.engine.images.values() if bears(image.labels, labels)]

    def close(self) -> None:
        """Nothing is held open."""


class FakeInstance:
    """A service in a thread of this process."""

    def __init__(self, spec: Spec, endpoint: Endpoint | None, engine: FakeEngine) -> None:
        self.id = spec.nonce
        self.labels = spec.labels
        self.endpoint = endpoint
        self._engine = engine
        self._nonce = spec.nonce
        self._lines: list[bytes] = []
        self._server: ThreadingHTTPServer | None = None

    def serve(self, mark: Mark) -> None:
        """Be the service: say `main`, listen, say `listening`, answer."""
        clock = self._engine.clock
        main_ns = clock.now_ns()
        self._say(mark, Phase.MAIN, main_ns)
        clock.advance(self._engine.listening_s)
        listening_ns = clock.now_ns()
        if self.endpoint is not None:
            try:
                self._server = _Server(self.endpoint, self._nonce, self._engine, main_ns, listening_ns)
            except OSError as error:
                raise DriverError(f"cannot listen at {self.endpoint}: {error.strerror}") from error
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self._say(mark, Phase.LISTENING, listening_ns)

    def logs(self) -> bytes:
        return b"".join(self._lines)

    def stop(self, *, timeout_s: float) -> None:  # noqa: ARG002  a thread ends when told
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def delete(self) -> None:
        self.stop(timeout_s=0)
        self._engine.instances.pop(self.id, None)

    def _say(self, mark: Mark, phase: Phase, ns: int) -> None:
        line = f"lab {self._nonce} {phase} {ns}\n".encode()
        self._lines.append(line)
        if Feature.MARKER in self._engine.features:
            mark.line(line, source=Source.LOG)


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

    def __init__(self, endpoint: Endpoint, nonce: str, engine: FakeEngine, main_ns: int, listening_ns: int) -> None:
        self.told = {"nonce": nonce, "main_ns": main_ns, "listening_ns": listening_ns}
        self.engine = engine
        super().__init__((endpoint.host, endpoint.port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        engine, told = self.server.engine, dict[str, Any](self.server.told)
        engine.clock.advance(engine.ready_s)
        told |= {"now_ns": engine.clock.now_ns(), "boot_id": boot_id(), "time_namespace": time_namespace()}
        good = self.path == "/healthz" or self.headers.get("X-Lab-Nonce") == told["nonce"]
        body = json.dumps(told).encode() if good else b"{}"
        self.send_response(200 if good else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
