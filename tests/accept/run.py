"""Checks the lab's figures against separate programs and made-up data; prints each with n, interval and verdict.

    python tests/accept/run.py [--only PART,PART] [--pairs N] [--seed N] [--full] [--earlier LAB]

The parts: waiting, readiness, docker, qemu, guest, overhead, memory, neighbour, hostkernel, functions, talk,
serve, trees, figures, class, nights, alarms.

It takes some twenty minutes (with --full, the whole grid of `readiness`, hours), of an otherwise quiet machine if the
figures are to mean anything. A part whose engine is missing says so and is not run. Exit code 1 where a goal was missed
or a part failed, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from class_accept import TURNS as CLASS_TURNS
from class_accept import class_page
from docker_pairs import docker_pairs
from figures_accept import figures
from functions_accept import PAIRS as FUNCTION_PAIRS
from functions_accept import functions
from guest_accept import ROUNDS as GUEST_ROUNDS
from guest_accept import guest
from hostkernel_accept import ROUNDS as HOSTKERNEL_ROUNDS
from hostkernel_accept import hostkernel
from memory_accept import PAIRS as MEMORY_PAIRS
from memory_accept import memory
from neighbour_accept import ROUNDS as NEIGHBOUR_ROUNDS
from neighbour_accept import neighbour
from nights_accept import YEARS, nights
from overhead_accept import overhead
from programs import ProgramFailed
from qemu_pairs import qemu_pairs
from readiness import FULL_GRID, GRID, readiness
from readiness import PAIRS as READINESS_PAIRS
from serve_accept import PAIRS as SERVE_PAIRS
from serve_accept import serve
from talk_accept import ROUNDS as TALK_ROUNDS
from talk_accept import talk
from trees import IMAGES, trees
from verdict import Verdict, say
from waiting import waiting

from lab.errors import BadInput, DriverUnavailable, LabError, Unsupported
from lab.run.lock import host_lock

ROUNDS = 40
DOCKER_PAIRS = 30
QEMU_PAIRS = 12
OVERHEAD_ROUNDS = 20
ALARMS_TIMEOUT_S = 900.0

TITLES = {
    "waiting": "What the lab's waiting adds (process and docker)",
    "readiness": "`ready` against one patient client, for answers that take time or CPU",
    "docker": "Docker by the lab against a separate program (raw HTTP, a request every 2 ms)",
    "qemu": "libvirt against QEMU by hand",
    "guest": "Guests that are spared self-tests, and lean ones, against guests as they were; and how soon they stop",
    "overhead": "System calls and CPU work by the service against a plain C loop in the same target",
    "memory": "Memory: smem beside the lab, 20 MiB more in a real service, alarms of made-up runs",
    "neighbour": "A busy neighbour on the same CPU, and none",
    "hostkernel": "The host's kernel: the same functions by each repeat, and every call of a known mix",
    "functions": "A function's cold and warm calls against a separate program (plain HTTP, the docker command)",
    "talk": "Calls between instances against wrk and sockperf, over the same paths",
    "serve": "The live page: the same run without it, by it, and with a browser that watches; the server's CPU",
    "figures": "Figures from many values: time and memory against pyperf, and against an earlier lab (--earlier)",
    "class": "The page of a class of 200, from files and from a store",
    "nights": "The verdict of nights: five made-up years, steps that are sought, this machine's own launches again",
    "trees": "Images made to break out of their tree, and what lies outside of it",
    "alarms": "False and true alarms of `compare` (seeded, made-up runs)",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TITLES), help="parts, by comma")
    parser.add_argument("--pairs", type=int, help="rounds, pairs or images of each part")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="of every order")
    parser.add_argument("--earlier", type=Path, help="another build's command `lab`, for the part figures")
    parser.add_argument("--full", action="store_true", help="the whole grid of `readiness`")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(TITLES):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are: {', '.join(TITLES)}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # what was made is removed
    chance = random.Random(options.seed)
    verdicts = {Verdict.MET: 0, Verdict.MISSED: 0, Verdict.INCONCLUSIVE: 0, Verdict.NOT_RUN: 0}
    say(f"seed {options.seed}; load {', '.join(f'{one:.2f}' for one in os.getloadavg())} on {os.cpu_count()} CPUs")
    measured: dict[str, Callable[[], list[Verdict]]] = {
        "waiting": lambda: waiting(options.pairs or ROUNDS, chance),
        "readiness": lambda: readiness(options.pairs or READINESS_PAIRS, chance, FULL_GRID if options.full else GRID),
        "docker": lambda: docker_pairs(options.pairs or DOCKER_PAIRS, chance),
        "qemu": lambda: qemu_pairs(options.pairs or QEMU_PAIRS, chance),
        "guest": lambda: guest(options.pairs or GUEST_ROUNDS, chance),
        "overhead": lambda: overhead(options.pairs or OVERHEAD_ROUNDS, chance),
        "memory": lambda: memory(options.pairs or MEMORY_PAIRS, chance),
        "neighbour": lambda: neighbour(options.pairs or NEIGHBOUR_ROUNDS),
        "hostkernel": lambda: hostkernel(options.pairs or HOSTKERNEL_ROUNDS),
        "functions": lambda: functions(options.pairs or FUNCTION_PAIRS, chance),
        "talk": lambda: talk(options.pairs or TALK_ROUNDS, chance),
        "serve": lambda: serve(options.pairs or SERVE_PAIRS, chance),
        "figures": lambda: figures(options.earlier),
        "class": lambda: class_page(options.pairs or CLASS_TURNS, options.seed),
        "nights": lambda: nights(options.pairs or YEARS),
        "trees": lambda: trees(options.pairs or IMAGES),
        "alarms": _alarms,
    }
    try:
        with host_lock("accept", wait=True, on_wait=lambda holder: say(f"waiting: {holder}")):
            for part in [part for part in TITLES if part in parts]:
                say(f"\n{TITLES[part]}")
                begun = time.monotonic()
                for verdict in _attempt(measured[part]):
                    verdicts[verdict] += 1
                say(f"  ({time.monotonic() - begun:.0f} s)")
    except KeyboardInterrupt:
        say("interrupted; what was made has been removed")
        return 130
    say("\n" + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    return 1 if verdicts[Verdict.MISSED] else 0


def _attempt(part: Callable[[], list[Verdict]]) -> list[Verdict]:
    """A part's verdicts; a missing engine is `not run`, any other failure counts as missed."""
    try:
        return part()
    except (DriverUnavailable, Unsupported, BadInput) as error:
        say(f"  not run: {error}")
        return [Verdict.NOT_RUN]
    except (LabError, ProgramFailed, OSError) as error:
        details = error.details if isinstance(error, LabError) else ""
        say(f"  failed: {error}{details and chr(10) + details} -> missed")
        return [Verdict.MISSED]


def _alarms() -> list[Verdict]:
    """The other program prints its own lines and verdicts."""
    program = Path(__file__).with_name("alarms.py")
    try:
        code = subprocess.run([sys.executable, str(program)], timeout=ALARMS_TIMEOUT_S, check=False).returncode
    except subprocess.TimeoutExpired:
        say(f"  it did not end within {ALARMS_TIMEOUT_S:g} s -> not run")
        return [Verdict.NOT_RUN]
    return [Verdict.MISSED if code else Verdict.MET]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
