"""A function's workers: the containers that the endpoint starts for it on this host's Docker engine. Each bears the
image's labels, which are the run's, and in its environment those of its function."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drivers.dockerapi.client import label_filter
from drivers.dockerapi.container import Container
from drivers.dockerapi.errors import is_engine_error, translated
from drivers.dockerapi.streams import Log
from lab.driver import Mark, bears
from lab.errors import DriverError
from lab.features import CallPhase, Role
from lab.host import procs
from lab.spec import Endpoint
from lab.timeline import Phase, Source

if TYPE_CHECKING:
    from docker import APIClient

LABELS = "LAB_FUNCTION_LABELS"
"""The name in a function's environment under which its labels are."""
_BRIDGE = " polled "
_PHASES = {"create": CallPhase.CREATED, "start": CallPhase.STARTED}
_EVENT, _LOG = "event", "log"
_JOIN_S = 5.0

Seen = Callable[[str, CallPhase, str], None]


@dataclass(frozen=True, slots=True)
class Worker:
    """A container of a function's, running or not; `port` is where its RIE is published on loopback."""

    id: str
    labels: Mapping[str, str]
    running: bool
    port: int


class Workers:
    """The workers on one Docker engine."""

    def __init__(self, api: Callable[[], APIClient]) -> None:
        self._api = api
        self._known: dict[str, Mapping[str, str]] = {}  # by container: what it was made with does not change

    def find(self, labels: Mapping[str, str]) -> list[Worker]:
        """Those whose function bears `labels`. Raises DriverError."""
        # The image has the run's labels alone.
        wanted = {key: value for key, value in labels.items() if key not in ("lab.target", "lab.launch")}
        with translated("list containers"):
            listed = self._api().containers(all=True, filters={"label": label_filter(wanted)})
        found = []
        for told in listed:
            own = self.labels_of(told["Id"])
            if own and bears(own, labels):
                ports = [one.get("PublicPort", 0) for one in told.get("Ports") or () if one.get("PrivatePort") == 8080]
                found.append(Worker(told["Id"], own, told["State"] == "running", max(ports, default=0)))
        return found

    def labels_of(self, container: str) -> Mapping[str, str]:
        """The labels of the function whose worker it is; empty where it is none, or gone. Raises DriverError."""
        import docker.errors

        if container not in self._known:
            with translated("inspect the container"):
                try:
                    told = self._api().inspect_container(container)
                except docker.errors.NotFound:
                    return {}
            environment = dict(entry.partition("=")[::2] for entry in told["Config"].get("Env") or ())
            self._known[container] = _parse(environment.get(LABELS, ""))
        return self._known[container]

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        """The same, as containers with their processes."""
        return [
            Container(self._api(), one.id, labels=one.labels, endpoint=_published(one), local=True)
            for one in self.find(labels)
        ]

    def processes(self, labels: Mapping[str, str]) -> dict[int, Role]:
        """Every process of this host that exists because of them. Raises DriverError."""
        found: dict[int, Role] = {}
        for container in self.containers(labels):
            found |= {pid: _role(pid, role) for pid, role in container.host_pids().items()}
        return found

    def forget(self, labels: Mapping[str, str]) -> None:
        """Keep nothing of them in mind."""
        for container, own in list(self._known.items()):
            if bears(own, labels):
                del self._known[container]


