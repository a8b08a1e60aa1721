"""The model of a driver, for those who write one: every hard part is here, in the order in which one meets it.

Its engine (lab/testing/engine.py) stands for a container engine's SDK or command line. The contract's tests hold this
driver to all that they hold others to.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import BadInput, CleanupError, DriverError, LaunchError, Unsupported
from lab.features import ExecResult, Feature, Role, SleepState
from lab.launch.asleep import await_asleep, require_offered
from lab.launch.output import KEPT_BYTES, Output
from lab.service.build import build_service
from lab.spec import SERVICE_IMAGE, Endpoint, Restart, Spec
from lab.testing.engine import Engine, EngineError, Settings
from lab.testing.kernel import Confinement
from lab.timeline import Phase, Source

_ENGINES: dict[Path, Engine] = {}
_RESTART = {Restart.DEFAULT: "no", Restart.BEST: "always"}
_FEATURES = frozenset(
    {Feature.NETWORK, Feature.MARKER, Feature.EXEC, Feature.HOST_PIDS, Feature.ENGINE_PIDS, Feature.STORAGE}
    | {Feature.COLD, Feature.RESTART, Feature.PINNING, Feature.SLEEP}
)
_STATES = {
    SleepState.PAUSED: "",
    SleepState.STOPPED: "",
    SleepState.SAVED: "the model engine writes no container's memory to a file",
}


def model_engine_of(context: Context) -> Engine:
    """The engine that every ModelDriver with this `cache_dir` talks to, as all that use a daemon's socket do."""
    cache = context.cache_dir
    if cache not in _ENGINES:
        _ENGINES[cache] = Engine(cache.with_name(f"{cache.name}-engine"))  # an engine's store is none of the lab's
    return _ENGINES[cache]


@contextlib.contextmanager
def translated(doing: str, kind: type[DriverError] = DriverError) -> Iterator[None]:
    """The one place where the engine's errors become the lab's: one line that says what could not be done and why,
    and where there is one, the remedy."""
    try:
        yield
    except EngineError as error:
        message = " ".join(str(error).split())
        remedy = "free it: see `ss -ltnp`" if "already allocated" in message else ""
        raise kind(f"the model engine could not {doing}: {message}", details=str(error), resolution=remedy) from error


