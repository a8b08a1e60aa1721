"""What serves in an instance, as its host can prove it: which processes, and whether in a machine of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lab.driver import Instance
from lab.errors import DriverError, MeasurementError
from lab.features import HasGuestMemory, OnThisHost, Role
from lab.host.facts import boot_id
from lab.host.limits import unbearable_bytes
from lab.host.procs import Process
from lab.launch.session import Session
from lab.service import ask
from lab.timeline import HostClock, Phase
from lab.units import MIB


def main_process(session: Session, clock: HostClock) -> Process:
    """The process whose end is the end of the service. Raises DriverError where there is none, MeasurementError where
    what the engine names is older than the launch, and so not its own."""
    instance = session.instance
    pids = instance.host_pids() if instance is not None and isinstance(instance, OnThisHost) else {}
    role = Role.VMM if Role.VMM in pids.values() else Role.SERVICE
    found = min(
        (one for pid, has in pids.items() if has is role and (one := Process.of(pid)) is not None), default=None
    )
    if found is None:
        raise DriverError("the engine names no process of this host that serves")
    slept_ns = clock.boottime_ns() - clock.now_ns()
    requested_ticks = (session.timeline.mark(Phase.REQUESTED).ns + slept_ns) * os.sysconf("SC_CLK_TCK") // 1_000_000_000
    if found.started_ticks < requested_ticks - 1:
        raise MeasurementError(f"process {found.pid} is older than this launch: it is not killed")
    return found


def workload(pids: Mapping[int, Role]) -> list[int]:
    """The processes of an instance that the workload runs in: its own, or where it has none on this host its VMM."""
    for role in (Role.SERVICE, Role.VMM):
        if found := [pid for pid, has in pids.items() if has is role]:
            return found
    return []


def machine(session: Session) -> tuple[int, str] | str:
    """A guest's bound is its machine: another kernel, in a VMM's process that has only so much memory to give; that in
    bytes, and the machine in words. Words alone where it is not proven. Raises DriverError."""
    if not isinstance(session.instance, HasGuestMemory):
        return "the engine does not tell what the guest's machine was given"
    declared, told = session.instance.guest_memory().declared_bytes, ask.facts(session)
    if why := _no_machine(session.instance, declared, told) or unbearable_bytes(declared):
        return why
    cpus = int(told.get("cpus_online") or 0)
    said = f"a machine with {declared // MIB} MiB and {cpus} CPU{'s' if cpus != 1 else ''}, and a kernel of its own"
    return declared, said


def _no_machine(instance: Instance, declared: int, told: Mapping[str, Any]) -> str:
    """Why `told`, the service's facts, do not prove a machine of its own with `declared` bytes; empty where they do."""
    if told.get("boot_id") in (boot_id(), "", None):
        return "it tells the host's boot id, and so has no kernel of its own"
    if not isinstance(instance, OnThisHost) or Role.VMM not in instance.host_pids().values():
        return "no VMM's process is seen on this host"
    inside = ask.believed_bytes(told).get("total")
    if inside is None or inside > declared:
        return f"its kernel believes to have more memory than the {declared // MIB} MiB of its machine"
    return ""
