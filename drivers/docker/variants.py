"""Docker's variants: the network, the privileges, or the OCI runtime in which they differ from a plain container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from drivers import ociruntimes
from lab.errors import BadInput, DriverUnavailable, Unsupported

ALLOW_PRIVILEGED = "allow-privileged"
"""The driver option without whose `yes` nothing privileged is launched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """How containers of one variant differ from plain ones.

    `shown` is what its isolation says beside the runtime's; `capabilities` says in words which ones a process of
    root has; `runtime` names an OCI runtime that is not the engine's default; `settings` are fields of the API's
    HostConfig, as the SDK's `create_host_config` names them.
    """

    about: str
    network: str = "bridge"
    shown: str = ""
    capabilities: str = "the engine's default set"
    privileged: bool = False
    runtime: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What the engine's facts say of it."""
        return {"network": self.network, "capabilities": self.capabilities, "privileged": self.privileged}


VARIANTS: Mapping[str, Variant] = {
    "": Variant(about="a container on a bridge, its port on 127.0.0.1; docker:NAME uses an OCI runtime, such as crun"),
    "host": Variant(about="a container in the host's network", network="host", shown="the host's network"),
    "none": Variant(about="a container without a network", network="none", shown="no network"),
    "cap-drop": Variant(
        about="a container with every capability dropped, and no-new-privileges",
        shown="every capability dropped, no new privileges",
        capabilities="none",
        settings={"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]},
    ),
    # A flag sets it off, because its root has all that it takes to become the host's.
    "privileged": Variant(
        about=f"the bad example: a container with the host's devices, every capability and no seccomp filter; "
        f"only with -o {ALLOW_PRIVILEGED}=yes",
        shown="PRIVILEGED: the host's devices, every capability, no seccomp filter",
        capabilities="every one",
        privileged=True,
        settings={"privileged": True},
    ),
    **{
        name: Variant(about=f"a container by {ociruntimes.KNOWN[name].about}", runtime=name)
        for name in ("crun", "youki", "runsc", "kata")
    },
}


def require_consent(variant: Variant, options: Mapping[str, str]) -> None:
    """Raises Unsupported for a privileged variant that the options do not allow, and BadInput for options that cannot
    be meant."""
    said = options.get(ALLOW_PRIVILEGED, "no")
    if said not in ("yes", "no"):
        raise BadInput(
            f"{ALLOW_PRIVILEGED}={said} means nothing", resolution=f"-o {ALLOW_PRIVILEGED}=yes, or leave it out"
        )
    if variant.privileged and said == "no":
        raise Unsupported(
            "a privileged container can do to this host what root can, so it is launched only when asked for by a flag",
            resolution=f"-o {ALLOW_PRIVILEGED}=yes, on a machine that may be lost; or leave this target out",
        )


def require_runtime(runtime: str, told: Mapping[str, Any]) -> None:
    """Raises DriverUnavailable where the engine that `told` this of itself lists no such OCI runtime."""
    listed = sorted(told.get("Runtimes") or {})
    if listed and runtime not in listed:
        raise DriverUnavailable(
            f"Docker has no OCI runtime '{runtime}'; it lists {', '.join(listed)}",
            resolution=f"install it ({ociruntimes.install_of(runtime)}), put {ociruntimes.docker_entry(runtime)} in "
            "/etc/docker/daemon.json, then: sudo kill -HUP $(pidof dockerd)",
        )
