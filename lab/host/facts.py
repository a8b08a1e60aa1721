"""What is known of the machine that the lab stands on, as facts stored with each run (docs/method.md, rule 20).

`host_facts` only reads files under /proc, /sys, /etc and /dev: no command is run, nothing is changed. What cannot be
read is None. Sources: proc(5), and Documentation/ABI and admin-guide of the kernel for each path of /sys.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import lab
from lab.host.procfs import (
    Mount,
    mount_of,
    read_choice,
    read_cpu_list,
    read_cpu_ticks,
    read_fields,
    read_flag,
    read_int,
    read_link,
    read_meminfo,
    read_mounts,
    read_text,
)

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

ROOT = Path("/")
HOST_VARIABLE = "LAB_HOST"
_HOST_ID_HEX = 12
_VIRTUAL_VENDORS = frozenset({"QEMU", "KVM", "VMware, Inc.", "innotek GmbH", "Xen", "Parallels", "BHYVE", "OpenStack"})
_HOST_PID_NAMESPACE = "pid:[4026531836]"
_MIN_TICKS = 200
"""Below this a single tick would already be half of the 1 % that raises a warning, and a fraction says nothing."""


def boot_id(root: Path = ROOT) -> str:
    """The kernel's identifier of this boot; "" if unreadable."""
    return read_text(root / "proc/sys/kernel/random/boot_id") or ""


def time_namespace(root: Path = ROOT) -> str:
    """The time namespace of this process, as `time:[4026531834]`; "" if unreadable. Source: time_namespaces(7)."""
    return read_link(root / "proc/self/ns/time") or ""


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """Which machine this is, the same in every boot: `id` to tell by, `name` to call it by."""

    id: str
    name: str


def host_identity(root: Path = ROOT, named: str | None = None) -> HostIdentity:
    """This machine's. What the environment variable LAB_HOST (or `named`) says is its name, and its id is of that name
    alone: for containers, which have neither of their own, and for clones of one disk. Else the name is the host's, and
    the id of its machine-id(5); where that is missing, of its name."""
    told = os.environ.get(HOST_VARIABLE, "") if named is None else named
    if told.strip():
        return HostIdentity(host_id_of(f"name {told.strip()}"), told.strip())
    name = read_text(root / "proc/sys/kernel/hostname") or platform.node() or "unnamed"
    machine = read_text(root / "etc/machine-id") or read_text(root / "var/lib/dbus/machine-id") or ""
    known = re.fullmatch(r"[0-9a-f]{32}", machine)  # an image may say `uninitialized`
    return HostIdentity(host_id_of(machine if known else f"name {name}"), name)


def host_id_of(machine: str) -> str:
    """The id of the host whose machine-id is `machine`: hashed, since machine-id(5) asks that it be told to nobody."""
    return hashlib.sha256(f"stratalab host {machine}".encode()).hexdigest()[:_HOST_ID_HEX]


