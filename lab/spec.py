"""What is launched (`Spec`), where it answers (`Endpoint`), and which platform is meant (`Target`)."""

from __future__ import annotations

import enum
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from lab.errors import BadInput
from lab.units import MIB

SERVICE_IMAGE = "stratalab/service"
"""The lab's own service, built from this repository; any other reference is a user's image."""

OWN_IMAGE = "its own"
"""What `Spec.image` is where every target launches what has a service of its own (Feature.OWN_SERVICE)."""

_AUTHORITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}(:[0-9]{1,5})?")
_TARGET = re.compile(r"[a-z][a-z0-9_]*(:[A-Za-z0-9][A-Za-z0-9_.+=-]*)?")


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A driver and an optional variant, as a user names it: `docker`, `docker:crun`, `libvirt:microvm`,
    `kubernetes:runtimeclass=kata`."""

    driver: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """Raises BadInput when `text` is not `driver` or `driver:variant`."""
        if not _TARGET.fullmatch(text):
            raise BadInput(f"'{text}' is not a target", resolution="write driver or driver:variant; see `lab targets`")
        driver, _, variant = text.partition(":")
        return cls(driver, variant)

    def __str__(self) -> str:
        return f"{self.driver}:{self.variant}" if self.variant else self.driver


def peer_name(labels: Mapping[str, str]) -> str:
    """What a launch is called by its peers: on a network's DNS, and in the abstract namespace of Unix sockets."""
    return f"lab-{labels.get('lab.launch', 'unlabelled')}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP address at which the service answers: on loopback, or on a bridge that only this host reaches.

    `authority` is what requests give as `Host:` where a platform serves several by name at one address.
    """

    host: str
    port: int
    authority: str = ""

    def __post_init__(self) -> None:
        if self.authority and not _AUTHORITY.fullmatch(self.authority):
            raise BadInput(f"'{self.authority}' names no host that a request could be sent to")

    @property
    def named(self) -> str:
        """What a request gives as its `Host:` (RFC 9110, 7.2)."""
        return self.authority or str(self)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def new_nonce() -> str:
    """A launch's own secret (128 bits, hex): proves that an answer is this launch's, and admits to its endpoints."""
    return secrets.token_hex(16)


class Ready(enum.StrEnum):
    """What makes an instance of a user's image ready: an answer to an HTTP request, or a connection that stands."""

    HTTP = "http"
    TCP = "tcp"


class Restart(enum.StrEnum):
    """What becomes of a service that ends by itself: what the engine does unasked, or the best that it offers."""

    DEFAULT = "default"
    BEST = "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUnit:
    """A user's own systemd unit, called `name`: its text, and what it needs in the guest, as pairs of a file or folder
    of this host and its absolute path there (Feature.UNITS)."""

    name: str
    text: str = field(repr=False)
    copies: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The service to launch: the same for every target of a run but for `labels` and `nonce`.

    `memory_bytes` allows no swap on top; `scratch_bytes` is what the service may write to /tmp, a tmpfs wherever the
    image has nothing there. `command` replaces the image's command; `environment` adds to the image's own. `cpuset` are
    the host's CPUs that it is held to, all where empty (Feature.PINNING). `guest_panic` lets the guest's kernel be made
    to panic, and `guest_clock_offset_s` starts the guest with a clock that is wrong by so many seconds
    (Feature.OWN_KERNEL). Instances of a run with the same `peers` can call one another (Feature.PEERS): by a network of
    that name where the engine makes such, and by a Unix socket where they share the host's network namespace. Where
    such a network has names, they find one with an `alias` by that too (`lab.features.FindsPeers`).
    On an engine with several machines it goes to the one called `node`, where that is not empty (Feature.NODES).
    With `unit` that is what is launched, and no image.

    `ready` says what is waited for. By HTTP it is the answer to GET `ready_path` with `ready_headers`, whose status
    lies in one of the ranges of `ready_status` (both ends count).
    """

    image: str = SERVICE_IMAGE
    port: int = 8080
    ready: Ready = Ready.HTTP
    ready_path: str = "/clock"
    ready_status: tuple[tuple[int, int], ...] = ((200, 200),)
    ready_headers: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    cpus: float = 1.0
    memory_bytes: int = 128 * MIB
    pids: int = 128
    scratch_bytes: int = 16 * MIB
    restart: Restart = Restart.DEFAULT
    cpuset: tuple[int, ...] = ()
    guest_panic: bool = False
    guest_clock_offset_s: int = 0
    peers: str = ""
    node: str = ""
    alias: str = ""
    unit: UserUnit | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "environment", MappingProxyType(dict(self.environment)))
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))

    @property
    def builtin(self) -> bool:
        """True for the lab's own service: it proves its nonce, tells its marks, and can be asked for its clock."""
        return self.image == SERVICE_IMAGE and self.unit is None

    def for_launch(self) -> Spec:
        """This spec with a fresh nonce and a fresh `lab.launch` label: one for every launch."""
        return replace(self, nonce=new_nonce(), labels={**self.labels, "lab.launch": secrets.token_hex(8)})

    def service_environment(self, *, host: str, port: int) -> dict[str, str]:
        """The whole environment given to the service: the spec's, and where to listen, and the launch's nonce."""
        own = {"LAB_HOST": host, "LAB_PORT": str(port), "LAB_NONCE": self.nonce} if self.builtin else {}
        own |= {"LAB_UNIX": peer_name(self.labels)} if self.builtin and self.peers else {}
        return {**self.environment, **own}
