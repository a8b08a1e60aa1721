"""Drivers that keep all of the contract but one promise each: who holds drivers to it tests his tests by them.

Each is `ModelDriver` (or, where replicas are concerned, `FakeDriver`) with one thing changed; `BREAKAGES` has them by
name. Those about an instance's life, its marks and what is left of it are in `breakages_life.py`. None does anything to
this host that the unbroken one does not, but for its port on every address, and a process, a thread, a descriptor or a
file that it leaves, which `mend` and the end of the run's directory take away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.driver import Info
from lab.errors import DriverError
from lab.features import ExecResult, Feature, Role
from lab.launch.waiter import reserve_port
from lab.spec import Endpoint, Spec
from lab.testing.engine import Settings
from lab.testing.fake import FakeDriver, FakeInstance
from lab.testing.model import ModelDriver, ModelInstance

BREAKAGES: dict[str, type[Any]] = {}
"""By the name of what is broken: the driver's class."""

left: list[Callable[[], object]] = []


def nothing(*_: Any, **__: Any) -> None:
    """What a broken method does instead."""


def mend() -> None:
    """Remove what broken drivers left in this process."""
    while left:
        with contextlib.suppress(OSError):
            left.pop()()


def broken(name: str) -> Callable[[type[Any]], type[Any]]:
    def keep(driver: type[Any]) -> type[Any]:
        BREAKAGES[name] = driver
        return driver

    return keep


def settings(name: str, change: Callable[[Settings], Settings]) -> None:
    """The engine is told something else than the spec says."""

    def settings(self: ModelDriver, spec: Spec, endpoint: Endpoint, image: str) -> Settings:
        return change(ModelDriver.settings(self, spec, endpoint, image))

    BREAKAGES[name] = type("Broken", (ModelDriver,), {"settings": settings})


def _held(name: str, **changes: Any) -> None:
    settings(name, lambda told: replace(told, held=replace(told.held, **changes)))


def info(name: str, change: Callable[[Info], Info]) -> None:
    """It says something else of itself."""
    BREAKAGES[name] = type("Broken", (ModelDriver,), {"info": lambda self: change(ModelDriver.info(self))})


def instance(name: str, of: type[Any] = ModelInstance, **methods: Callable[..., Any]) -> None:
    """An instance does something else."""
    driver = ModelDriver if of is ModelInstance else FakeDriver
    BREAKAGES[name] = type("Broken", (driver,), {"made": type("BrokenInstance", (of,), methods)})


def driver(what: str, **methods: Any) -> None:
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
settings("the CPUs to be held to are ignored", lambda told: replace(told, cpuset=()))

# Isolation
_held("it is privileged", every_capability=True)
_held("no system call is filtered", seccomp=False)
_held("the host's disks are in its /dev", devices=True)
_held("it may write the kernel's settings", writable_sys=True)
_held("it has the host's PID namespace", host_pid_namespace=True)
settings(
    "it is published on every address",
    lambda told: replace(told, environment={**told.environment, "LAB_HOST": "0.0.0.0"}),  # noqa: S104  the fault
)
info("its row does not tell its tick", lambda told: replace(told, features=told.features | {Feature.TICKS}))
info("a kernel of its own is claimed", lambda info: replace(info, isolation="virtual machine"))

# The service
settings("the command is ignored", lambda told: replace(told, command=()))
settings(
    "the environment is ignored",
    lambda told: replace(told, environment={k: v for k, v in told.environment.items() if k != "LAB_VERSION"}),
)
settings("the restart policy is ignored", lambda told: replace(told, restart="no"))
instance("logs are empty", logs=lambda _: b"")
instance("logs are without bound", logs=lambda self: self.engine.container(self.id).log.read_bytes())

# What it says of itself
info("its isolation is in words of its own", lambda info: replace(info, isolation="quite safe"))
info("its facts are no JSON", lambda info: replace(info, facts={**info.facts, "since": {1, 2}}))
info("it does not tell of its limits", lambda info: replace(info, facts={"restart": info.facts["restart"]}))
info("it does not name its restart policies", lambda info: replace(info, facts={"limits": info.facts["limits"]}))
info(
    "a feature is claimed without its protocol",
    lambda info: replace(info, features=info.features | {Feature.REPLICAS}),
)
info(
    "a guest's features are claimed of a container",
    lambda info: replace(info, features=info.features | {Feature.OWN_KERNEL}),
)
driver("its name is another's", name="other")
driver(
    "any variant will do",
    __init__=lambda self, variant, context: ModelDriver.__init__(self, "" if variant else variant, context),
)

