"""The driver contract: what a platform must be able to do to be measured.

Order of calls: `info()` → `prepare(spec)` → `launch(...)` any number of times → `close()`. `list_instances` and
`leftovers` may come at any time, also on a fresh driver that launched nothing (`lab clean` does so). All that a
driver makes carries `spec.labels` from the creating call on. Drivers never read a clock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lab.errors import DriverError
from lab.spec import Endpoint, Spec
from lab.timeline import Phase, Source


class Mark(Protocol):
    """Hands instants to the lab, which reads the clock. May be called from any thread until `Instance.delete`."""

    def __call__(self, phase: Phase, *, source: Source) -> None:
        """`phase` is now."""

    def line(self, text: bytes, *, source: Source) -> None:
        """The service or its guest wrote this line just now; the lab finds the marks that it bears."""

    def failed(self, error: DriverError) -> None:
        """The engine tells that the accepted launch cannot succeed: who waits for it gets `error` at once."""


class Driver(Protocol):
    """One real engine, in one variant, through its official SDK. Built as `DriverClass(variant, context)`."""

    name: str

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """Variant → one line that explains it; `""` is the default. Asks no engine; raises nothing."""

    def info(self) -> Info:
        """What the engine is, asked now. Raises DriverUnavailable with the remedy."""

    def prepare(self, spec: Spec) -> None:
        """Build or load what launches of `spec` need. Never timed; idempotent. Raises Unsupported, DriverError."""

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        """Return when the engine has accepted the work, the service to answer at `endpoint`. Raises LaunchError,
        after removing what it had made; `endpoint` is None where the engine chooses or has no network."""

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Every instance, running or not, that bears all `labels`; with none given, every one of the lab's."""

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """All of the lab's that is no instance and bears all `labels`: images, networks, cgroups, files, tracing."""

    def close(self) -> None:
        """Let go of connections and threads; removes nothing. Idempotent."""


