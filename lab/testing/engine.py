"""The model driver's engine: it keeps images and containers, whose processes are this host's, and raises errors of its
own. What it would need rights for (cgroups, namespaces) it shows as files (lab/testing/kernel.py)."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab.spec import Endpoint
from lab.testing.kernel import Confinement, ShownKernel

_RESTART_S = 0.05
_END_TIMEOUT_S = 10.0


class EngineError(Exception):
    """What the engine refuses, with the status that an API over HTTP would give it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a container is made with, in the words of the engine."""

    image: str
    labels: Mapping[str, str]
    command: Sequence[str]
    environment: Mapping[str, str]
    publish: Endpoint
    held: Confinement
    cpuset: Sequence[int] = ()
    restart: str = "no"


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the engine's store."""

    id: str
    tag: str
    labels: Mapping[str, str]
    program: Path


@dataclass(slots=True, eq=False)
class Container:
    """A container, running or not."""

    id: str
    settings: Settings
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    monitor: subprocess.Popen[bytes] | None = None
    ending: bool = False
    on_end: Callable[[int], None] = lambda _: None
    follows: threading.Thread | None = None
    changing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def log(self) -> Path:
        """What it wrote, whole."""
        return self.folder / "log"


class Engine:
    """One engine, with its store in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.kernel = ShownKernel(folder / "kernel")
        self._folder = folder
        self._images: dict[str, Image] = {}
        self._containers: dict[str, Container] = {}

    def load(self, program: Path, *, tag: str, labels: Mapping[str, str]) -> str:
        """Keep an image whose one file is `program`; returns its id."""
        identity = secrets.token_hex(8)
        store = self._folder / "images" / identity
        store.mkdir(parents=True)
        shutil.copy2(program, store / "service")
        self._images[identity] = Image(identity, tag, dict(labels), store / "service")
        return identity

    def images(self) -> list[Image]:
        """Every image."""
        return list(self._images.values())

    def remove_image(self, identity: str) -> None:
        """Forget it. Raises EngineError."""
        if identity not in self._images:
            raise EngineError(404, f"no such image: {identity}")
        shutil.rmtree(self._images.pop(identity).program.parent)

    def image(self, identity: str) -> Image:
        """One image. Raises EngineError."""
        if identity not in self._images:
            raise EngineError(404, f"no such image: {identity}")
        return self._images[identity]

    def create(self, settings: Settings) -> str:
        """Make a container; returns its id. Raises EngineError."""
        self.image(settings.image)
        identity = secrets.token_hex(8)
        folder = self._folder / "containers" / identity
        folder.mkdir(parents=True)
        container = Container(identity, settings, folder)
        container.log.touch()
        self._containers[identity] = container
        return identity

    def start(self, identity: str, on_end: Callable[[int], None]) -> None:
        """Run it; `on_end` is told its exit code when it has ended and is not run again. Raises EngineError."""
        container = self.container(identity)
        self._require_free(container.settings.publish)
        container.ending = False  # one that was stopped is run again
        container.on_end = on_end
        container.monitor = subprocess.Popen(
            [f"model-monitor {identity}", "86400"], executable=shutil.which("sleep"), start_new_session=True
        )
        self._run(container)
        container.follows = threading.Thread(
            target=self._follow, args=(container,), name=f"engine, container {identity}", daemon=True
        )
        container.follows.start()

    def pause(self, identity: str) -> None:
        """Hold its process still. Raises EngineError."""
        self._running(identity).send_signal(signal.SIGSTOP)

    def unpause(self, identity: str) -> None:
        """Let its process go on. Raises EngineError."""
        self._running(identity).send_signal(signal.SIGCONT)

    def container(self, identity: str) -> Container:
        """One container. Raises EngineError."""
        if identity not in self._containers:
            raise EngineError(404, f"no such container: {identity}")
        return self._containers[identity]

    def containers(self) -> list[Container]:
        """Every container, running or not."""
        return list(self._containers.values())

    def exec(self, identity: str, argv: Sequence[str], timeout_s: float) -> tuple[int, bytes, bytes]:
        """Run `argv` in it: exit code, output, errors. Raises EngineError."""
        container = self.container(identity)
        if argv[0] != "/service":
            raise EngineError(400, f"{argv[0]}: no such file")
        program = self.image(container.settings.image).program
        try:
            ended = subprocess.run(
                [str(program), *argv[1:]],
                env=dict(container.settings.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(408, f"{argv[0]} still ran after {timeout_s:g} s, and was killed") from error
        return ended.returncode, ended.stdout, ended.stderr

    def stop(self, identity: str, timeout_s: float) -> None:
        """SIGTERM, and SIGKILL after `timeout_s`; returns when it has ended. Raises EngineError."""
        container = self.container(identity)
        with container.changing:
            container.ending = True
            process = container.process
        if process is not None and process.poll() is None:
            process.terminate()
            process.send_signal(signal.SIGCONT)  # a paused one would not hear of it
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(_END_TIMEOUT_S)
        if container.follows is not None and container.follows is not threading.current_thread():
            container.follows.join(_END_TIMEOUT_S)
        if container.monitor is not None:
            container.monitor.kill()
            container.monitor.wait(_END_TIMEOUT_S)

    def remove(self, identity: str) -> None:
        """Kill what runs, and forget it. Raises EngineError."""
        self.stop(identity, 0)
        container = self._containers.pop(identity)
        shutil.rmtree(container.folder)

    def shut_down(self) -> None:
        """Remove every container, whatever its user says."""
        for container in self.containers():
            Engine.remove(self, container.id)

    def _running(self, identity: str) -> subprocess.Popen[bytes]:
        process = self.container(identity).process
        if process is None or process.poll() is not None:
            raise EngineError(409, f"container {identity} is not running")
        return process

    def _run(self, container: Container) -> None:
        settings = container.settings
        with container.log.open("ab") as log:
            process = subprocess.Popen(
                [str(self.image(settings.image).program), *settings.command],
                env=dict(settings.environment),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if settings.cpuset:
            os.sched_setaffinity(process.pid, settings.cpuset)
        image = self.image(settings.image).program.parent
        self.kernel.show(container.id, process.pid, replace(settings.held, image=image))
        container.process = process

    def _follow(self, container: Container) -> None:
        """Wait for its end, and run it again where its policy says so."""
        while container.process is not None:
            code = container.process.wait()
            self.kernel.forget(container.id, container.process.pid)
            if container.settings.restart == "always" and not container.ending:
                time.sleep(_RESTART_S)
                with container.changing:
                    if not container.ending:
                        self._run(container)
                        continue
            container.on_end(code if code >= 0 else 128 - code)
            return

    def _require_free(self, endpoint: Endpoint) -> None:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((endpoint.host, endpoint.port))
            except OSError as error:
                raise EngineError(500, f"bind {endpoint}: port is already allocated") from error
