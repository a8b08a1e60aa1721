"""What became of the instance, in words, and by whom: from the task's own state, counters, console and who answers."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lab.service.task import TaskState
from lab.units import MIB
from scenarios.containment.troubles import TASKS, Trouble

_THINGS = {Trouble.FORKS: "processes", Trouble.FILES: "open files"}


class Survival(StrEnum):
    """Who answers after a trouble."""

    SERVES = "the service goes on"
    RESTARTED = "its engine started the service again"
    REBOOTED = "it was rebooted"
    SILENT = "the service does not answer"
    GONE = "it is gone, and was not started again meanwhile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was looked at after a trouble. `state` is None where the service cannot tell any more; `risen` are the
    kernel's counters of the instance's cgroups, `console` what a guest's console told; `own_kernel`: it is a guest."""

    survival: Survival
    state: TaskState | None = None
    risen: Mapping[str, int]
    console: Sequence[str] = ()
    own_kernel: bool = False
    killed_from_outside: bool = False

    @property
    def killed_after_s(self) -> float | None:
        """How long the task lived, by the service's clock, where something else than its own deadline ended it."""
        state = self.state
        if state is None or state.signal == signal.SIGALRM or state.ended_ns is None:
            return None
        return (state.ended_ns - state.started_ns) / 1e9


def happened(trouble: Trouble, seen: Observed) -> str:
    """What happened to the instance."""
    if trouble is Trouble.PANIC:
        panicked = any("panic" in line for line in seen.console)
        return f"{'its kernel panicked' if panicked else 'no panic was seen'}: {seen.survival}"
    if trouble not in TASKS:
        return f"killed: {seen.survival}"
    if seen.state is None:
        return f"not told by the service any more: {seen.survival}"
    return f"{_task(trouble, seen, seen.state)}; {seen.survival}"


def by_whom(trouble: Trouble, seen: Observed) -> str:
    """Who stopped the trouble, and what tells so."""
    if trouble is Trouble.KILL:
        return "SIGKILL from the host" if seen.killed_from_outside else "SIGKILL from within"
    if trouble is Trouble.PANIC or (seen.own_kernel and trouble is Trouble.MEMORY):
        return _console(seen)
    if trouble is Trouble.CPU and seen.own_kernel and not seen.risen.get("nr_throttled"):
        return "nobody: it had its machine's virtual CPUs, and no more"
    for counter, where in _COUNTERS.get(trouble, {}).items():
        if seen.risen.get(counter):
            return f"the host's kernel, {where}"
    if seen.state is not None and seen.state.refused:
        return "its own kernel, which refused it" if seen.own_kernel else "the host's kernel, which refused it"
    return "nobody, as far as the kernel's counters tell"


_COUNTERS = {
    Trouble.MEMORY: {"oom_kill": "at the limit of its cgroup (oom_kill)"},
    Trouble.FORKS: {"max": "at the limit of its cgroup (pids.events)"},
    Trouble.CPU: {"nr_throttled": "by the quota of its cgroup (cpu.stat: nr_throttled)"},
}


def _task(trouble: Trouble, seen: Observed, state: TaskState) -> str:
    if state.signal == signal.SIGKILL:
        return "its process was killed"
    if state.signal != signal.SIGALRM:  # which its own deadline sends
        how = f"with status {state.exit_code}" if state.signal is None else f"by signal {state.signal}"
        return f"its process ended {how}, and not at its limit nor its deadline"
    if trouble is Trouble.CPU:
        return "throttled" if seen.risen.get("nr_throttled") else "ran until its deadline"
    amount = f"{state.made} {_THINGS[trouble]}" if trouble in _THINGS else f"{state.bytes // MIB} MiB"
    if state.refused:
        return f"limited at {amount} ({errno.errorcode.get(state.errno, str(state.errno))})"
    return f"not stopped: {amount}, {'all that it was to take' if _all_taken(trouble, state) else 'until its deadline'}"


def _all_taken(trouble: Trouble, state: TaskState) -> bool:
    return state.made >= state.amount if trouble in _THINGS else state.bytes >= state.amount * MIB


def _console(seen: Observed) -> str:
    lines = [line for line in seen.console if not line.startswith("lab-guest ")]
    told = "; ".join(dict.fromkeys(re.sub(r"\bprocess \d+ ", "process ", line) for line in lines))
    return f"the guest's own kernel, on its console: {told}" if told else "nothing that the guest's console told"
