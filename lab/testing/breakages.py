"""Drivers that keep all of the contract but one promise each: who holds drivers to it tests his tests by them.

Each is `ModelDriver` (or, where replicas are concerned, `FakeDriver`) with one thing changed; `BREAKAGES` has them by
name. None does anything to this host that the unbroken one does not, but for what it leaves behind: its port on every
address, a process, a thread, a descriptor or a file, which `mend` removes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lab.driver import Info, bears
from lab.errors import DriverError, LaunchError
from lab.features import ExecResult, Feature, Role
from lab.spec import Endpoint, Spec
from lab.testing.engine import EngineError, Settings
from lab.testing.fake import FakeDriver, FakeInstance
from lab.testing.model import ModelDriver, ModelImage, ModelInstance, image_labels
from lab.timeline import Phase, Source

BREAKAGES: dict[str, type[Any]] = {}
"""By the name of what is broken: the driver's class."""

_left: list[Callable[[], object]] = []
_extra: dict[object, subprocess.Popen[bytes]] = {}


def _nothing(*_: Any, **__: Any) -> None:
    """What a broken method does instead."""


def mend() -> None:
    """Remove what broken drivers left in this process."""
    while _left:
        with contextlib.suppress(OSError):
            _left.pop()()


def _broken(name: str) -> Callable[[type[Any]], type[Any]]:
    def keep(driver: type[Any]) -> type[Any]:
        BREAKAGES[name] = driver
        return driver

    return keep


def _settings(name: str, change: Callable[[Settings], Settings]) -> None:
    """The engine is told something else than the spec says."""

    def settings(self: ModelDriver, spec: Spec, endpoint: Endpoint, image: str) -> Settings:
        return change(ModelDriver.settings(self, spec, endpoint, image))

    BREAKAGES[name] = type("Broken", (ModelDriver,), {"settings": settings})


def _held(name: str, **changes: Any) -> None:
    _settings(name, lambda told: replace(told, held=replace(told.held, **changes)))


def _info(name: str, change: Callable[[Info], Info]) -> None:
    """It says something else of itself."""
    BREAKAGES[name] = type("Broken", (ModelDriver,), {"info": lambda self: change(ModelDriver.info(self))})


def _instance(name: str, of: type[Any] = ModelInstance, **methods: Callable[..., Any]) -> None:
    """An instance does something else."""
    driver = ModelDriver if of is ModelInstance else FakeDriver
    BREAKAGES[name] = type("Broken", (driver,), {"made": type("BrokenInstance", (of,), methods)})


def _driver(what: str, **methods: Any) -> None:
    """The driver does something else."""
    BREAKAGES[what] = type("Broken", (ModelDriver,), methods)


# Limits
_held("memory is not limited", memory_bytes=None)
_held("memory is limited to a size of the driver's own", memory_bytes=128 * 1024 * 1024)
_held("swap is allowed", swap_bytes=None)
_held("CPUs are not limited", cpus=None)
_held("processes are not limited", pids=None)
_held("there is no scratch", own_scratch=False)
_held("scratch is without bound", scratch_bytes=None)
_settings("the CPUs to be held to are ignored", lambda told: replace(told, cpuset=()))

# Isolation
_held("it is privileged", every_capability=True)
_held("no system call is filtered", seccomp=False)
_held("the host's disks are in its /dev", devices=True)
_held("it may write the kernel's settings", writable_sys=True)
_held("it has the host's PID namespace", host_pid_namespace=True)
_settings(
    "it is published on every address",
    lambda told: replace(told, environment={**told.environment, "LAB_HOST": "0.0.0.0"}),  # noqa: S104  the fault
)
_info("a kernel of its own is claimed", lambda info: replace(info, isolation="virtual machine"))

# The service
_settings("the command is ignored", lambda told: replace(told, command=()))
_settings(
    "the environment is ignored",
    lambda told: replace(told, environment={k: v for k, v in told.environment.items() if k != "LAB_VERSION"}),
)
_settings("the restart policy is ignored", lambda told: replace(told, restart="no"))
_instance("logs are empty", logs=lambda _: b"")
_instance("logs are without bound", logs=lambda self: self.engine.container(self.id).log.read_bytes())

