"""OCI runtimes that engines can be told to use: what each isolates by, and how a user's engine comes to have it.

What is particular to one (gVisor's sentry, Kata's machine) is known here alone; the drivers of engines ask.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

_GVISOR = "https://gvisor.dev/docs/user_guide/install/"
_KATA = "https://katacontainers.io/docs/"
_YOUKI = "https://youki-dev.github.io/youki/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One runtime: `about` it in a list of targets, `isolation` in the words of `Info.isolation` where it is more than
    namespaces, how it is installed, and its entry in Docker's daemon.json where a path is not enough."""

    about: str
    install: str
    isolation: str = ""
    entry: Mapping[str, str] = field(default_factory=dict)


KNOWN: Mapping[str, Known] = {
    "runc": Known(about="runc, in Go, which Docker uses by default", install="sudo apt-get install runc"),
    "crun": Known(about="crun, in C, which Podman prefers", install="sudo apt-get install crun"),
    "youki": Known(about="youki, in Rust", install=f"see {_YOUKI}"),
    "runsc": Known(
        about="gVisor: a kernel in user space, the sentry, answers the service's system calls",
        install=f"see {_GVISOR}",
        isolation="user-space kernel (gVisor)",
    ),
    "kata": Known(
        about="Kata Containers: a virtual machine around each container; needs KVM",
        install=f"see {_KATA}",
        isolation="virtual machine (Kata Containers)",
        entry={"runtimeType": "io.containerd.kata.v2"},
    ),
}
OWN_KERNEL = "no filter of the host's kernel on the service's calls: a kernel of its own answers them"
"""Of seccomp, in the facts of a target whose containers have such."""
_ALSO = {"kata-runtime": "kata", "io.containerd.kata.v2": "kata", "io.containerd.runsc.v1": "runsc"}


def isolation_of(runtime: str) -> str:
    """What a container by `runtime` is isolated by, in the words of `Info.isolation`."""
    known = KNOWN.get(family(runtime))
    return known.isolation if known and known.isolation else f"namespaces ({runtime})"


def family(runtime: str) -> str:
    """The known runtime that an engine's name for it means; the name itself where none is known."""
    if runtime in _ALSO:
        return _ALSO[runtime]
    return next((name for name in KNOWN if runtime == name or runtime.startswith(f"{name}-")), runtime)


def has_kernel(runtime: str) -> bool:
    """Whether its containers have a kernel of their own: the first process on this host is not the service."""
    known = KNOWN.get(family(runtime))
    return bool(known and known.isolation)


def docker_entry(runtime: str) -> str:
    """What a daemon.json must hold for Docker to know `runtime`, on one line of JSON."""
    known = KNOWN.get(family(runtime))
    entry = dict(known.entry) if known else {}
    return json.dumps({"runtimes": {runtime: entry or {"path": shutil.which(runtime) or f"/usr/bin/{runtime}"}}})


def install_of(runtime: str) -> str:
    """How `runtime` is installed, in words."""
    known = KNOWN.get(family(runtime))
    return known.install if known else f"install '{runtime}'"