# Exec
instance("exec runs something else", exec=lambda self, *_, timeout_s: _exec(self, ["/service", "nothing"], timeout_s))
instance(
    "exec loses the exit code",
    exec=lambda self, argv, *, timeout_s: replace(_exec(self, argv, timeout_s), exit_code=0),
)
instance("exec mixes output and errors", exec=lambda self, argv, *, timeout_s: _mixed(_exec(self, argv, timeout_s)))
instance(
    "exec splits words",
    exec=lambda self, argv, *, timeout_s: _exec(self, " ".join(argv).split(), timeout_s),
)


def _exec(instance: ModelInstance, argv: Sequence[str], timeout_s: float) -> ExecResult:
    return ModelInstance.exec(instance, argv, timeout_s=timeout_s)


def _mixed(done: ExecResult) -> ExecResult:
    return ExecResult(done.exit_code, done.stdout + done.stderr, b"")


@broken("exec of nothing that can be run succeeds")
class _ExecSilent(ModelDriver):
    class made(ModelInstance):  # noqa: N801  an attribute of the driver
        def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
            try:
                return super().exec(argv, timeout_s=timeout_s)
            except DriverError as error:
                if "no such file" not in error.brief:
                    raise
                return ExecResult(127, b"", b"")


@broken("exec that does not end is passed off as done")
class _ExecLate(ModelDriver):
    class made(ModelInstance):  # noqa: N801
        def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
            try:
                return super().exec(argv, timeout_s=timeout_s)
            except DriverError as error:
                if "still ran" not in error.brief:
                    raise
                return ExecResult(0, b"", b"")


# Features
instance(
    "a helper is missing among the host's processes",
    host_pids=lambda self: {
        pid: role for pid, role in ModelInstance.host_pids(self).items() if role is not Role.HELPER
    },
)
instance(
    "a helper has the service's role",
    host_pids=lambda self: dict.fromkeys(ModelInstance.host_pids(self), Role.SERVICE),
)
instance(
    "nothing does the work",
    host_pids=lambda self: dict.fromkeys(ModelInstance.host_pids(self), Role.HELPER),
)
instance("what it stores is not there", storage=lambda _: {"image": [Path("/nonexistent/image")]})
driver("what a cold launch reads is not there", launch_files=lambda *_: [Path("/nonexistent/image")])
driver(
    "the lab's own are named as others'",
    others_running=lambda self: [one.id for one in self.engine.containers()],
)
driver(
    "an instance's processes are called the engine's",
    engine_pids=lambda self: {one.process.pid: "model" for one in self.engine.containers() if one.process is not None},
)
instance("no more replicas are made", FakeInstance, scale=nothing)
instance("an update is ignored", FakeInstance, update=nothing)
instance("no replica's address is told", FakeInstance, endpoints=lambda _: [])
instance("the policy of updates is not told whole", FakeInstance, update_policy=lambda _: {"order": "stop-first"})


instance("a worker stays where all were to be ended", FakeInstance, force_cold=nothing)
instance("a worker's name is used again", FakeInstance, new_worker_name=lambda _: "worker")
instance("no worker is named", FakeInstance, workers=lambda _: [])
instance(
    "what is shown is another worker's",
    FakeInstance,
    show=lambda self, _, phase: FakeInstance.show(self, "another", phase),
)
instance("a worker is initialized with its first call", FakeInstance, initialize=nothing)
BREAKAGES["how long a worker is kept is not told"] = type(
    "Broken",
    (FakeDriver,),
    {
        "info": lambda self: replace(
            (told := FakeDriver.info(self)), facts={k: v for k, v in told.facts.items() if k != "keep_alive_s"}
        )
    },
)


def _anew(function: FakeInstance) -> None:
    FakeInstance.force_cold(function, timeout_s=1)
    FakeInstance.before_request(function)


instance("each call starts a worker anew", FakeInstance, before_request=_anew)


@broken("no network is claimed, and there is one")
class _Addressed(ModelDriver):
    def info(self) -> Info:
        info = super().info()
        return replace(info, features=info.features - {Feature.NETWORK})

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Any) -> Any:
        return super().launch(spec, endpoint or Endpoint("127.0.0.1", reserve_port()), mark)
