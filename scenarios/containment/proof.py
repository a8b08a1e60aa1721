"""Before a trouble is made: the limit that holds it in, read back; words where there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lab.driver import Info, Instance
from lab.features import Feature, OnThisHost
from lab.host.limits import Held, Limit, held, unbearable_bytes
from lab.launch.session import Session
from lab.service.serving import machine, workload
from lab.units import MIB
from scenarios.containment.troubles import OF_A_GUEST, Trouble

OPEN_FILES = 256
_MOST = 4096  # MiB, and processes: lab/service/src/tasks/troubles.c
_MOST_SCRATCH_MIB = 1024
_LIMITS = {Trouble.MEMORY: Limit.MEMORY, Trouble.FORKS: Limit.PIDS, Trouble.CPU: Limit.CPUS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What holds a trouble in, in words, and how much of it is asked for: past that, where the limit is a count."""

    said: str
    amount: int | None = None


def impossible(trouble: Trouble, info: Info) -> str:
    """Why `trouble` cannot be made on such a target, before anything is launched for it; empty where it can."""
    if trouble in OF_A_GUEST and Feature.OWN_KERNEL not in info.features:
        what = "kernel" if trouble is Trouble.PANIC else "clock"
        return f"the {what} is the host's"
    return ""


def bound(trouble: Trouble, session: Session, info: Info) -> Bound | str:
    """What holds `trouble` within `session`'s instance. Raises DriverError where that cannot even be asked."""
    assert session.instance is not None  # noqa: S101  it was launched
    if trouble is Trouble.KILL:
        return Bound(said="none is needed: one process of the instance's own is killed")
    if trouble is Trouble.FILES:
        return Bound(said=f"{OPEN_FILES} open files, which the task set for itself and read back", amount=OPEN_FILES)
    if trouble is Trouble.DISK:
        most = max(session.spec.scratch_bytes, session.spec.memory_bytes)
        amount = min(_MOST_SCRATCH_MIB, math.ceil(most / MIB))
        if Feature.OWN_KERNEL not in info.features and (why := unbearable_bytes(amount * MIB)):
            return why  # a tmpfs is the host's memory, also where no limit on that is the instance's
        return Bound(said="the size of the tmpfs at /tmp, which the task read back", amount=amount)
    if Feature.OWN_KERNEL in info.features:
        return _of_machine(trouble, session, info)
    return _of_cgroup(_LIMITS[trouble], session.instance)


def _of_cgroup(limit: Limit, instance: Instance) -> Bound | str:
    pids = instance.host_pids() if isinstance(instance, OnThisHost) else {}
    found = held(limit, workload(pids), pids.keys())
    if isinstance(found, str):
        return found
    if limit is Limit.CPUS:
        return Bound(said=str(found))
    amount = 2 * _reachable(found)
    if amount > _MOST:
        return f"its limit of {found} is more than a task is let take"
    return Bound(said=str(found), amount=amount)


def _reachable(found: Held) -> int:
    """In MiB or processes."""
    return math.ceil((found.amount + found.swap_bytes) / MIB) if found.limit is Limit.MEMORY else int(found.amount)


def _of_machine(trouble: Trouble, session: Session, info: Info) -> Bound | str:
    found = machine(session)
    if isinstance(found, str):
        return found
    declared, said = found
    if trouble is Trouble.PANIC:
        policy = [word for word in str(info.facts.get("guest_command_line")).split() if word.startswith("panic=")]
        return Bound(said=f"{said} (booted with {policy[0]})") if policy else "its kernel was booted without panic="
    amounts = {Trouble.MEMORY: 2 * declared // MIB, Trouble.FORKS: min(_MOST, 4 * session.spec.pids)}
    amount = amounts.get(trouble)
    if amount is not None and amount > _MOST:
        return f"its machine's {declared // MIB} MiB are more than a task is let take"
    return Bound(said=said, amount=amount)
