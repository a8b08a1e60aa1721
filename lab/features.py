"""What not every driver has: each capability, the small Protocol that it is reached by, and who asks for it.

A driver names what it can do in `Info.features`; a scenario names what it `requires`, and a target that lacks it is a
skipped row. A capability whose Protocol is `-` is a way to be seen, or a field of the spec that is honoured.

| Feature | Protocol (of) | asked for by |
|---|---|---|
| NETWORK | - answers requests of the host; without it there is no `ready` | every scenario that asks the service |
| MARKER | - the service's lines reach `Mark.line` as they are written | `boot`, for the phases of the service |
| EXEC | Execs (instance) | `neighbour`, what asks an instance without a network |
| HOST_PIDS | OnThisHost (instance) | `memory`, `density`, `hostkernel`, `recover`, `containment`, `neighbour` |
| ENGINE_PIDS | EngineOnThisHost (driver) | `memory`, `density`, `hostkernel`: what is no instance's |
| STORAGE | StoredHere (instance) | `memory`: bytes on disk |
| GUEST_MEMORY | HasGuestMemory (instance) | `memory`: what a guest was given |
| COLD | Coldable (driver) | every scenario with `--cold` |
| REPLICAS | Replicates (instance) | `scale`, `rollout` |
| RESTART | - honours `Spec.restart`; `Info.facts["restart"]` names both policies in the engine's words, the same twice where it has one | `recover` |
| CLUSTER | Clustered (driver) | `cluster`, `lab cluster` |
| PINNING | - holds every process of an instance to `Spec.cpuset`, or to as many CPUs (`CPUS_CHOSEN_BY`) | `neighbour` |
| NODES | HasNodes (driver), OnNodes (instance) - honours `Spec.node` | `-p nodes=each`, `scale`, `recover` by draining and by the end of a node |
| OWN_SERVICE | - launches what has a service of its own, whatever `Spec.image` says: with such targets alone it is `OWN_IMAGE` | `lab run`, for what is asked of it |
| TICKS | - acts on a clock of its own, every `Info.facts["tick_s"]` seconds; told in a qualifier | `Session`: a launch and a stop begin at a random instant of it |
| OWN_KERNEL | - a guest under a VMM: honours `guest_panic`, `guest_clock_offset_s` | `containment` |
| UNITS | - puts `Spec.unit`, a user's systemd unit with its files, into a guest | `lab run --unit` |
| SLEEP | Sleeps (instance) | `wake`: each state that it can sleep in; `tandem`: saved guests that are woken for a burst |
| - | Copies (instance) | `wake`: what was saved can be woken more than once |
| FUNCTION | Invoked (instance) | `coldstart`, `tandem`: workers that come and go by call. `Info.facts["keep_alive_s"]` is how long one stays that nobody calls, None where nobody can tell; `calls_per_worker`, where it is there, is how many calls of one worker are to be compared at most; a call is a request to `Instance.endpoint`, as that for `ready` is |
| PEERS | Peers (instance) - honours `Spec.peers` | `talk`: on which networks one instance reaches another |
| - | FindsPeers (driver) - honours `Spec.alias` | `app-boot`, `app-memory`, `app-recover`: services are told where the others will be |
| - | Bypassed (instance) | `coldstart`: functions whose worker answers without its platform as well, so that what that takes is told apart |
| - | Initializes (instance) | `coldstart`: functions of which a worker can be had before any call |
| - | Limited (instance) | `limits`: a function whose platform promises limits |
| - | Reports (instance) | `boot`: the engine's own times, as facts |
| - | TellsKill (instance) | `boot`, every stop: a service that its stop signal did not end, as a fact |
| - | KeepsGuests (driver) | `lab guest`: its whole guests boot from disk images that the lab builds and keeps on this host |
| - | Settles (instance) | `boot`: engines that tell of a phase after the first answer |
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lab.spec import Endpoint, Spec


class Feature(enum.StrEnum):
    """One capability; the table above says what each is."""

    NETWORK = "network"
    MARKER = "marker"
    EXEC = "exec"
    HOST_PIDS = "host-pids"
    ENGINE_PIDS = "engine-pids"
    STORAGE = "storage"
    GUEST_MEMORY = "guest-memory"
    COLD = "cold"
    REPLICAS = "replicas"
    RESTART = "restart"
    CLUSTER = "cluster"
    PINNING = "pinning"
    OWN_KERNEL = "own-kernel"
    TICKS = "ticks"
    UNITS = "units"
    SLEEP = "sleep"
    FUNCTION = "function"
    PEERS = "peers"
    OWN_SERVICE = "own-service"
    NODES = "nodes"


class SleepState(enum.StrEnum):
    """How an instance sleeps: frozen in memory, ended and kept, its memory in a file, or nothing of it running."""

    PAUSED = "paused"
    STOPPED = "stopped"
    SAVED = "saved"
    ZERO = "zero"


class CallPhase(enum.StrEnum):
    """What a function's platform shows of a call that needs a new worker, in order; an absent one stays absent."""

    CREATED = "created"  # the worker exists: a container, a process
    STARTED = "started"  # it runs
    POLLED = "polled"  # its runtime asks for the first call