class Events:
    """The Docker engine's events of workers, read by one thread, which tells of each at the instant it arrives."""

    def __init__(self, api: Callable[[], APIClient], workers: Workers) -> None:
        self._api = api
        self._workers = workers
        self._listeners: dict[str, list[Seen]] = {}
        self._stream: Any = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._lock = threading.Lock()

    def connect(self, run: str) -> None:
        """Follow those of `run`, unless that is so; once this returns no event is missed. Raises DriverError."""
        if self._thread is not None and self._thread.is_alive():
            return
        with translated("follow its events"):
            # The engine answers a moment before it subscribes this client: see `drivers.dockerapi.streams.Events`.
            since = int(time.time())
            filters = {"type": "container", "event": list(_PHASES), "label": f"lab.run={run}"}
            self._stream = self._api().events(since=since, filters=filters, decode=True)
        self._thread = threading.Thread(target=self._read, args=(self._stream,), name="worker events", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def watching(self, labels: Mapping[str, str], seen: Seen) -> Iterator[None]:
        """Tell `seen` of the workers of the launch with `labels`. Raises DriverError."""
        self.watch(labels, seen)
        try:
            yield
        finally:
            self.forget(labels, seen)

    def watch(self, labels: Mapping[str, str], seen: Seen) -> None:
        """Tell `seen` of the workers of the launch with `labels` from here on. Raises DriverError."""
        with self._lock:
            self._listeners.setdefault(labels.get("lab.launch", ""), []).append(seen)
        self.connect(labels.get("lab.run", ""))

    def forget(self, labels: Mapping[str, str], seen: Seen | None = None) -> None:
        """Tell `seen`, or nobody, of it no more."""
        launch = labels.get("lab.launch", "")
        with self._lock:
            left = [one for one in self._listeners.pop(launch, []) if seen is not None and one is not seen]
            if left:
                self._listeners[launch] = left

    def close(self) -> None:
        """Stop reading. Idempotent."""
        self._closing = True
        if self._stream is not None:
            with contextlib.suppress(OSError):  # the engine has closed it
                self._stream.close()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _read(self, stream: Any) -> None:
        try:
            for event in stream:
                container = event["Actor"]["ID"]
                if not self._listeners:
                    continue
                try:
                    launch = self._workers.labels_of(container).get("lab.launch", "")
                except DriverError:  # one that is gone by now
                    continue
                with self._lock:
                    listeners = list(self._listeners.get(launch, ()))
                for seen in listeners:
                    seen(container, _PHASES[event["Action"]], _EVENT)
        except Exception as error:
            if not self._closing and not is_engine_error(error):
                raise


class Polls:
    """Follows the logs of workers as they come, and tells when the bridge of each asks for its first call."""

    def __init__(self, api: Callable[[], APIClient], seen: Seen) -> None:
        self._api = api
        self._seen = seen
        self._logs: dict[str, Log] = {}

    def started(self, container: str) -> None:
        """Follow this one too, which has just started."""
        with contextlib.suppress(DriverError), translated("follow the container's log"):
            if container not in self._logs:
                self._logs[container] = Log(self._api(), container, _Lines(container, self._seen))

    def close(self) -> None:
        """Stop following."""
        for log in self._logs.values():
            log.close()


class _Lines:
    """Takes a worker's lines, as a `Mark` does, and tells of the one that the bridge writes."""

    def __init__(self, container: str, seen: Seen) -> None:
        self._container = container
        self._tell = seen
        self._told = False

    def __call__(self, phase: Phase, *, source: Source) -> None:
        """A log shows no phase but by its lines."""

    def moment(self) -> Mark:
        return self

    def failed(self, error: DriverError) -> None:
        """A log tells of no end."""

    def line(self, text: bytes, *, source: Source) -> None:  # noqa: ARG002
        if not self._told and text.startswith(b"lab ") and _BRIDGE.encode() in text:
            self._told = True
            self._tell(self._container, CallPhase.POLLED, _LOG)


def _published(worker: Worker) -> Endpoint | None:
    return Endpoint("127.0.0.1", worker.port) if worker.port else None


def _role(pid: int, role: Role) -> Role:
    """Of what runs in a worker, RIE and the bridge carry calls to the service."""
    argv = procs.arguments(pid) if role is Role.SERVICE else []
    carries = bool(argv) and (argv[0].endswith("/aws-lambda-rie") or argv[1:2] == ["bridge"])
    return Role.HELPER if carries else role


def _parse(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return {str(key): str(one) for key, one in value.items()} if isinstance(value, dict) else {}
