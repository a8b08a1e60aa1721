"""What an OCI runtime is given (runtime-spec 1.0): a config.json with what Docker gives a container by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.host.pinning import cpu_list
from lab.host.procfs import read_fields
from lab.host.rlimits import Rlimits
from lab.image.process import TMP, Process
from lab.spec import Spec

CPU_PERIOD_US = 100_000

# Source of these five: moby, oci/caps/defaults.go and oci/defaults.go.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
_MOUNTS = (
    ("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", "nosuid", "noexec", "nodev")),
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),  # noqa: S108  the container's
)
_NAMESPACES = ("mount", "uts", "ipc", "pid")
_MASKED = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
)
_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
"""What Docker sets in a network that is the container's own (moby, daemon/oci_linux.go)."""
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# Source: linux/capability.h.
_NUMBERS = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_MKNOD": 27,
    "CAP_AUDIT_WRITE": 29,
    "CAP_SETFCAP": 31,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What this host's kernel lets a container have; `limits` are the names of those that can be set."""

    unified: bool
    limits: frozenset[str]
    capabilities: Sequence[str]


def config(
    spec: Spec,
    process: Process,
    kernel: Kernel,
    *,
    bundle: Path,
    hostname: str,
    rlimits: Rlimits,
    cgroups_path: str,
    own_network: bool,
) -> dict[str, Any]:
    """The config.json of one launch; `spec.labels` are its annotations, and so known from the creating call on."""
    namespaces = [*_NAMESPACES, *(["network"] if own_network else []), *(["cgroup"] if kernel.unified else [])]
    scratch = ["nosuid", "nodev", "mode=1777", f"size={max(spec.scratch_bytes, 4096)}"]  # 0 is no limit
    own_files = ("hosts", "hostname", *(("resolv.conf",) if own_network else ()))
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": process.uid, "gid": process.gid, "additionalGids": list(process.groups)},
            "args": list(process.argv),
            "env": [f"{key}={value}" for key, value in process.environment_on(hostname).items()],
            "cwd": process.cwd,
            "capabilities": _capability_sets(kernel.capabilities, root=process.uid == 0),
            "noNewPrivileges": False,
            "oomScoreAdj": 0,
            "rlimits": [
                {"type": f"RLIMIT_{name.upper()}", "soft": soft % 2**64, "hard": hard % 2**64}
                for name, (soft, hard) in rlimits.items()
            ],
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": hostname,
        "mounts": [
            *(_mount(*mount) for mount in _MOUNTS),
            *([] if process.own_tmp else [_mount(TMP, "tmpfs", "tmpfs", scratch)]),
            # The runtime finds where a link of the image's ends inside its root; what is mounted lies in the bundle.
            *(_mount(f"/etc/{name}", "bind", str(bundle / name), ("rbind", "rprivate")) for name in own_files),
        ],
        "annotations": dict(spec.labels),
        "linux": {
            "namespaces": [{"type": name} for name in namespaces],
            "cgroupsPath": cgroups_path,
            "resources": _resources(spec, kernel.limits),
            **({"sysctl": dict(_SYSCTLS)} if own_network else {}),
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READONLY),
        },
    }


def allowed_capabilities(status: Path = Path("/proc/self/status")) -> tuple[list[str], list[str]]:
    """Docker's default capabilities that this process's bounding set holds, and those that it lacks."""
    bounding = int(read_fields(status).get("CapBnd", "0"), 16)
    held = [name for name in CAPABILITIES if bounding >> _NUMBERS[name] & 1]
    return held, [name for name in CAPABILITIES if name not in held]


def _capability_sets(names: Sequence[str], *, root: bool) -> dict[str, list[str]]:
    """As Docker: a user other than root starts with none, and may gain no more than `names`."""
    own = list(names) if root else []
    return {"bounding": list(names), "permitted": own, "effective": own}


def _resources(spec: Spec, limits: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}]}  # the runtime adds the usual ones
    if "memory" in limits:
        found["memory"] = {"limit": spec.memory_bytes}
        if "swap" in limits:
            found["memory"]["swap"] = spec.memory_bytes  # memory and swap together
    cpu: dict[str, Any] = {}
    if "cpus" in limits:
        cpu |= {"quota": round(spec.cpus * CPU_PERIOD_US), "period": CPU_PERIOD_US}
    if spec.cpuset:
        cpu |= {"cpus": cpu_list(spec.cpuset)}
    if cpu:
        found["cpu"] = cpu
    if "pids" in limits:
        found["pids"] = {"limit": spec.pids}
    return found


def _mount(destination: str, kind: str, source: str, options: Iterable[str]) -> Mapping[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}
