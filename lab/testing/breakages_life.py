"""Drivers that break a promise about the life of an instance, its marks, or what is left of it."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lab.driver import bears
from lab.errors import DriverError, LaunchError
from lab.features import Role
from lab.spec import Endpoint, Spec
from lab.testing.breakages import BREAKAGES, broken, driver, instance, left, nothing, settings
from lab.testing.engine import EngineError, Settings
from lab.testing.model import ModelDriver, ModelImage, ModelInstance, image_labels
from lab.timeline import Phase, Source

# Life
instance("stop does nothing", stop=nothing)
instance(
    "stop cannot be called again",
    stop=lambda self, *, timeout_s: self.engine.stop(self.id, timeout_s) if self.host_pids() else _refuse("stop"),
)
instance("delete leaves it with the engine", delete=lambda self: ModelInstance.stop(self, timeout_s=1))
instance(
    "the log of what is gone is an error", logs=lambda self: self.engine.container(self.id).log.read_bytes()[-65536:]
)


def _refuse(what: str) -> None:
    raise DriverError(f"the model engine could not {what} it: it has ended")


@broken("delete cannot be called again")
class _DeleteOnce(ModelDriver):
    class made(ModelInstance):  # noqa: N801
        def delete(self) -> None:
            if self.id not in {one.id for one in self.engine.containers()}:
                raise DriverError("the model engine could not remove the container: no such container")
            super().delete()


def _removed_with_complaint(instance: ModelInstance) -> None:
    ModelInstance.delete(instance)
    raise DriverError("the model engine could not remove the container: so it says")


def _removed_with_all(instance: ModelInstance) -> None:
    for one in instance.engine.containers():
        if one.id != instance.id:
            instance.engine.remove(one.id)
    ModelInstance.delete(instance)


instance("what cannot be removed is told by another error", delete=_removed_with_complaint)
instance("one is removed with another", delete=_removed_with_all)

_extra: dict[object, subprocess.Popen[bytes]] = {}


@broken("a process outlives delete")
class _DeleteLeaves(ModelDriver):
    class made(ModelInstance):  # noqa: N801
        def host_pids(self) -> Mapping[int, Role]:
            if self.watch is None:
                return super().host_pids()
            if self.watch not in _extra:
                _extra[self.watch] = subprocess.Popen(["sleep", "600"], start_new_session=True)
                left.append(_extra[self.watch].kill)
            return {**super().host_pids(), _extra[self.watch].pid: Role.HELPER}


@broken("a failed launch leaves its container")
class _FailureLeaves(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        remove, self.engine.remove = self.engine.remove, nothing  # type: ignore[method-assign]
        try:
            return super().launch(spec, endpoint, mark)
        finally:
            self.engine.remove = remove  # type: ignore[method-assign]


@broken("an error of the engine's comes through as it is")
class _Unmapped(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        try:
            return super().launch(spec, endpoint, mark)
        except LaunchError as error:
            raise error.__cause__ or error from None


@broken("a taken port is told to nobody")
class _PortUntold(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        require = self.engine._require_free
        self.engine._require_free = nothing  # type: ignore[method-assign]
        try:
            return super().launch(spec, endpoint, _Untold(mark))
        finally:
            self.engine._require_free = require  # type: ignore[method-assign]


settings("the launch's own label is not given", lambda told: replace(told, labels=image_labels(told.labels)))
driver(
    "a list is told whatever the labels",
    list_instances=lambda self, _: ModelDriver.list_instances(self, {}),
)
driver(
    "only what it launched itself is listed",
    launch=lambda self, spec, endpoint, mark: _noted(self, ModelDriver.launch(self, spec, endpoint, mark)),
    list_instances=lambda self, labels: [one for one in getattr(self, "_own", []) if bears(one.labels, labels)],
)
driver(
    "with no labels given nothing is listed",
    list_instances=lambda self, labels: ModelDriver.list_instances(self, labels) if labels else [],
)


def _noted(driver: Any, instance: Any) -> Any:
    driver._own = [*getattr(driver, "_own", []), instance]
    return instance


@broken("close removes what it listed of a run")
class _CloseRemoves(ModelDriver):
    _listed: Sequence[Any] = ()

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Any]:
        found = super().list_instances(labels)
        self._listed = found if "lab.run" in labels else ()
        return found

    def close(self) -> None:
        for one in self._listed:
            one.delete()


@broken("close cannot be called again")
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

    failed = nothing

    def moment(self) -> Any:
        """As the lab's own."""
        return self


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