class Instance(Protocol):
    """One launched service; `endpoint` is where it answers, None without a network."""

    @property
    def id(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def endpoint(self) -> Endpoint | None: ...

    def logs(self) -> bytes:
        """What it wrote so far, the last 64 KiB; empty when it is gone."""

    def stop(self, *, timeout_s: float) -> None:
        """Ask it to end, then make it; returns when it has ended. Idempotent. Raises DriverError."""

    def delete(self) -> None:
        """Remove it and all that came with it; returns when verified gone. Idempotent. Raises CleanupError."""


class Leftover(Protocol):
    """Something of the lab's that is not an instance; `kind` is a noun such as `image`."""

    @property
    def kind(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...

    def delete(self) -> None:
        """Remove it; returns when verified gone. Idempotent. Raises CleanupError."""


class Feature(enum.StrEnum):
    """What not every driver has: a way in or out, a Protocol below, or a field of the spec that it honours."""

    NETWORK = "network"  # answers requests of the host: without it there is no `ready`
    MARKER = "marker"  # the service's lines reach `Mark.line` as they are written
    EXEC = "exec"
    HOST_PIDS = "host-pids"
    COLD = "cold"
    REPLICAS = "replicas"
    CLUSTER = "cluster"
    ENGINE_PIDS = "engine-pids"
    STORAGE = "storage"
    GUEST_MEMORY = "guest-memory"
    PINNING = "pinning"  # holds every process of an instance to `Spec.cpuset`
    OWN_KERNEL = "own-kernel"  # a guest under a VMM of its own: honours `guest_panic` and `guest_clock_offset_s`
    RESTART = "restart"  # honours `Spec.restart`; `Info.facts["restart"]` names both policies in the engine's words


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What an engine is on this host. `facts` are JSON values. `qualifiers` are shown in the target's row, and rows
    that differ in them never share one (`accel: tcg`)."""

    engine: str
    version: str
    isolation: str
    features: frozenset[Feature]
    facts: Mapping[str, Any] = field(default_factory=dict)
    qualifiers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a driver gets of the lab: two directories and the options that the user gave for drivers.

    `run_dir` is this run's alone, removed at its end or by `lab clean`; other users can pass through it (engines
    that run as another user open files in it) and not list it. `cache_dir` outlives runs.
    """

    run_dir: Path
    cache_dir: Path
    options: Mapping[str, str] = field(default_factory=dict)


class Role(enum.StrEnum):
    """What a host process does for an instance."""

    SERVICE = "service"
    SHIM = "shim"
    VMM = "vmm"
    PROXY = "proxy"
    HELPER = "helper"


@dataclass(frozen=True, slots=True)
class ExecResult:
    """The outcome of a command run inside an instance."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@runtime_checkable
class Execs(Protocol):
    """Feature.EXEC: instances with a way in."""

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run `argv` inside. Raises DriverError when it cannot be run or does not end in time."""


@runtime_checkable
class OnThisHost(Protocol):
    """Feature.HOST_PIDS: instances whose processes are this host's."""

    def host_pids(self) -> Mapping[int, Role]:
        """Every host process that exists because of the instance, and its role."""


@runtime_checkable
class EngineOnThisHost(Protocol):
    """Feature.ENGINE_PIDS, of a driver: which processes of this host run its engine, whatever it launches."""

    def engine_pids(self) -> Mapping[int, str]:
        """The daemons and control plane by pid, each with its name; empty where there are none. Raises DriverError."""


@runtime_checkable
class StoredHere(Protocol):
    """Feature.STORAGE, of an instance whose files lie on this host's disks."""

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """Its files and directories by what they are: `image` (what launches share), `writable` (its own), and for a
        guest `kernel`, `initramfs` and `root`. Raises DriverError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestMemory:
    """What a guest was given in bytes, and how it can give memory back; `balloon` in the engine's words."""

    declared_bytes: int
    balloon: str
    free_page_reporting: bool


@runtime_checkable
class HasGuestMemory(Protocol):
    """Feature.GUEST_MEMORY, of an instance with a kernel and memory of its own within a VMM."""

    def guest_memory(self) -> GuestMemory:
        """What it was given. Raises DriverError."""


@runtime_checkable
class Replicates(Protocol):
    """Feature.REPLICAS, of an instance: its engine keeps several of it, and replaces them by a rolling update of its
    own. All replicas share the spec's nonce; `/clock` tells them apart by boot id, pid and `main_ns`."""

    def endpoints(self) -> Sequence[Endpoint]:
        """Where replicas answer now: one address that spreads over them, or one for each that has an address."""

    def scale(self, replicas: int) -> None:
        """Ask for so many; returns when the engine has accepted it. Raises DriverError."""

    def update(self, spec: Spec) -> None:
        """Ask the engine to replace the running version by `spec` (same nonce and labels, other environment or
        image); returns when it has accepted it. Raises DriverError."""

    def update_policy(self) -> Mapping[str, str]:
        """How it replaces them: `order`, `readiness`, `grace`, `pre_stop`, in the engine's words."""


@runtime_checkable
class Reports(Protocol):
    """Of an instance whose engine keeps times of its own, by its own clock: facts beside the marks, never figures."""

    def reported(self) -> Mapping[str, str]:
        """What the engine's object says, as it was last told; by the name of the field."""


@runtime_checkable
class Settles(Protocol):
    """Of an instance whose engine tells its phases by events, some perhaps after the first answer."""

    def settle(self, *, timeout_s: float) -> None:
        """Return when the engine has told all that it tells of the launch, or after `timeout_s`."""


@runtime_checkable
class Clustered(Protocol):
    """Feature.CLUSTER, of a driver: its engine is a cluster, which the lab can make on this host and uses again."""

    def cluster_up(self, say: Callable[[str], None]) -> Mapping[str, Any]:
        """Make the cluster, unless it is there; returns what it was made with, as JSON values. `say` is told each
        step, in a line. Raises BadInput, DriverError."""

    def cluster_down(self) -> bool:
        """Remove the cluster; whether there was one. Raises BadInput where it is not the lab's; DriverError."""

    def cluster_status(self) -> Mapping[str, Any]:
        """What the cluster is, asked now, as JSON values. Raises DriverUnavailable with the remedy."""

    def cluster_cost(self, spec: Spec, seen: Callable[[str], None]) -> None:
        """Make another cluster with one instance of `spec`, and remove it. `seen` is called at the instants `api` (it
        answers that it is ready), `node_ready`, `first_pod` (its container runs) and `removed`. Raises DriverError."""


@runtime_checkable
class Coldable(Protocol):
    """Feature.COLD, of a driver: knows what its launches read from disk, and what else its engine runs."""

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        """Every file or directory on this host's disks that a launch of the prepared `spec` reads: layers, kernel,
        initramfs, the runtime's, shim's or VMM's program. Raises DriverError."""

    def others_running(self) -> Sequence[str]:
        """What the engine runs now that is not the lab's, named for a user. Raises DriverError."""


def bears(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether an object with `labels` is the lab's and answers to `wanted` (see `Driver.list_instances`)."""
    return "lab.run" in labels and all(labels.get(key) == value for key, value in wanted.items())
