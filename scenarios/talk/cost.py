"""CPU time that calls take on this host: on both sides, in what helps them, and in the engines' daemons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lab.features import EngineOnThisHost, OnThisHost, Role
from lab.host.cpu import cpu_ns
from lab.host.procs import Process, present, table
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service.calls import Calls

CALLER, CALLEE, HELPERS, ENGINE = "caller", "callee", "helpers", "engine"
_SIDE = (Role.SERVICE, Role.VMM)
_VHOST = "vhost-"
"""The kernel's threads that carry a guest's packets are called by this and their QEMU's pid (drivers/vhost/vhost.c)."""


class Meter:
    """Reads once when made; `taken` reads again."""

    def __init__(self, bench: Bench, caller: Session, other: Bench, callee: Session) -> None:
        self._guest = False
        self._groups: dict[str, set[Process]] = {}
        for side, session in ((CALLER, caller), (CALLEE, callee)):
            if isinstance(session.instance, OnThisHost):
                roles = session.instance.host_pids()
                self._groups[side] = _processes(pid for pid, role in roles.items() if role in _SIDE)
                helpers = [pid for pid, role in roles.items() if role not in _SIDE]
                self._groups.setdefault(HELPERS, set()).update(_processes([*helpers, *_vhost(roles)]))
                self._guest |= side == CALLER and Role.VMM in roles.values()
        engines = [one.driver for one in (bench, other) if isinstance(one.driver, EngineOnThisHost)]
        if daemons := {pid for driver in engines for pid in driver.engine_pids()}:
            self._groups[ENGINE] = _processes(daemons)
        self._before = self._read()

    def taken(self, found: Calls) -> Mapping[str, float]:
        """CPU seconds by side, for each 1,000 calls that were served; what this host cannot tell is absent."""
        served = len(found.latencies_s) - found.unserved
        if not served:
            return {}
        after = self._read()
        taken = {side: sum(after[side].values()) - sum(self._before[side].values()) for side in after}
        # The caller's client is a process of its own that has ended; of a guest's, QEMU's time has it.
        if CALLER in taken and not self._guest:
            taken[CALLER] += round(found.cpu_s * 1e9)
        return {side: ns / 1e9 / served * 1000 for side, ns in taken.items() if ns >= 0}

    def _read(self) -> dict[str, dict[Process, int]]:
        return {
            side: {one: ns for one in processes if (ns := cpu_ns(one)) is not None}
            for side, processes in self._groups.items()
        }


def _processes(pids: Iterable[int]) -> set[Process]:
    return set(present(dict.fromkeys(pids)))


def _vhost(roles: Mapping[int, Role]) -> list[int]:
    names = {f"{_VHOST}{pid}" for pid, role in roles.items() if role is Role.VMM}
    return [pid for pid, entry in table().items() if entry.name in names] if names else []