@broken("phases come in another order")
class _Disordered(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        return super().launch(spec, endpoint, _Swapped(mark))


@broken("nothing of the engine is marked")
class _Unmarked(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        return super().launch(spec, endpoint, _LinesAlone(mark))


class _LinesAlone:
    def __init__(self, mark: Any) -> None:
        self.line, self.failed = mark.line, mark.failed

    def moment(self) -> Any:
        """As the lab's own."""
        return self

    def __call__(self, phase: Phase, *, source: Source) -> None:
        """Nothing."""


class _Swapped(_LinesAlone):
    """Keeps `created` back until `started` is marked."""

    def __init__(self, mark: Any) -> None:
        super().__init__(mark)
        self._mark = mark

    def __call__(self, phase: Phase, *, source: Source) -> None:
        if phase is Phase.STARTED:
            self._mark(Phase.STARTED, source=source)
            self._mark(Phase.CREATED, source=source)


@broken("lines are handed on twice")
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


instance("an end that was asked for is told as a failure", _expect_end=nothing)


@broken("it marks after the instance is deleted")
class _LateMark(ModelDriver):
    class made(ModelInstance):  # noqa: N801
        def delete(self) -> None:
            super().delete()
            if self.watch is not None:
                late = threading.Timer(0.1, self.watch.mark.line, [b"late"], {"source": Source.LOG})
                late.daemon = True
                late.start()


# What is left
driver(
    "an image is loaded without labels",
    prepare=lambda self, spec: _loaded(self, spec, {}),
)
driver(
    "an image bears the run's label alone",
    prepare=lambda self, spec: _loaded(self, spec, {"lab.run": spec.labels["lab.run"]}),
)
driver("images are not among what is left", leftovers=lambda *_: [])


def _loaded(driver: ModelDriver, spec: Spec, labels: Mapping[str, str]) -> None:
    load = driver.engine.load
    driver.engine.load = lambda program, **more: load(program, **{**more, "labels": labels})  # type: ignore[method-assign]
    try:
        ModelDriver.prepare(driver, spec)
    finally:
        driver.engine.load = load  # type: ignore[method-assign]


@broken("prepare makes another image at each call")
class _PrepareTwice(ModelDriver):
    def prepare(self, spec: Spec) -> None:
        super().prepare(spec)
        if spec.builtin and "lab.launch" not in spec.labels:
            program = self.engine.images()[0].program
            self.engine.load(program, tag=f"more-{next(_number)}", labels=image_labels(spec.labels))


_number = itertools.count()


@broken("an image that there is not is accepted")
class _AnyImage(ModelDriver):
    def prepare(self, spec: Spec) -> None:
        super().prepare(replace(spec, image="stratalab/service"))


class _Kept(ModelImage):
    def delete(self) -> None:
        """Nothing."""


@broken("an image that is left is not removed")
class _LeftoverStays(ModelDriver):
    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Any]:
        return [_Kept(one.engine, one.id, one.labels) for one in super().leftovers(labels)]  # type: ignore[attr-defined]


class _Once(ModelImage):
    def delete(self) -> None:
        try:
            self.engine.remove_image(self.id)
        except EngineError as error:
            raise DriverError(str(error)) from error


@broken("an image cannot be removed again")
class _LeftoverOnce(ModelDriver):
    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Any]:
        return [_Once(one.engine, one.id, one.labels) for one in super().leftovers(labels)]  # type: ignore[attr-defined]


@broken("a file of the launch stays")
class _FileStays(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        (self._context.run_dir / f"{spec.labels['lab.launch']}.pid").write_text("1")
        return super().launch(spec, endpoint, mark)


@broken("a thread outlives close")
class _ThreadStays(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        end = threading.Event()
        left.append(end.set)
        threading.Thread(target=end.wait, name="events", daemon=True).start()
        return super().launch(spec, endpoint, mark)


@broken("a connection outlives close")
class _SocketStays(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        kept = socket.socket()
        left.append(kept.close)
        return super().launch(spec, endpoint, mark)


@broken("a descriptor outlives close")
class _DescriptorStays(ModelDriver):
    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        left.extend(partial(os.close, descriptor) for descriptor in os.pipe())
        return super().launch(spec, endpoint, mark)


@broken("a cgroup stays")
class _CgroupStays(ModelDriver):
    def settings(self, spec: Spec, endpoint: Endpoint, image: str) -> Settings:
        self.engine.kernel.forget = nothing  # type: ignore[method-assign]
        return super().settings(spec, endpoint, image)