class ModelDriver:
    """Containers of the model engine. `made` is the class of its instances."""

    name = "model"
    made: ClassVar[type[ModelInstance]]

    def __init__(self, variant: str, context: Context) -> None:
        """Asks no engine yet. Raises BadInput for a variant that there is not."""
        if variant not in self.variants():
            raise BadInput(f"'model' has no variant '{variant}'", resolution="write 'model'")
        self.engine = model_engine_of(context)
        self._context = context

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """The one there is."""
        return {"": "containers of an engine for tests"}

    def info(self) -> Info:
        """What the engine is, asked now."""
        return Info(
            engine="model",
            version="1",
            isolation="namespaces (model)",
            features=_FEATURES,
            facts={
                "limits": dict.fromkeys(("memory", "swap", "cpus", "pids"), "set by the engine"),
                "restart": {str(restart): policy for restart, policy in _RESTART.items()},
            },
        )

    def prepare(self, spec: Spec) -> None:
        """Give the engine the image, with the run's labels, unless it has it. Raises Unsupported for any other image
        than the lab's own."""
        if not spec.builtin:
            raise Unsupported(
                f"the model engine has no image '{spec.image}', and no registry", resolution="leave out --image"
            )
        if self._image(spec) is None:
            program = build_service(self._context.cache_dir)  # elsewhere: lab.image.service_archive(...), loaded
            with translated("load the image"):
                self.engine.load(program, tag=_tag(spec), labels=image_labels(spec.labels))

    def settings(self, spec: Spec, endpoint: Endpoint, image: str) -> Settings:
        """What the engine is told: all of the spec, with its labels in this very call."""
        return Settings(
            image=image,
            labels=dict(spec.labels),
            command=spec.command or (),
            environment=spec.service_environment(host=endpoint.host, port=endpoint.port),
            publish=endpoint,
            held=Confinement(
                memory_bytes=spec.memory_bytes,
                swap_bytes=0,
                cpus=spec.cpus,
                pids=spec.pids,
                scratch_bytes=spec.scratch_bytes,
            ),
            cpuset=spec.cpuset,
            restart=_RESTART[spec.restart],
        )

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        """Create, follow the log, start. Raises LaunchError, after removing what it had made."""
        if endpoint is None:
            raise LaunchError("a container needs an endpoint on this host to answer at")
        self.prepare(spec)
        watch = Watch(mark)
        made: str | None = None
        try:
            with translated("create the container", LaunchError):
                made = self.engine.create(self.settings(spec, endpoint, self._image(spec) or ""))
            mark(Phase.CREATED, source=Source.RETURN)
            watch.follow(self.engine.container(made).log)  # before the start, so that no line is missed
            with translated("start the container", LaunchError):
                self.engine.start(made, watch.ended)  # one that is run again has not ended
            mark(Phase.STARTED, source=Source.RETURN)
        except BaseException:
            if made is not None:
                self.engine.remove(made)
            watch.close()
            raise
        return self.made(self.engine, made, labels=spec.labels, endpoint=endpoint, watch=watch)

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Every container of the lab's, in whatever state: a driver that launched nothing finds them too."""
        return [
            self.made(self.engine, one.id, labels=one.settings.labels, endpoint=one.settings.publish)
            for one in self.engine.containers()
            if bears(one.settings.labels, labels)
        ]

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """The images that runs loaded."""
        return [
            ModelImage(self.engine, image.id, image.labels)
            for image in self.engine.images()
            if bears(image.labels, labels)
        ]

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        """The image's one file."""
        self.prepare(spec)
        with translated("inspect the image"):
            return [self.engine.image(self._image(spec) or "").program]

    def others_running(self) -> Sequence[str]:
        """Containers without the lab's labels."""
        return [one.id for one in self.engine.containers() if "lab.run" not in one.settings.labels]

    def engine_pids(self) -> Mapping[int, str]:
        """None: this engine is within the lab's own process."""
        return {}

    def close(self) -> None:
        """Nothing is held open."""

    def _image(self, spec: Spec) -> str | None:
        return next((one.id for one in self.engine.images() if one.tag == _tag(spec)), None)