class Steal:
    """The part of all CPU time that a hypervisor took away while the lab ran, between `start` and `stop`.

    Source: `steal` over the sum of the first eight columns of /proc/stat's `cpu` line, proc(5) (guest time is
    contained in user and nice).
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._first: tuple[int, int] | None = None

    def start(self) -> None:
        """Take the first reading."""
        self._first = read_cpu_ticks(self._root)

    def stop(self) -> float | None:
        """The fraction since `start`, 0 to 1; None where the kernel does not tell it, or while fewer than 200 ticks
        (1 s on two CPUs) have passed, too few to resolve 1 %. May be called again and again."""
        last = read_cpu_ticks(self._root)
        if self._first is None or last is None:
            return None
        stolen, total = last[0] - self._first[0], last[1] - self._first[1]
        return stolen / total if total >= _MIN_TICKS else None


def host_facts(
    root: Path = ROOT, *, paths: Mapping[str, Path] | None = None, steal: Steal | None = None
) -> dict[str, JSON]:
    """What this host is, as nested mappings with the same keys everywhere; what is absent or unreadable is None.

    `paths` (a name → a directory) are told with the filesystem that each lies in. `steal`, started earlier, gives
    the steal since then. What changes from minute to minute or boot to boot is under the key `volatile`. Takes some
    milliseconds. `root` stands in for / in tests; `cpu.architecture` is always that of the running kernel.
    """
    mounts = read_mounts(root)
    places = {name: path.resolve() for name, path in (paths or {}).items()}
    return {
        "cpu": _cpu(root),
        "memory": _memory(root),
        "kernel": _kernel(root),
        "cgroup": _cgroup(root, mounts),
        "virtualization": _virtualization(root),
        "system": _system(root),
        "filesystems": {name: _filesystem(path, mounts) for name, path in places.items()},
        "volatile": _volatile(root, places, steal),
    }


def _cpu(root: Path) -> dict[str, JSON]:
    cpus = root / "sys/devices/system/cpu"
    info = read_fields(root / "proc/cpuinfo")
    online = read_cpu_list(read_text(cpus / "online"))
    policies = sorted((cpus / "cpufreq").glob("policy*"))
    return {
        "model": info.get("model name") or info.get("Model") or _arm_model(info),
        "vendor": info.get("vendor_id"),
        "architecture": os.uname().machine,
        "microcode": info.get("microcode") or read_text(cpus / "cpu0/microcode/version"),
        "threads_online": len(online) or None,
        "cores_online": _distinct(cpus, online, "physical_package_id", "core_id"),
        "sockets_online": _distinct(cpus, online, "physical_package_id"),
        "threads_allowed": len(read_cpu_list(read_fields(root / "proc/self/status").get("Cpus_allowed_list"))) or None,
        "smt_active": read_flag(cpus / "smt/active"),
        "governors": _choices(policy / "scaling_governor" for policy in policies),
        "frequency_driver": read_text(policies[0] / "scaling_driver") if policies else None,
        "frequency_min_hz": _extreme(min, (policy / "scaling_min_freq" for policy in policies)),
        "frequency_max_hz": _extreme(max, (policy / "scaling_max_freq" for policy in policies)),
        "turbo_on": _turbo(cpus),
        "idle_driver": read_text(cpus / "cpuidle/current_driver"),
    }


def _memory(root: Path) -> dict[str, JSON]:
    info = read_meminfo(root)
    mm = root / "sys/kernel/mm"
    return {
        "memory_total_bytes": info.get("MemTotal"),
        "swap_total_bytes": info.get("SwapTotal"),
        "swappiness": read_int(root / "proc/sys/vm/swappiness"),
        "thp": read_choice(mm / "transparent_hugepage/enabled"),
        "thp_defrag": read_choice(mm / "transparent_hugepage/defrag"),
        "ksm_on": read_flag(mm / "ksm/run"),
        "hugepages_total": info.get("HugePages_Total"),
        "hugepage_bytes": info.get("Hugepagesize"),
    }


def _kernel(root: Path) -> dict[str, JSON]:
    faults = root / "sys/devices/system/cpu/vulnerabilities"
    return {
        "release": read_text(root / "proc/sys/kernel/osrelease"),
        "version": read_text(root / "proc/sys/kernel/version"),
        "cmdline": read_text(root / "proc/cmdline"),
        "clocksource": read_text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "mitigations": {path.name: read_text(path) for path in sorted(faults.glob("*"))},
    }


def _cgroup(root: Path, mounts: list[Mount]) -> dict[str, JSON]:
    """The version is `v2` (unified), `v1`, or `hybrid`: v1 controllers with a v2 hierarchy beside. cgroups(7)."""
    first = [mount for mount in mounts if mount.type == "cgroup"]
    second = [mount for mount in mounts if mount.type == "cgroup2"]
    version = ("hybrid" if first else "v2") if second else ("v1" if first else None)
    enabled = {
        name
        for name, _, _, on in (
            line.split() for line in (read_text(root / "proc/cgroups") or "").splitlines() if not line.startswith("#")
        )
        if on == "1"
    }
    controllers = {option for mount in first for option in mount.super_options.split(",")} & enabled
    for mount in second:
        controllers.update((read_text(root / mount.point.lstrip("/") / "cgroup.controllers") or "").split())
    return {"version": version, "controllers": list[JSON](sorted(controllers)) if version else None}


def _virtualization(root: Path) -> dict[str, JSON]:
    kvm = root / "dev/kvm"
    module = next((name for name in ("kvm_intel", "kvm_amd") if (root / "sys/module" / name).exists()), None)
    return {
        "hypervisor": _hypervisor(root),
        "hypervisor_vendor": _hypervisor_vendor(root) or read_text(root / "sys/hypervisor/type"),
        "dmi_vendor": read_text(root / "sys/class/dmi/id/sys_vendor"),
        "dmi_product": read_text(root / "sys/class/dmi/id/product_name"),
        "bios_version": read_text(root / "sys/class/dmi/id/bios_version"),
        "container": _container(root),
        "kvm_device_present": kvm.exists(),
        "kvm_device_accessible": os.access(kvm, os.R_OK | os.W_OK),
        "kvm_module": module,
        "kvm_nested_on": read_flag(root / "sys/module" / module / "parameters/nested") if module else None,
    }


def _system(root: Path) -> dict[str, JSON]:
    release = dict(
        line.split("=", 1)
        for line in (read_text(root / "etc/os-release") or "").splitlines()
        if re.match(r"\w+=", line)
    )
    systemd = (root / "run/systemd/system").is_dir()  # sd_booted(3)
    return {
        "init": "systemd" if systemd else read_text(root / "proc/1/comm"),
        "distribution": release.get("ID", "").strip("\"'") or None,
        "distribution_version": release.get("VERSION_ID", "").strip("\"'") or None,
        "distribution_name": release.get("PRETTY_NAME", "").strip("\"'") or None,
        "python_version": platform.python_version(),
        "lab_version": lab.__version__,
    }


def _volatile(root: Path, places: Mapping[str, Path], steal: Steal | None) -> dict[str, JSON]:
    info = read_meminfo(root)
    loads: list[JSON] = [float(word) for word in (read_text(root / "proc/loadavg") or "").split()[:3]]
    loads += [None] * (3 - len(loads))
    ticks = read_cpu_ticks(root)
    total, free = info.get("SwapTotal"), info.get("SwapFree")
    throttles = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
    counts = [count for count in map(read_int, throttles) if count is not None]
    return {
        "boot_id": boot_id(root) or None,
        "time_namespace": time_namespace(root) or None,
        "load_average_1min": loads[0],
        "load_average_5min": loads[1],
        "load_average_15min": loads[2],
        "steal_fraction": steal.stop() if steal else None,
        "steal_fraction_since_boot": ticks[0] / ticks[1] if ticks and ticks[1] else None,
        "memory_available_bytes": info.get("MemAvailable"),
        "swap_used_bytes": total - free if total is not None and free is not None else None,
        "thermal_throttle_count_since_boot": sum(counts) if counts else None,
        "on_battery": _on_battery(root),
        "filesystem_available_bytes": {name: _available_bytes(path) for name, path in places.items()},
    }


def _arm_model(info: Mapping[str, str]) -> str | None:
    """arm64 names no model, only who designed the core, and which part it is."""
    maker, part = info.get("CPU implementer"), info.get("CPU part")
    return f"implementer {maker}, part {part}" if maker and part else None


def _distinct(cpus: Path, online: Iterable[int], *names: str) -> int | None:
    """How many different values of the topology files `names` the online CPUs have; None unless all tell."""
    found = {tuple(read_text(cpus / f"cpu{cpu}/topology" / name) for name in names) for cpu in online}
    return len(found) if found and not any(None in values for values in found) else None


def _extreme(pick: Callable[[Iterable[int]], int], files: Iterable[Path]) -> int | None:
    """The lowest or highest of these files' values in kHz, in Hz."""
    values = [value * 1000 for value in map(read_int, files) if value is not None]
    return pick(values) if values else None