# What it says of itself
_info("its isolation is in words of its own", lambda info: replace(info, isolation="quite safe"))
_info("its facts are no JSON", lambda info: replace(info, facts={**info.facts, "since": {1, 2}}))
_info("it does not tell of its limits", lambda info: replace(info, facts={"restart": info.facts["restart"]}))
_info("it does not name its restart policies", lambda info: replace(info, facts={"limits": info.facts["limits"]}))
_info(
    "a feature is claimed without its protocol",
    lambda info: replace(info, features=info.features | {Feature.REPLICAS}),
)
_info(
    "a guest's features are claimed of a container",
    lambda info: replace(info, features=info.features | {Feature.OWN_KERNEL}),
)
_info("no network is claimed, and there is one", lambda info: replace(info, features=info.features - {Feature.NETWORK}))
_driver("its name is another's", name="other")
_driver(
    "any variant will do",
    __init__=lambda self, variant, context: ModelDriver.__init__(self, "" if variant else variant, context),
)

# Exec
_instance("exec runs something else", exec=lambda self, *_, timeout_s: _exec(self, ["/service", "nothing"], timeout_s))
_instance(
    "exec loses the exit code",
    exec=lambda self, argv, *, timeout_s: replace(_exec(self, argv, timeout_s), exit_code=0),
)
_instance("exec mixes output and errors", exec=lambda self, argv, *, timeout_s: _mixed(_exec(self, argv, timeout_s)))
_instance(
    "exec splits words",
    exec=lambda self, argv, *, timeout_s: _exec(self, " ".join(argv).split(), timeout_s),
)


def _exec(instance: ModelInstance, argv: Sequence[str], timeout_s: float) -> ExecResult:
    return ModelInstance.exec(instance, argv, timeout_s=timeout_s)


def _mixed(done: ExecResult) -> ExecResult:
    return ExecResult(done.exit_code, done.stdout + done.stderr, b"")


@_broken("exec of nothing that can be run succeeds")
class _ExecSilent(ModelDriver):
    class made(ModelInstance):  # noqa: N801  an attribute of the driver
        def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
            try:
                return super().exec(argv, timeout_s=timeout_s)
            except DriverError as error:
                if "no such file" not in error.brief:
                    raise
                return ExecResult(127, b"", b"")


@_broken("exec that does not end is passed off as done")
class _ExecLate(ModelDriver):
    class made(ModelInstance):  # noqa: N801
        def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
            try:
                return super().exec(argv, timeout_s=timeout_s)
            except DriverError as error:
                if "still ran" not in error.brief:
                    raise
                return ExecResult(0, b"", b"")


# Life
_instance("stop does nothing", stop=_nothing)
_instance(
    "stop cannot be called again",
    stop=lambda self, *, timeout_s: self.engine.stop(self.id, timeout_s) if self.host_pids() else _refuse("stop"),
)
_instance("delete leaves it with the engine", delete=lambda self: ModelInstance.stop(self, timeout_s=1))
_instance(
    "the log of what is gone is an error", logs=lambda self: self.engine.container(self.id).log.read_bytes()[-65536:]
)


def _refuse(what: str) -> None:
    raise DriverError(f"the model engine could not {what} it: it has ended")


@_broken("delete cannot be called again")
class _DeleteOnce(ModelDriver):
    class made(ModelInstance):  # noqa: N801
        def delete(self) -> None:
            if self.id not in {one.id for one in self.engine.containers()}:
                raise DriverError("the model engine could not remove the container: no such container")
            super().delete()


@_broken("a process outlives delete")
class _DeleteLeaves(ModelDriver):
    class made(ModelInstance):  # noqa: N801
        def host_pids(self) -> Mapping[int, Role]:
            if self.watch is None:
                return super().host_pids()
            if self.watch not in _extra:
                _extra[self.watch] = subprocess.Popen(["sleep", "600"], start_new_session=True)
                _left.append(_extra[self.watch].kill)
            return {**super().host_pids(), _extra[self.watch].pid: Role.HELPER}


