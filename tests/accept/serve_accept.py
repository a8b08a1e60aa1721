"""What the live page costs what is measured: the same run by itself, started by the page, and started by the page with
a browser on this machine that shows it, in turns and in a random order; and the server's own CPU meanwhile.

The browser paints a wall's size by the CPU, which is the most that a viewer can cost: others have a graphics card, and
a viewer on another machine costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from verdict import UNDER_2_PERCENT, Goal, Verdict, report, say

from lab.errors import LabError
from lab.store.database import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from browser import browser, program
from page_server import PageServer, page_server

PAIRS = 12
TARGETS, ROUNDS = ("process", "docker"), 10
WITHIN_2_PERCENT = Goal(text="0.98 to 1.02", low=0.98, high=1.02)

# The machine is this program's own (`host_lock` in run.py); the runs that it starts hold a lock of theirs below it.
_OWN_LOCK = """
from pathlib import Path
from lab.run.lock import host_lock
host_lock.__wrapped__.__kwdefaults__["directories"] = (Path({folder!r}),)
"""
_LOOK_EVERY_S = 0.5
_LONGEST_S = 900.0

Medians = Mapping[str, float]


def serve(pairs: int, chance: random.Random) -> list[Verdict]:
    """Measure and print. Raises LabError."""
    found: dict[str, list[Medians]] = {}
    shares: dict[str, list[float]] = {}
    browsers: list[float] = []
    with tempfile.TemporaryDirectory(prefix="lab-accept-") as folder:
        environment = _environment(Path(folder))
        with page_server(environment) as server, _viewer(server, browsers) as viewed:
            ways: dict[str, Callable[[], Medians]] = {
                "plain": lambda: _plain(environment),
                "served": lambda: _served(environment, server, shares.setdefault("served", [])),
            }
            if viewed is not None:
                ways["watched"] = lambda: viewed(lambda: _served(environment, server, shares.setdefault("watched", [])))
            for number in range(pairs + 1):
                for way in chance.sample(list(ways), len(ways)):
                    medians = ways[way]()
                    if number:  # the first warms up
                        found.setdefault(way, []).append(medians)
    verdicts = []
    for way, values in shares.items():
        verdicts.append(report(f"the server's CPU while a run measures, {way}", values[1:], "%", UNDER_2_PERCENT))
    report("the browser's own CPU while it shows the run", browsers[1:], "%")
    for over, under in (("served", "plain"), ("watched", "served"), ("watched", "plain")):
        for target in TARGETS if over in found else ():
            pairs_of = zip(found[over], found[under], strict=True)
            ratios = [a[target] / b[target] for a, b in pairs_of if target in a and target in b]
            verdicts.append(report(f"{target}: boot_s {over} over {under}", ratios, "", WITHIN_2_PERCENT))
    if "watched" not in found:
        say("  watched: not run: no Chromium is here")
        verdicts.append(Verdict.NOT_RUN)
    return [verdict for verdict in verdicts if verdict is not None]


def _environment(folder: Path) -> dict[str, str]:
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_OWN_LOCK.format(folder=str(folder)))
    return {"PYTHONPATH": str(site), "LAB_STORE": str(folder / "lab.db")}


@contextlib.contextmanager
def _viewer(server: PageServer, browsers: list[float]) -> Iterator[Callable[[Callable[[], Medians]], Medians] | None]:
    """What has a browser show the page while something is measured, and how much of a CPU it took meanwhile, in per
    cent; None where there is none."""
    path = program()
    if path is None:
        yield None
        return

    def watched(measure: Callable[[], Medians]) -> Medians:
        with browser(path) as chromium, chromium.tab() as tab:
            tab.look(1920, 1080)
            tab.open(server.address)
            tab.wait("!document.querySelector('#status').textContent.startsWith('Connecting')")
            time.sleep(2)  # it has begun, and is as calm as it gets
            begun, before_s = time.monotonic(), chromium.cpu_s()
            medians = measure()
            browsers.append(100 * (chromium.cpu_s() - before_s) / (time.monotonic() - begun))
            tab.wait("document.querySelector('#status').textContent.startsWith('The run is over')")
            return medians

    yield watched


def _plain(environment: Mapping[str, str]) -> Medians:
    command = [sys.executable, "-P", "-m", "lab", "run", "boot", "-t", ",".join(TARGETS), "--rounds", str(ROUNDS)]
    ran = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=_LONGEST_S, check=False
    )
    if ran.returncode not in (0, 1):
        raise LabError("a run failed", details=ran.stderr)
    return _medians(environment, "last")


def _served(environment: Mapping[str, str], server: PageServer, shares: list[float]) -> Medians:
    """The run by the page; how much of a CPU the server took meanwhile goes to `shares`, in per cent."""
    process = psutil.Process(server.process.pid)
    with server.client() as client:
        told = client.post("plan", json={"scenario": "boot", "targets": list(TARGETS), "rounds": ROUNDS}).json()
        begun, before = time.monotonic(), process.cpu_times()
        client.post("start", json={"id": told["id"]}).raise_for_status()
    _await_end(process)
    took_s, after = time.monotonic() - begun, process.cpu_times()
    shares.append(100 * (after.user + after.system - before.user - before.system) / took_s)
    return _medians(environment, str(_state(server)["run"]))


def _await_end(process: psutil.Process) -> None:
    """Without asking the server, which would cost it something."""
    until = time.monotonic() + _LONGEST_S
    while any("--events" in one.cmdline() for one in process.children() if one.status() != psutil.STATUS_ZOMBIE):
        if time.monotonic() > until:
            raise LabError(f"the page's run did not end within {_LONGEST_S:.0f} s")
        time.sleep(_LOOK_EVERY_S)


def _state(server: PageServer) -> dict[str, Any]:
    with server.client() as client, client.stream("GET", "events") as told:
        for line in told.iter_lines():
            if line.startswith("data: "):
                return dict(json.loads(line.removeprefix("data: ")))
    raise LabError("the page told nothing of its run")


def _medians(environment: Mapping[str, str], run: str) -> Medians:
    """The medians of boot_s by target."""
    values: dict[str, list[float]] = {}
    with Store.open(environment["LAB_STORE"]) as store:
        for sample in store.load(run).samples:
            if sample.metric == "boot_s" and not sample.warmup:
                values.setdefault(sample.target, []).append(sample.value)
    return {target: statistics.median(one) for target, one in values.items()}