def _choices(files: Iterable[Path]) -> list[JSON] | None:
    found = {text for text in map(read_text, files) if text}
    return list[JSON](sorted(found)) or None


def _turbo(cpus: Path) -> bool | None:
    """intel_pstate tells that turbo is off; the other drivers that it is on. Sources: intel_pstate.rst, cpufreq.rst"""
    off = read_flag(cpus / "intel_pstate/no_turbo")
    return read_flag(cpus / "cpufreq/boost") if off is None else not off


def _hypervisor(root: Path) -> bool | None:
    """Whether this host is a virtual machine; None where the machine does not say (arm64 without any sign)."""
    flags = read_fields(root / "proc/cpuinfo").get("flags")
    if flags is not None and "hypervisor" in flags.split():
        return True
    tree = root / "proc/device-tree"
    if read_text(root / "sys/hypervisor/type") or (tree / "hypervisor").exists():
        return True
    if "dummy-virt" in (read_text(tree / "compatible") or ""):  # QEMU's `virt` machine
        return True
    dmi = root / "sys/class/dmi/id"
    if {read_text(dmi / "sys_vendor"), read_text(dmi / "bios_vendor")} & _VIRTUAL_VENDORS:
        return True
    return False if flags is not None else None


def _hypervisor_vendor(root: Path) -> str | None:
    """CPUID leaf 0x40000000, where the cpuid device is there and may be read (root). Source: cpuid(4)."""
    if not _hypervisor(root):
        return None
    try:
        with (root / "dev/cpu/0/cpuid").open("rb", buffering=0) as device:
            device.seek(0x40000000)
            leaf = device.read(16)
    except OSError:
        return None
    return leaf[4:].rstrip(b"\0").decode("ascii", "replace") or None


def _container(root: Path) -> str | None:
    """What kind of container the lab itself runs in, or None. In the host's own process namespace there is none,
    whatever files an image left behind.

    Sources: systemd.io/CONTAINER_INTERFACE; the files that Docker and Podman leave; PROC_PID_INIT_INO, proc_ns.h.
    """
    if read_link(root / "proc/self/ns/pid") == _HOST_PID_NAMESPACE:
        return None
    told = read_text(root / "run/systemd/container")
    if told or (root / ".dockerenv").exists():
        return told or "docker"
    return "podman" if (root / "run/.containerenv").exists() else None


def _on_battery(root: Path) -> bool | None:
    """True while a battery of the machine (no mouse's) discharges; None without one. Source: sysfs-class-power."""
    supplies = [path for path in (root / "sys/class/power_supply").glob("*") if read_text(path / "type") == "Battery"]
    states = [read_text(path / "status") for path in supplies if read_text(path / "scope") != "Device"]
    return "Discharging" in states if states else None


def _filesystem(path: Path, mounts: Iterable[Mount]) -> dict[str, JSON]:
    mount = mount_of(path, mounts)
    return {
        "type": mount.type if mount else None,
        "source": mount.source if mount else None,
        "mount_options": f"{mount.options},{mount.super_options}" if mount else None,
    }


def _available_bytes(path: Path) -> int | None:
    """What an unprivileged user may still write at `path`, or at the nearest parent that exists."""
    existing = next((place for place in (path, *path.parents) if place.exists()), None)
    if existing is None:
        return None
    told = os.statvfs(existing)
    return told.f_bavail * told.f_frsize
