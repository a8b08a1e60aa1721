"""An instance asleep: what its host's kernel shows of its processes, for drivers and whoever checks them.

Asleep is proven, not assumed (docs/method.md, rule 23): processes are stopped by a signal, frozen by their cgroup's
freezer, or gone. A virtual machine's process runs on while its CPUs are held still: the threads that they are do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lab.errors import DriverError, Unsupported
from lab.features import SleepState
from lab.host.procfs import read_text
from lab.host.procs import Process, held_still

GONE = "gone"
_VIRTUAL_CPU = "CPU "
_LOOK_S = 0.002


def require_offered(states: Mapping[SleepState, str], state: SleepState) -> None:
    """Raise Unsupported, with the reason, for a state that `Sleeps.sleep_states` does not offer."""
    if state not in states:
        raise Unsupported(f"it knows no state '{state}'", resolution=f"choose one of {', '.join(states) or 'none'}")
    if states[state]:
        raise Unsupported(f"it cannot be {state} here: {states[state]}")


def how_asleep(pids: Iterable[int]) -> str:
    """What keeps all of `pids` from running: `stopped`, `frozen` (both, with a comma between, where they differ) or
    `gone`, where none is left; empty where one of them runs."""
    living = [pid for pid in pids if Process.of(pid) is not None]
    if not living:
        return GONE
    told = {held_still(pid) for pid in living}
    return "" if "" in told else ", ".join(sorted(told))


def virtual_cpus_ran_ns(pids: Iterable[int]) -> int | None:
    """For how long the virtual CPUs of the VMMs `pids` have run on this host's so far: QEMU's threads `CPU 0/KVM` and
    the like, where it names them (-name debug-threads=on, as libvirt does). None where there is no such thread, or this
    kernel does not tell (proc_pid_schedstat of its documentation, sched-stats.rst)."""
    ran = [
        int(told.split()[0])
        for pid in pids
        for task in Path(f"/proc/{pid}/task").glob("*")
        if (read_text(task / "comm") or "").startswith(_VIRTUAL_CPU) and (told := read_text(task / "schedstat"))
    ]
    return sum(ran) if ran else None


def await_asleep(look: Callable[[], Iterable[int]], *, timeout_s: float) -> None:
    """Return when none of the processes that `look` names runs. Raises DriverError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not how_asleep(pids := list(look())):
        if time.monotonic() > deadline:
            awake = ", ".join(str(pid) for pid in pids if Process.of(pid) is not None and not held_still(pid))
            raise DriverError(f"it is not asleep after {timeout_s:g} s: processes {awake} of it run")
        time.sleep(_LOOK_S)