class Role(enum.StrEnum):
    """What a host process does for an instance."""

    SERVICE = "service"
    SHIM = "shim"
    VMM = "vmm"
    PROXY = "proxy"
    HELPER = "helper"


CPUS_CHOSEN_BY = "cpus_chosen_by"
"""The name in `Info.facts` of who chooses an instance's CPUs where that is not `Spec.cpuset`, of which then the number
counts: it has as many for itself alone, and which, the kernel tells."""

HOST_NETWORK = "host"
"""The name of this host's own network namespace among `Place.network`: its loopback, and its abstract Unix sockets."""


VSOCK_HOST = 2
"""The CID by which a guest calls its host (vsock(7), VMADDR_CID_HOST)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an instance is found on one network: `path` names the way in a table, `network` is the network's own
    identity, so that equal ones are the same network.

    It is one of a numeric `host` and a `name` of the network's own DNS, each with `port`, of `unix`, a name in the
    abstract namespace of Unix sockets, and of `vsock`, a CID of vsock(7), with `port`. `from_host` says that processes
    in this host's network namespace reach it too; `why`, where it is not empty, that nobody does and why."""

    path: str
    network: str
    host: str = ""
    name: str = ""
    unix: str = ""
    vsock: int = 0
    port: int = 0
    from_host: bool = False
    why: str = ""


@runtime_checkable
class Peers(Protocol):
    """Feature.PEERS, of an instance that was launched with `Spec.peers`: who reaches it, and whom it reaches."""

    def places(self) -> Sequence[Place]:
        """Where other instances find it, and the ways of its kind that are shut here. Raises DriverError."""

    def reach(self, place: Place) -> Place | str:
        """`place`, of another instance, as it is called from inside this one; or why it is out of reach. Raises
        DriverError."""


@runtime_checkable
class FindsPeers(Protocol):
    """Of a driver with Feature.PEERS: where peers will find an instance is known before any of them is launched."""

    def peer_address(self, spec: Spec, published: Endpoint) -> tuple[str, int]:
        """The host and port by which the driver's other instances call the one of `spec`; where it gets a port of this
        host, that is `published`. They are `spec.alias` and `spec.port` where peers have names for one another. Raises
        Unsupported where none reaches it."""


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
class HasNodes(Protocol):
    """Feature.NODES, of a driver: its engine runs instances on several machines."""

    def nodes(self) -> Sequence[str]:
        """The names of those that take instances. Raises DriverError."""


@runtime_checkable
class OnNodes(Protocol):
    """Feature.NODES, of an instance: where it is, and how it loses that."""

    def on_nodes(self) -> Mapping[str, int]:
        """How many of its parts each node has. Raises DriverError."""

    def drain(self) -> Callable[[], None]:
        """Have its nodes take nothing more, and the engine move it off them; returns, when the engine has accepted it,
        what gives the nodes back. Raises DriverError, Unsupported."""

    def stop_node(self) -> Callable[[], None]:
        """End its node at once, with all that is on it; returns what starts that again, and waits until it is ready.
        Raises DriverError, Unsupported; what is returned raises CleanupError."""


@runtime_checkable
class Sleeps(Protocol):
    """Feature.SLEEP, of an instance that can sleep and be asked for again; it stays the same instance."""

    def sleep_states(self) -> Mapping[SleepState, str]:
        """Each state that its kind of engine knows: `""` where it can be put into it here, else why not, on one line.
        Raises DriverError."""

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """Put it to sleep; returns when the engine says and a look at the host confirms that it sleeps: its processes
        are stopped, or gone. Raises DriverError."""

    def wake(self, state: SleepState) -> None:
        """Ask for it back; returns when the engine has accepted it, and waits for no answer. Where a request itself
        wakes it, nothing is done. `Instance.endpoint` then says where it answers. Raises DriverError."""

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:
        """The files on this host that hold it while it sleeps so; empty where there are none. Raises DriverError."""


