"""What Podman is asked to make of a spec: the body of a creating call, in the words of its SpecGenerator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lab.host.pinning import cpu_list
from lab.host.rlimits import Rlimits
from lab.image.process import TMP
from lab.spec import Endpoint, Restart, Spec

CPU_PERIOD_US = 100_000
LIMITS: Mapping[str, str] = {"memory": "memory", "swap": "memory", "cpus": "cpu", "pids": "pids"}
"""Each limit, and the controller of cgroups that holds it."""
RESTART: Mapping[Restart, str] = {Restart.DEFAULT: "no", Restart.BEST: "always"}


def body(
    spec: Spec,
    image: str,
    endpoint: Endpoint,
    *,
    controllers: Collection[str],
    rlimits: Rlimits,
    rootless: bool,
    scratch: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The SpecGenerator of one launch. `controllers` are those of cgroups that this Podman sets limits by; `scratch` is
    the mount of /tmp, if there is to be one."""
    listen = "0.0.0.0"  # noqa: S104  the container's own addresses, published on 127.0.0.1
    published = {"container_port": spec.port, "host_port": endpoint.port, "host_ip": endpoint.host, "protocol": "tcp"}
    return {
        "image": image,
        **({"command": list(spec.command)} if spec.command is not None else {}),
        "env": spec.service_environment(host=listen, port=spec.port),
        "labels": dict(spec.labels),
        "portmappings": [published],
        # What a user's network is made by (pasta, slirp4netns) is left to Podman; root's could be the host's by its
        # containers.conf, where the service would listen on every address.
        **({} if rootless else {"netns": {"nsmode": "bridge"}}),
        "mounts": [scratch] if scratch else [],
        "image_volume_mode": "anonymous",
        "resource_limits": _resources(spec, controllers),
        "r_limits": [
            {"type": name, "soft": soft % 2**64, "hard": hard % 2**64} for name, (soft, hard) in rlimits.items()
        ],
        "restart_policy": RESTART[spec.restart],
        "log_configuration": {"driver": "k8s-file"},  # a file that its user may read, wherever journald's is
    }


def scratch_mount(spec: Spec) -> dict[str, Any]:
    """The tmpfs on /tmp; `exec` takes back what Podman sets by itself, and a size of 0 would be no limit. Where
    the image has a directory there, runc gives it that mode (libcontainer, rootfs_linux.go), and crun ours."""
    options = ["exec", "nosuid", "nodev", "mode=1777", f"size={max(spec.scratch_bytes, 4096)}", "notmpcopyup"]
    return {"destination": TMP, "type": "tmpfs", "source": "tmpfs", "options": options}


def _resources(spec: Spec, controllers: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "memory" in controllers:
        found["memory"] = {"limit": spec.memory_bytes, "swap": spec.memory_bytes}  # memory and swap together
    cpu: dict[str, Any] = {}
    if "cpu" in controllers:
        cpu |= {"quota": round(spec.cpus * CPU_PERIOD_US), "period": CPU_PERIOD_US}
    if spec.cpuset and "cpuset" in controllers:
        cpu |= {"cpus": cpu_list(spec.cpuset)}
    if cpu:
        found["cpu"] = cpu
    if "pids" in controllers:
        found["pids"] = {"limit": spec.pids}
    return found
