"""What about the host makes figures weak, told from its facts (docs/method.md, rule 20)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

HIGH_LOAD_PER_CORE = 0.5
HIGH_STEAL_FRACTION = 0.01
LOW_MEMORY_BYTES = 1 << 30
FEW_CORES = 2
STEADY_CLOCKSOURCES = ("tsc", "arch_sys_counter")
"""The clock sources that are read from the processor itself: x86's and arm64's."""


class WarningCode(enum.StrEnum):
    """All that `host_warnings` can say."""

    GOVERNOR = "governor"
    FREQUENCY_SCALING = "frequency-scaling"
    TURBO = "turbo"
    SMT = "smt"
    FEW_CORES = "few-cores"
    THROTTLED = "throttled"
    BATTERY = "battery"
    LOAD = "load"
    STEAL = "steal"
    VIRTUALIZED = "virtualized"
    THP = "thp"
    KSM = "ksm"
    SWAP = "swap"
    LOW_MEMORY = "low-memory"
    CLOCKSOURCE = "clocksource"
    CGROUP_V1 = "cgroup-v1"


@dataclass(frozen=True, slots=True)
class HostWarning:
    """Something about the host that makes figures weak: `text` is one line, `remedy` what a user can do."""

    code: WarningCode
    text: str
    remedy: str


def host_warnings(facts: Mapping[str, Any]) -> list[HostWarning]:
    """What makes figures weak on the host with these `facts` (also stored ones), in the order of WarningCode.

    A fact that is absent raises no warning.
    """
    found = ((code, check(facts)) for code, check in _CHECKS.items())
    return [HostWarning(code, text, _REMEDIES[code]) for code, text in found if text is not None]


def _get(facts: Mapping[str, Any], group: str, key: str) -> Any:
    """A fact, or None: stored facts may come from a lab that did not know it."""
    return (facts.get(group) or {}).get(key)


def _governor(facts: Mapping[str, Any]) -> str | None:
    weak = [name for name in _get(facts, "cpu", "governors") or () if name != "performance"]
    return f"CPU governor is {', '.join(weak)}, not performance" if weak else None


def _scaling(facts: Mapping[str, Any]) -> str | None:
    low, high = _get(facts, "cpu", "frequency_min_hz"), _get(facts, "cpu", "frequency_max_hz")
    if low is None or high is None or low >= high:
        return None
    return f"CPU frequency may move between {low / 1e9:.2f} and {high / 1e9:.2f} GHz"


def _few_cores(facts: Mapping[str, Any]) -> str | None:
    cores = _get(facts, "cpu", "cores_online") or _get(facts, "cpu", "threads_online")
    if not cores or cores > FEW_CORES:
        return None
    return f"only {cores} CPU core{'' if cores == 1 else 's'}: the lab, the engine and the service share them"


def _throttled(facts: Mapping[str, Any]) -> str | None:
    count = _get(facts, "volatile", "thermal_throttle_count_since_boot")
    return f"the CPU was throttled for heat {count} times since boot" if count else None


def _load(facts: Mapping[str, Any]) -> str | None:
    load = _get(facts, "volatile", "load_average_1min")
    cores = _get(facts, "cpu", "cores_online") or _get(facts, "cpu", "threads_online")
    if load is None or not cores or load <= HIGH_LOAD_PER_CORE * cores:
        return None
    return f"load average is {load:.2f} on {cores} core{'' if cores == 1 else 's'}"


def _steal(facts: Mapping[str, Any]) -> str | None:
    fraction, since = _get(facts, "volatile", "steal_fraction"), "during the run"
    if fraction is None:
        fraction, since = _get(facts, "volatile", "steal_fraction_since_boot"), "since boot"
    if fraction is None or fraction <= HIGH_STEAL_FRACTION:
        return None
    return f"the hypervisor took {fraction:.1%} of the CPU time {since}"


def _virtualized(facts: Mapping[str, Any]) -> str | None:
    if not _get(facts, "virtualization", "hypervisor"):
        return None
    vendor = _get(facts, "virtualization", "hypervisor_vendor") or _get(facts, "virtualization", "dmi_vendor")
    return f"this host is itself a virtual machine{f' ({vendor})' if vendor else ''}: figures of VMs are weak"


def _low_memory(facts: Mapping[str, Any]) -> str | None:
    available = _get(facts, "volatile", "memory_available_bytes")
    if available is None or available >= LOW_MEMORY_BYTES:
        return None
    return f"only {available / (1 << 20):.0f} MiB of memory are available"


def _swap(facts: Mapping[str, Any]) -> str | None:
    used = _get(facts, "volatile", "swap_used_bytes")
    return f"{used / (1 << 20):.1f} MiB of swap are in use" if used else None


def _clocksource(facts: Mapping[str, Any]) -> str | None:
    source = _get(facts, "kernel", "clocksource")
    return f"clock source is {source}, not the CPU's own" if source and source not in STEADY_CLOCKSOURCES else None


def _cgroup_v1(facts: Mapping[str, Any]) -> str | None:
    version = _get(facts, "cgroup", "version")
    return f"cgroup {version}: limits and memory figures are those of v1" if version in ("v1", "hybrid") else None


def _when(group: str, key: str, bad: object, text: str) -> Callable[[Mapping[str, Any]], str | None]:
    return lambda facts: text if _get(facts, group, key) == bad else None


_CHECKS: Mapping[WarningCode, Callable[[Mapping[str, Any]], str | None]] = {
    WarningCode.GOVERNOR: _governor,
    WarningCode.FREQUENCY_SCALING: _scaling,
    WarningCode.TURBO: _when("cpu", "turbo_on", True, "turbo is on: the clock depends on heat and neighbours"),
    WarningCode.SMT: _when("cpu", "smt_active", True, "SMT is on: two threads share one core"),
    WarningCode.FEW_CORES: _few_cores,
    WarningCode.THROTTLED: _throttled,
    WarningCode.BATTERY: _when("volatile", "on_battery", True, "the machine runs on its battery"),
    WarningCode.LOAD: _load,
    WarningCode.STEAL: _steal,
    WarningCode.VIRTUALIZED: _virtualized,
    WarningCode.THP: _when("memory", "thp", "always", "transparent huge pages are always on: memory moves in 2 MiB"),
    WarningCode.KSM: _when("memory", "ksm_on", True, "KSM is merging pages: the memory of VMs is seen too small"),
    WarningCode.SWAP: _swap,
    WarningCode.LOW_MEMORY: _low_memory,
    WarningCode.CLOCKSOURCE: _clocksource,
    WarningCode.CGROUP_V1: _cgroup_v1,
}

_REMEDIES: Mapping[WarningCode, str] = {
    WarningCode.GOVERNOR: "sudo cpupower frequency-set -g performance",
    WarningCode.FREQUENCY_SCALING: "set lowest and highest to the same: sudo cpupower frequency-set -d FREQ -u FREQ",
    WarningCode.TURBO: "write 1 to /sys/devices/system/cpu/intel_pstate/no_turbo, or 0 to .../cpu/cpufreq/boost",
    WarningCode.SMT: "write off to /sys/devices/system/cpu/smt/control",
    WarningCode.FEW_CORES: "measure on a machine with more cores",
    WarningCode.THROTTLED: "cool the machine, or lower its highest frequency",
    WarningCode.BATTERY: "connect it to the mains",
    WarningCode.LOAD: "end what else is running, and wait",
    WarningCode.STEAL: "measure on dedicated CPUs",
    WarningCode.VIRTUALIZED: "measure VM targets on a physical machine",
    WarningCode.THP: "write madvise to /sys/kernel/mm/transparent_hugepage/enabled",
    WarningCode.KSM: "write 2 to /sys/kernel/mm/ksm/run",
    WarningCode.SWAP: "end what needs the memory, then sudo swapoff -a",
    WarningCode.LOW_MEMORY: "end what needs the memory",
    WarningCode.CLOCKSOURCE: "see /sys/devices/system/clocksource/clocksource0/available_clocksource",
    WarningCode.CGROUP_V1: "boot with systemd.unified_cgroup_hierarchy=1",
}
