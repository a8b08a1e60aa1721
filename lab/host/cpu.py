"""CPU time that processes of this host took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

from lab.host.procs import Process, present


def cpus_used(pids: Iterable[int], seconds: float) -> float:
    """CPU time that the processes took in the next `seconds`, over that time; 1 is one CPU. It sleeps meanwhile, and
    of what ends meanwhile nothing is counted."""
    before = {process: cpu_ns(process) for process in present(dict.fromkeys(pids))}
    begun = time.monotonic_ns()
    time.sleep(seconds)
    after = {process: cpu_ns(process) for process in before}
    passed = time.monotonic_ns() - begun
    taken = [now - then for process, then in before.items() if then is not None and (now := after[process]) is not None]
    return sum(taken) / passed


def cpu_ns(process: Process) -> int | None:
    """CPU time of all its threads so far, those that ended included; None when it is gone.

    Source: the process's own clock, as clock_getcpuclockid(3) makes its number (CPUCLOCK_SCHED).
    """
    with contextlib.suppress(OSError):
        taken = time.clock_gettime_ns((~process.pid << 3) | 2)
        return taken if process.alive() else None
    return None
