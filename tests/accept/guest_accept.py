"""What a guest's kernel is spared: `ready` against the same guest with all of it, interleaved; and how soon it stops.

'As before' is the guest with its kernel's self-tests, with its locks taken out one by one and with half the room for
TCG's translations, which is what the driver gave before it spared them (docs/guests.md).
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from labside import Prepared, lab_side
from qemu_by_hand import cpu_s
from verdict import Goal, Verdict, report, say

import drivers.libvirt as libvirt_driver
from drivers.libvirt import domain
from lab.errors import DriverUnavailable
from lab.features import OnThisHost
from lab.launch.session import Session
from lab.timeline import Phase

ROUNDS = 10
MACHINES = ("microvm", "q35")
SPARED = ("cryptomgr.notests=", "initcall_blacklist=", "noreplace-smp", "tsc=reliable")
TB_CACHE_MIB = 32
STOP_TIMEOUT_S = 30.0
SPARING = Goal(text="at most 0.85", high=0.85)
LEAN = Goal(text="at most 0.65", high=0.65)
LESS = Goal(text="less than 1", high=1.0)
HALVED = Goal(text="at most 0.5", high=0.5)


@dataclass(slots=True)
class Times:
    """Seconds of each launch, in the order of the rounds."""

    ready: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    stop: list[float] = field(default_factory=list)
    gone: list[float] = field(default_factory=list)

    def add(self, prepared: Prepared) -> None:
        """Launch, stop and remove one. Raises LabError."""
        with prepared.launched() as session:
            self.ready.append(session.timeline.duration_s(Phase.REQUESTED, Phase.READY))
            self.cpu.append(_cpu_s(session))
            begun = time.monotonic()
            session.stop(timeout_s=STOP_TIMEOUT_S)
            self.stop.append(time.monotonic() - begun)
            session.delete()
            self.gone.append(time.monotonic() - begun)


def guest(rounds: int, chance: random.Random) -> list[Verdict]:
    """Measure and print. Raises LabError; DriverUnavailable where nothing is emulated."""
    with lab_side() as side:
        prepared = {name: side.prepare(f"libvirt:{name}") for name in (*MACHINES, "microvm-lean")}
        if any(one.info.qualifiers.get("accel") != "tcg" for one in prepared.values()):
            raise DriverUnavailable("guests run by KVM here, and the goals are those of emulated ones")
        ways = {(name, before) for name in prepared for before in (False, True) if name in MACHINES or not before}
        times = {way: Times() for way in sorted(ways)}
        for number in range(rounds + 1):
            order = list(times)
            chance.shuffle(order)
            for name, before in order:
                kept = times[name, before] if number else Times()  # the first round warms up
                with as_before() if before else contextlib.nullcontext():
                    kept.add(prepared[name])
    verdicts = []
    for name in MACHINES:
        verdicts.append(_ratio(f"libvirt:{name} / as before", times[name, False], times[name, True], SPARING))
    before, default, lean = times["microvm", True], times["microvm", False], times["microvm-lean", False]
    verdicts += [
        _ratio("libvirt:microvm-lean / libvirt:microvm as before", lean, before, LEAN),
        _ratio("libvirt:microvm-lean / libvirt:microvm", lean, default, LESS),
    ]
    for name in MACHINES:
        of = times[name, False]
        report(f"  for information: libvirt:{name}, stop", of.stop, "s")
        report(f"  for information: libvirt:{name}, until libvirt has let go of it", of.gone, "s")
        shares = [stop / gone for stop, gone in zip(of.stop, of.gone, strict=True)]
        verdicts.append(report(f"libvirt:{name}, stop / until libvirt has let go of it", shares, "", HALVED))
    return [verdict for verdict in verdicts if verdict]


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Launches of the libvirt driver within it spare their guests nothing."""
    asked, cache_mib = libvirt_driver.command_line, domain._TB_CACHE_MIB

    def unspared(*given: object, **how: object) -> str:
        words = asked(*given, **how).split()  # type: ignore[arg-type]
        return " ".join(word for word in words if not word.startswith(SPARED))

    libvirt_driver.command_line, domain._TB_CACHE_MIB = unspared, TB_CACHE_MIB
    try:
        yield
    finally:
        libvirt_driver.command_line, domain._TB_CACHE_MIB = asked, cache_mib


def _ratio(name: str, one: Times, other: Times, goal: Goal) -> Verdict | None:
    for what, of, over in (("ready", one.ready, other.ready), ("QEMU's CPU time until then", one.cpu, other.cpu)):
        ratios = [a / b for a, b in zip(of, over, strict=True)]
        if what == "ready":
            say(f"  {name}:")
            report("  ready of the first", of, "s")
            report("  ready of the second", over, "s")
            verdict = report("  ready, ratio within each round", ratios, "", goal)
        else:
            report(f"  for information: {what}, ratio", ratios, "")
    return verdict


def _cpu_s(session: Session) -> float:
    instance = session.instance
    assert isinstance(instance, OnThisHost)
    return sum(cpu_s(pid) for pid in instance.host_pids() if Path(f"/proc/{pid}").exists())