@runtime_checkable
class Copies(Protocol):
    """Of an instance whose state `saved` can be woken more than once."""

    def wake_copy(self) -> None:
        """End what was woken of it, and ask for another copy of the same file; waits for no answer. Raises
        DriverError."""


@runtime_checkable
class Invoked(Protocol):
    """Feature.FUNCTION, of an instance that is a function: workers come by call and go when nobody calls."""

    def workers(self) -> Sequence[str]:
        """What serves it now, each by a name that is never used twice (a container's id, a pid with its start). Raises
        DriverError."""

    def force_cold(self, *, timeout_s: float) -> None:
        """End every worker, so that the next call needs a new one; returns when they are seen to be gone. Raises
        DriverError."""

    def follow(self, seen: Callable[[str, CallPhase, str], None]) -> AbstractContextManager[None]:
        """While it is entered, `seen(worker, phase, source)` is called at the instant at which the platform shows it,
        from any thread. Raises DriverError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What came of one call by the platform's own API: HTTP's status, the error's kind and what was said of it (both
    empty where there was none), and the payload's bytes."""

    status: int
    error: str
    said: str
    payload: bytes


@runtime_checkable
class Limited(Protocol):
    """Of a function whose platform's contract promises limits."""

    def promises(self) -> Mapping[str, str]:
        """What the contract says of `timeout`, `request`, `response`, `memory`, `concurrency` and `/tmp`, in words."""

    def limit(self, *, timeout_s: int | None = None, concurrency: int | None = None) -> None:
        """Let a call take so long, and so many be under way at a time; what is None stays. Raises DriverError."""

    def call(self, path: str, *, query: str = "", method: str = "GET", pad_to: int = 0, beyond: bool = False) -> Called:
        """One request to the service within an event of the platform's API, which is padded to so many bytes. Raises
        DriverError for an event beyond what the contract allows, unless `beyond` says that this is tried; and where
        there is no answer at all."""


@runtime_checkable
class Bypassed(Protocol):
    """Of a function whose platform stands between callers and a worker that answers without it as well."""

    def past_platform(self, path: str) -> tuple[Endpoint, bytes]:
        """Where its only worker is asked, as the platform itself asks it, and the bytes of an HTTP request that is
        GET `path` there. It takes one call at a time: whoever sends it sees to it that none is under way. Raises
        DriverError where there is not exactly one worker."""

    def service_answer(self, body: bytes) -> bytes:
        """The service's answer within `body`, which that request was answered with; empty where there is none."""


@runtime_checkable
class Initializes(Protocol):
    """Of a function whose platform can have a worker initialized before anybody calls (provisioned concurrency)."""

    def initialize(self, *, timeout_s: float) -> None:
        """Have one worker more than there are; returns when it waits for its first call, having answered none. Raises
        Unsupported where this platform does not do it after all; DriverError."""


@runtime_checkable
class Reports(Protocol):
    """Of an instance whose engine keeps times of its own, by its own clock: facts beside the marks, never figures."""

    def reported(self) -> Mapping[str, str]:
        """What the engine's object says, as it was last told; by the name of the field."""


@runtime_checkable
class TellsKill(Protocol):
    """Of an instance that can say how its `stop` ended."""

    def was_killed(self) -> bool:
        """Whether `stop` had to kill it, since it did not end by its stop signal in time. Raises DriverError."""


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


@runtime_checkable
class KeepsGuests(Protocol):
    """Of a driver: its whole guests boot from disk images that the lab builds on this host, or was brought, and keeps.
    Each is told as JSON values: `name`, `what` it is, `bytes` on disk, `made_at`, `sha256`, `facts`, and whether it is
    `current`, or of another recipe than this lab's."""

    def guest_build(self, suite: str, say: Callable[[str], None], *, mirror: str, again: bool) -> Mapping[str, Any]:
        """Build the image of a distribution's `suite`, unless it is there or is wanted `again`; returns it. `say` is
        told each step, in a line. Raises BadInput, DriverError."""

    def guest_images(self) -> Sequence[Mapping[str, Any]]:
        """Every image that is kept."""

    def guest_remove(self, name: str) -> Mapping[str, Any]:
        """Remove the one of this name, or of the only one that begins so; returns what it was. Raises BadInput."""