@dataclass(slots=True, eq=False)
class Watch:
    """What tells of a launch while it lives: the follower of its log, and the engine's word of its end."""

    mark: Mark
    expected: bool = False
    follower: subprocess.Popen[bytes] | None = None
    output: Output | None = None

    def follow(self, log: Path) -> None:
        """Hand on each line as it is written. By CLI this is `podman logs --follow` or its like."""
        self.follower = subprocess.Popen(
            ["tail", "-c", "+1", "-f", str(log)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self.follower.stdout is not None  # noqa: S101  it was asked for
        with self.follower.stdout as pipe:
            self.output = Output(os.dup(pipe.fileno()), self.mark, name="a container")

    def ended(self, code: int) -> None:
        """The engine tells that the service ended: a failure, unless it was asked to."""
        if not self.expected:
            self.mark.failed(LaunchError(f"the service ended with exit status {code}"))

    def close(self) -> None:
        """End the follower and its thread. Idempotent."""
        self.expected = True
        if self.follower is not None:
            self.follower.kill()
            self.follower.wait()
        if self.output is not None:
            self.output.close()


class ModelInstance:
    """One container: this driver's own launch (with its `watch`), or one found by its labels."""

    def __init__(
        self,
        engine: Engine,
        identity: str,
        *,
        labels: Mapping[str, str],
        endpoint: Endpoint | None,
        watch: Watch | None = None,
    ) -> None:
        self.id = identity
        self.labels = labels
        self.endpoint = endpoint
        self.engine = engine
        self.watch = watch

    def logs(self) -> bytes:
        """The end of what it wrote; empty when it is gone."""
        try:
            with self.engine.container(self.id).log.open("rb") as log:
                log.seek(max(0, log.seek(0, 2) - KEPT_BYTES))
                return log.read(KEPT_BYTES)
        except (EngineError, FileNotFoundError):
            return b""

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run `argv` in it, as it is: no shell, no words split. Raises DriverError."""
        with translated(f"run '{argv[0]}' in the container"):
            return ExecResult(*self.engine.exec(self.id, argv, timeout_s))

    def host_pids(self) -> Mapping[int, Role]:
        """The service, the engine's monitor of it, and what follows its log."""
        found: dict[int, Role] = {}
        with contextlib.suppress(EngineError):  # it is gone, and its processes with it
            container = self.engine.container(self.id)
            each = [(container.process, Role.SERVICE), (container.monitor, Role.SHIM)]
            each.append((self.watch.follower if self.watch else None, Role.HELPER))
            found = {process.pid: role for process, role in each if process is not None and process.poll() is None}
        return found

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """The image, and the container's own folder. Raises DriverError."""
        with translated("inspect the container"):
            container = self.engine.container(self.id)
            image = self.engine.image(container.settings.image)
        return {"image": [image.program.parent], "writable": [container.folder]}

    def sleep_states(self) -> Mapping[SleepState, str]:
        """What this kind of engine knows, with why not where it cannot be had."""
        return _STATES

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """Pause or stop it, and look at its processes: an engine's word alone is no proof."""
        require_offered(_STATES, state)
        service = [pid for pid, role in self.host_pids().items() if role is Role.SERVICE]
        with translated("put the container to sleep"):
            if state is SleepState.PAUSED:
                self.engine.pause(self.id)
            else:
                self._expect_end()
                self.engine.stop(self.id, timeout_s)
        await_asleep(lambda: service, timeout_s=timeout_s)

    def wake(self, state: SleepState) -> None:
        """Unpause or start it, and wait for no answer."""
        require_offered(_STATES, state)
        with translated("wake the container"):
            if state is SleepState.PAUSED:
                self.engine.unpause(self.id)
            else:
                self.engine.start(self.id, self.watch.ended if self.watch is not None else lambda _: None)
        if self.watch is not None:
            self.watch.expected = False  # from here on its end is none that was asked for

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:
        """A stopped one is kept in its own folder. Raises DriverError."""
        return self.storage()["writable"] if state is SleepState.STOPPED else ()

    def stop(self, *, timeout_s: float) -> None:
        """SIGTERM, and SIGKILL after `timeout_s`."""
        self._expect_end()
        with translated("stop the container"), _gone_is_fine():
            self.engine.stop(self.id, timeout_s)

    def delete(self) -> None:
        """Remove it, running or not, and look that it is gone."""
        self._expect_end()
        with translated("remove the container", CleanupError), _gone_is_fine():
            self.engine.remove(self.id)
        if self.id in {one.id for one in self.engine.containers()}:
            raise CleanupError(f"the model engine still lists container {self.id}")
        if self.watch is not None:
            self.watch.close()

    def _expect_end(self) -> None:
        if self.watch is not None:
            self.watch.expected = True


ModelDriver.made = ModelInstance


@dataclass(frozen=True, slots=True)
class ModelImage:
    """An image that a run loaded."""

    engine: Engine
    id: str
    labels: Mapping[str, str]
    kind: str = "image"

    def delete(self) -> None:
        """Remove it; nothing happens when it is gone."""
        with translated("remove the image", CleanupError), _gone_is_fine():
            self.engine.remove_image(self.id)


def image_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of what a run's targets share: the run's, without those of one target or launch."""
    return {key: value for key, value in labels.items() if key not in ("lab.target", "lab.launch")}


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except EngineError as error:
        if error.status != 404:
            raise


def _tag(spec: Spec) -> str:
    return f"{SERVICE_IMAGE}:{spec.labels.get('lab.run', 'none')}"