@_broken("a failed launch leaves its container")
class _FailureLeaves(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        remove, self.engine.remove = self.engine.remove, _nothing  # type: ignore[method-assign]
        try:
            return super().launch(spec, endpoint, mark)
        finally:
            self.engine.remove = remove  # type: ignore[method-assign]


@_broken("an error of the engine's comes through as it is")
class _Unmapped(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        try:
            return super().launch(spec, endpoint, mark)
        except LaunchError as error:
            raise error.__cause__ or error from None


@_broken("a taken port is told to nobody")
class _PortUntold(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        require = self.engine._require_free
        self.engine._require_free = _nothing  # type: ignore[method-assign]
        try:
            return super().launch(spec, endpoint, _Untold(mark))
        finally:
            self.engine._require_free = require  # type: ignore[method-assign]


_settings("the launch's own label is not given", lambda told: replace(told, labels=image_labels(told.labels)))
_driver(
    "a list is told whatever the labels",
    list_instances=lambda self, _: ModelDriver.list_instances(self, {}),
)
_driver(
    "only what it launched itself is listed",
    launch=lambda self, spec, endpoint, mark: _noted(self, ModelDriver.launch(self, spec, endpoint, mark)),
    list_instances=lambda self, labels: [one for one in getattr(self, "_own", []) if bears(one.labels, labels)],
)
_driver(
    "with no labels given nothing is listed",
    list_instances=lambda self, labels: ModelDriver.list_instances(self, labels) if labels else [],
)


def _noted(driver: Any, instance: Any) -> Any:
    driver._own = [*getattr(driver, "_own", []), instance]
    return instance


@_broken("close removes what it listed of a run")
class _CloseRemoves(ModelDriver):
    _listed: Sequence[Any] = ()

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Any]:
        found = super().list_instances(labels)
        self._listed = found if "lab.run" in labels else ()
        return found

    def close(self) -> None:
        for one in self._listed:
            one.delete()


@_broken("close cannot be called again")
class _CloseOnce(ModelDriver):
    def close(self) -> None:
        if getattr(self, "_closed", False):
            raise DriverError("the connection is closed")
        self._closed = True


# Marks
class _Untold:
    """A mark that hands on phases and lines, and no failure."""

    def __init__(self, mark: Any) -> None:
        self._mark, self.line = mark, mark.line

    def __call__(self, phase: Phase, *, source: Source) -> None:
        self._mark(phase, source=source)

    failed = _nothing


def _marked(name: str, phase: Phase, source: Source) -> None:
    """`phase` is marked as `launch` begins."""

    def launch(self: ModelDriver, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        mark(phase, source=source)
        return ModelDriver.launch(self, spec, endpoint, mark)

    BREAKAGES[name] = type("Broken", (ModelDriver,), {"launch": launch})


_marked("created is marked before the call", Phase.CREATED, Source.RETURN)
_marked("started is marked before the call", Phase.STARTED, Source.RETURN)
_marked("a phase is invented", Phase.SCHEDULED, Source.EVENT)
_marked("a guest's phase is invented", Phase.KERNEL, Source.CONSOLE)
_marked("the service's phases are marked by hand", Phase.MAIN, Source.RETURN)
_marked("ready is marked by the driver", Phase.READY, Source.EVENT)


@_broken("nothing of the engine is marked")
class _Unmarked(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        return super().launch(spec, endpoint, _LinesAlone(mark))


class _LinesAlone:
    def __init__(self, mark: Any) -> None:
        self.line, self.failed = mark.line, mark.failed

    def __call__(self, phase: Phase, *, source: Source) -> None:
        """Nothing."""


@_broken("lines are handed on twice")
class _Twice(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        return super().launch(spec, endpoint, _Doubled(mark))


class _Doubled(_LinesAlone):
    def __init__(self, mark: Any) -> None:
        super().__init__(mark)
        self._mark = mark
        self.line = self._line

    def __call__(self, phase: Phase, *, source: Source) -> None:
        self._mark(phase, source=source)

    def _line(self, text: bytes, *, source: Source) -> None:
        for _ in range(2):
            self._mark.line(text, source=source)


_instance("an end that was asked for is told as a failure", _expect_end=_nothing)


@_broken("it marks after the instance is deleted")
class _LateMark(ModelDriver):
    class made(ModelInstance):  # noqa: N801
        def delete(self) -> None:
            super().delete()
            if self.watch is not None:
                late = threading.Timer(0.1, self.watch.mark.line, [b"late"], {"source": Source.LOG})
                late.daemon = True
                late.start()


# Features
_instance(
    "a helper is missing among the host's processes",
    host_pids=lambda self: {
        pid: role for pid, role in ModelInstance.host_pids(self).items() if role is not Role.HELPER
    },
)
_instance(
    "a helper has the service's role",
    host_pids=lambda self: dict.fromkeys(ModelInstance.host_pids(self), Role.SERVICE),
)
_instance(
    "nothing does the work",
    host_pids=lambda self: dict.fromkeys(ModelInstance.host_pids(self), Role.HELPER),
)
_instance("what it stores is not there", storage=lambda _: {"image": [Path("/nonexistent/image")]})
_driver("what a cold launch reads is not there", launch_files=lambda *_: [Path("/nonexistent/image")])
_driver(
    "the lab's own are named as others'",
    others_running=lambda self: [one.id for one in self.engine.containers()],
)
_driver(
    "an instance's processes are called the engine's",
    engine_pids=lambda self: {one.process.pid: "model" for one in self.engine.containers() if one.process is not None},
)
_instance("no more replicas are made", FakeInstance, scale=_nothing)
_instance("an update is ignored", FakeInstance, update=_nothing)
_instance("no replica's address is told", FakeInstance, endpoints=lambda _: [])
_instance("the policy of updates is not told whole", FakeInstance, update_policy=lambda _: {"order": "stop-first"})

# What is left
_driver(
    "an image is loaded without labels",
    prepare=lambda self, spec: _loaded(self, spec, {}),
)
_driver(
    "an image bears the run's label alone",
    prepare=lambda self, spec: _loaded(self, spec, {"lab.run": spec.labels["lab.run"]}),
)
_driver("images are not among what is left", leftovers=lambda *_: [])


def _loaded(driver: ModelDriver, spec: Spec, labels: Mapping[str, str]) -> None:
    load = driver.engine.load
    driver.engine.load = lambda program, **more: load(program, **{**more, "labels": labels})  # type: ignore[method-assign]
    try:
        ModelDriver.prepare(driver, spec)
    finally:
        driver.engine.load = load  # type: ignore[method-assign]


@_broken("prepare makes another image at each call")
class _PrepareTwice(ModelDriver):
    def prepare(self, spec: Spec) -> None:
        super().prepare(spec)
        if spec.builtin and "lab.launch" not in spec.labels:
            program = self.engine.images()[0].program
            self.engine.load(program, tag=f"more-{next(_number)}", labels=image_labels(spec.labels))


_number = itertools.count()


@_broken("an image that there is not is accepted")
class _AnyImage(ModelDriver):
    def prepare(self, spec: Spec) -> None:
        super().prepare(replace(spec, image="stratalab/service"))


class _Kept(ModelImage):
    def delete(self) -> None:
        """Nothing."""


@_broken("an image that is left is not removed")
class _LeftoverStays(ModelDriver):
    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Any]:
        return [_Kept(one.engine, one.id, one.labels) for one in super().leftovers(labels)]  # type: ignore[attr-defined]


class _Once(ModelImage):
    def delete(self) -> None:
        try:
            self.engine.remove_image(self.id)
        except EngineError as error:
            raise DriverError(str(error)) from error


@_broken("an image cannot be removed again")
class _LeftoverOnce(ModelDriver):
    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Any]:
        return [_Once(one.engine, one.id, one.labels) for one in super().leftovers(labels)]  # type: ignore[attr-defined]


@_broken("a file of the launch stays")
class _FileStays(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        (self._context.run_dir / f"{spec.labels['lab.launch']}.pid").write_text("1")
        return super().launch(spec, endpoint, mark)


@_broken("a thread outlives close")
class _ThreadStays(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        end = threading.Event()
        _left.append(end.set)
        threading.Thread(target=end.wait, name="events", daemon=True).start()
        return super().launch(spec, endpoint, mark)


@_broken("a connection outlives close")
class _SocketStays(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        kept = socket.socket()
        _left.append(kept.close)
        return super().launch(spec, endpoint, mark)


@_broken("a descriptor outlives close")
class _DescriptorStays(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        _left.extend(partial(os.close, descriptor) for descriptor in os.pipe())
        return super().launch(spec, endpoint, mark)


@_broken("a cgroup stays")
class _CgroupStays(ModelDriver):
    def settings(self, spec: Spec, endpoint: Endpoint, image: str) -> Settings:
        self.engine.kernel.forget = _nothing  # type: ignore[method-assign]
        return super().settings(spec, endpoint, image)
