"""Whether this machine is calm enough to measure on, looked at over a window, and waited for (docs/method.md, rule 20).

What a night is spoilt by passes: another's load, a hypervisor that takes the CPUs away, memory that runs out. What
does not pass, such as a governor, is a condition of every night alike and no reason to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.host.facts import host_facts
from lab.host.noise import HIGH_LOAD_PER_CORE, HIGH_STEAL_FRACTION, WarningCode, host_warnings
from lab.host.strain import Gauge, Strain
from lab.units import duration

HIGH_PRESSURE = 0.1
"""For such a share of the window something may have waited for a resource."""
LOOK_EVERY_S = 30.0

_RESOURCES = {"cpu": "a CPU", "memory": "memory", "io": "a disk"}
_PASSING = frozenset({WarningCode.LOW_MEMORY, WarningCode.BATTERY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is too noisy: `load_per_core` of the last minute, and over the window the share of the CPUs' time that the
    hypervisor took (`steal`) and of the window's in which something waited for CPU, memory or disk (`pressure`)."""

    load_per_core: float = HIGH_LOAD_PER_CORE
    steal: float = HIGH_STEAL_FRACTION
    pressure: float = HIGH_PRESSURE


def look(limits: Limits, *, window_s: float, sleep: Callable[[float], None] = time.sleep) -> list[str]:
    """What is too noisy here, each in a line; nothing where the machine is calm, or the kernel does not tell."""
    gauge = Gauge.of(None)
    before = gauge.read()
    sleep(window_s)
    return noise(limits, gauge.read().since(before), host_facts())


def noise(limits: Limits, strain: Strain, facts: Mapping[str, Any]) -> list[str]:
    """The same of what was seen over the window, and of the host's facts after it."""
    found = [
        f"something waited for {_RESOURCES[name]} for {share:.0%} of the time (limit {limits.pressure:.0%})"
        for name, share in strain.waited.items()
        if min(share, 1.0) > limits.pressure  # the two clocks of it differ a little
    ]
    if strain.stolen is not None and strain.stolen > limits.steal:
        found.append(f"the hypervisor took {strain.stolen:.1%} of the CPU time (limit {limits.steal:.1%})")
    load = (facts.get("volatile") or {}).get("load_average_1min")
    cpu = facts.get("cpu") or {}
    cores = cpu.get("cores_online") or cpu.get("threads_online")
    if load is not None and cores and load > limits.load_per_core * cores:
        found.append(f"load average is {load:.2f} on {cores} cores (limit {limits.load_per_core * cores:g})")
    return found + [warning.text for warning in host_warnings(facts) if warning.code in _PASSING]


def await_calm(
    look_now: Callable[[], Sequence[str]],
    *,
    wait_s: float,
    every_s: float = LOOK_EVERY_S,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Return nothing once `look_now` finds nothing, or after `wait_s` what it found last; `say` is told of waits."""
    began = now()
    while True:
        found = list(look_now())
        left_s = wait_s - (now() - began)
        if not found or left_s <= 0:
            return found
        say(f"too noisy to measure: {'; '.join(found)}; looking again for {duration(left_s)}")
        sleep(min(every_s, left_s))
