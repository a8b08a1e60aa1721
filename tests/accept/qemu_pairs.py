"""A guest by libvirt against the same QEMU started by hand: paired, interleaved, each pair in a random order.

Both are timed from the guest's first chance to run: libvirt from its own `resumed` event, QEMU from QMP's `cont`.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from labside import lab_side
from programs import run_program
from qemu_by_hand import cpu_s
from verdict import SAME, Verdict, report, say

from lab.errors import LaunchError
from lab.features import OnThisHost, Role
from lab.launch.session import Session
from lab.launch.waiter import reserve_port
from lab.spec import new_nonce
from lab.timeline import Phase, Source

TARGET = "libvirt:q35"
PROGRAM_TIMEOUT_S = 120.0


def qemu_pairs(pairs: int, chance: random.Random) -> list[Verdict]:
    """Measure and print. Raises LabError, ProgramFailed."""
    times: dict[str, list[float]] = {"lab": [], "hand": []}
    launch: list[float] = []
    cpu: dict[str, list[float]] = {"lab": [], "hand": []}
    with lab_side() as side:
        prepared = side.prepare(TARGET)
        with prepared.launched() as first:  # it warms up, and tells QEMU's arguments
            argv = _arguments(first)
            nonce = first.spec.nonce

        def by_lab() -> float:
            with prepared.launched() as session:
                cpu["lab"].append(cpu_s(_pid(session)))
                resumed = _resumed_ns(session)
                requested = session.timeline.mark(Phase.REQUESTED).ns
                launch.append((resumed - requested) / 1e9)
                return (session.timeline.mark(Phase.READY).ns - resumed) / 1e9

        def by_hand(number: int) -> float:
            folder = side.context.run_dir / f"hand-{number}"
            folder.mkdir(mode=0o700)
            port, fresh = reserve_port(), new_nonce()
            monitor, console = folder / "monitor", folder / "console"
            given = {
                "argv": adapted(argv, port=port, nonces=(nonce, fresh), monitor=monitor, console=console),
                "monitor": str(monitor),
                "console": str(console),
                "port": port,
                "nonce": fresh,
            }
            found = run_program("qemu_by_hand.py", given, timeout_s=PROGRAM_TIMEOUT_S)
            cpu["hand"].append(float(found["cpu_s"]))
            return float(found["boot_s"])

        by_hand(0)
        for pair in range(1, pairs + 1):
            order = ["lab", "hand"]
            chance.shuffle(order)
            for way in order:
                times[way].append(by_lab() if way == "lab" else by_hand(pair))
    say(f"  {TARGET}, accel {prepared.info.qualifiers.get('accel')}")
    report("by libvirt, `resumed` event to ready", times["lab"], "s")
    report("by hand, QMP `cont` to first 200", times["hand"], "s")
    ratios = [lab / hand for lab, hand in zip(times["lab"], times["hand"], strict=True)]
    verdict = report("libvirt / by hand, ratio within each pair", ratios, "", SAME)
    report("  for information: QEMU's CPU time until then, by libvirt", cpu["lab"], "s")
    report("  for information: QEMU's CPU time until then, by hand", cpu["hand"][1:], "s")
    report("  for information: libvirt's own part, requested to `resumed`", launch, "s")
    return [verdict] if verdict else []


def _resumed_ns(session: Session) -> int:
    """When libvirt's event arrived. Raises LaunchError where none did."""
    for mark in session.timeline:
        if mark.phase is Phase.STARTED and mark.source is Source.EVENT:
            return mark.ns
    raise LaunchError("libvirt sent no event of the domain's start")


def _arguments(session: Session) -> list[str]:
    """The command line of the QEMU that libvirt started. Raises LaunchError."""
    return Path(f"/proc/{_pid(session)}/cmdline").read_text().rstrip("\0").split("\0")


def _pid(session: Session) -> int:
    """QEMU's process. Raises LaunchError where it is not to be seen."""
    instance = session.instance
    assert isinstance(instance, OnThisHost)
    pids = [pid for pid, role in instance.host_pids().items() if role is Role.VMM]
    if not pids:
        raise LaunchError("QEMU's process is not to be seen")
    return pids[0]


def adapted(argv: list[str], *, port: int, nonces: tuple[str, str], monitor: Path, console: Path) -> list[str]:
    """QEMU's arguments as libvirt gave them, but for what is libvirt's or the launch's own: the secret that only
    libvirt reads, the monitor's descriptor, the console, the port, the nonce, and the names."""
    found: list[str] = []
    words = iter(argv)
    for word in words:
        if word not in ("-object", "-name", "-uuid", "-chardev", "-netdev", "-append"):
            found.append(word)
            continue
        value = next(words)
        if word in ("-name", "-uuid") or "masterKey" in value:
            continue
        if word == "-chardev":
            value = re.sub(r"(id=charmonitor),fd=\d+", rf"\1,path={monitor}", value)
            value = re.sub(r"(id=charserial0),path=[^,]+", rf"\1,path={console}", value)
        value = re.sub(r"(hostfwd=tcp:127\.0\.0\.1):\d+-", rf"\1:{port}-", value)
        found += [word, value.replace(*nonces)]
    return found
