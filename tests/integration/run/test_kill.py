"""`kill -9` of `lab run` at twenty instants, and `lab clean`: nothing is left, and nothing announced is lost."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.store.database import Store

pytestmark = [pytest.mark.engine("process"), pytest.mark.engine("docker"), pytest.mark.engine("libvirt")]

TARGETS = ("process", "docker", "libvirt:microvm")
PHASES = ("prepare", "launch", "measure", "delete")
LEAST_IN_EACH = 3
BETWEEN_CLEANS = 4
"""Runs that died since the last clean, of each target at least one: it clears up after all of them at once."""
LAUNCH_S = {"process": 0.01, "docker": 0.25, "libvirt:microvm": 1.5}
OF_A_LAUNCH = {"prepare": 0.2, "launch": 1.0, "measure": 0.0, "delete": 0.4}
"""About as long as a phase lasts, as a share of a launch: later, and the kill lands in the next one."""
COMMITTED = re.compile(r"^committed (\S+) round (\d+) samples (\d+)", re.MULTILINE)

# Runs the real `lab` and says on the pipe which phase it enters. In `measure`, which is short, it waits to be killed.
INSTRUMENTED = """
import os, sys, time
import lab.cli.main, lab.cli.start, lab.registry
from lab.launch.session import Session
pipe = int(sys.argv.pop(1))
def say(phase): os.write(pipe, (phase + "\\n").encode())
made = lab.registry.make_driver
def make_driver(target, context):
    driver = made(target, context)
    prepare = driver.prepare
    def saying(spec):
        say("prepare")
        prepare(spec)
    driver.prepare = saying
    return driver
lab.cli.start.make_driver = make_driver
launch, delete, stop = Session.launch, Session.delete, Session.stop
def launching(self):
    say("launch")
    launch(self)
    say("measure")
    if os.environ.get("HOLD_MEASURE"): time.sleep(60)
def ending(method):
    def call(self, *args, **more):
        if self.instance is not None: say("delete")
        return method(self, *args, **more)
    return call
Session.launch, Session.delete = launching, ending(delete)
Session.stop = ending(stop)
lab.cli.main.main()
"""


@dataclass(frozen=True)
class Instant:
    target: str
    phase: str
    occurrence: int
    delay_s: float


@dataclass(frozen=True)
class Killed:
    instant: Instant
    store: Path
    announced: Sequence[tuple[str, int, int]]


def _instants(seed: int, hit: Counter[str]) -> Iterator[Instant]:
    """Twenty, and more in a phase that the kills so far have missed."""
    draw = random.Random(seed)
    for index in range(40):
        lacking = [phase for phase in PHASES if hit[phase] < LEAST_IN_EACH]
        if index >= 20 and not lacking:
            return
        phase = PHASES[index % len(PHASES)] if index < 20 else lacking[0]
        target = TARGETS[(index + index // 12) % len(TARGETS)]
        occurrence = 1 if phase in ("prepare", "measure") else draw.randint(1, 3)
        yield Instant(target, phase, occurrence, draw.uniform(0, LAUNCH_S[target] * OF_A_LAUNCH[phase]))


def test_nothing_is_left_and_nothing_announced_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], until: Callable[..., object]
) -> None:
    seed = int(os.environ.get("LAB_KILL_SEED", time.time_ns() % 10**6))
    _tell(capsys, f"\nkill instants are drawn from seed {seed} (LAB_KILL_SEED repeats them)")
    hit: Counter[str] = Counter()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    killed: list[Killed] = []
    for number, instant in enumerate(_instants(seed, hit)):
        store = tmp_path / f"{number}.db"
        began = time.monotonic()
        phase, announced = _kill_at(instant, store, temporary)
        hit[phase] += 1
        _tell(capsys, f"killed {instant.target} in {phase} after {time.monotonic() - began:.1f} s")
        killed.append(Killed(instant, store, announced))
        if len(killed) == BETWEEN_CLEANS:
            _clean_up_after(killed, capsys)
            killed.clear()
    if killed:
        _clean_up_after(killed, capsys)
    assert not list(temporary.iterdir())
    runs_root = Path("/var/tmp") / f"stratalab-{os.getuid()}"
    # Another lab's may be seen for the moment that it takes to make one.
    until(lambda: not [path for path in runs_root.iterdir() if path.name.startswith(".")])
    assert all(hit[phase] >= LEAST_IN_EACH for phase in PHASES), hit


def _clean_up_after(killed: Sequence[Killed], capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    clean = _lab("clean", "--yes", "--json")
    took_s = time.monotonic() - started
    assert took_s < 120
    assert clean.returncode == 0, f"{killed}: {clean.stderr}\n{clean.stdout}"
    _tell(capsys, f"clean took {took_s:.1f} s")
    for one in killed:
        _nothing_left(_run_id(one.store), one.instant)
        _all_kept(one.store, one.announced, one.instant)


def _tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(text, flush=True)  # noqa: T201  the seed must be known also when the test is killed


def _kill_at(instant: Instant, store: Path, temporary: Path) -> tuple[str, list[tuple[str, int, int]]]:
    """The phase that the lab was last heard to enter, and what it had announced."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    arguments = ["run", "boot", "-t", instant.target, "--rounds", "40", "--warmup", "0", "--store", str(store)]
    environment = os.environ | {"TMPDIR": str(temporary)}
    environment |= {"HOLD_MEASURE": "1"} if instant.phase == "measure" else {}
    lab = subprocess.Popen(
        [sys.executable, "-c", INSTRUMENTED, str(write), *arguments],
        pass_fds=[write],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    os.close(write)
    phase, seen = "", 0
    with os.fdopen(read) as entered:
        for line in entered:
            phase = line.strip()
            seen += phase == instant.phase
            if seen == instant.occurrence:
                break
        time.sleep(instant.delay_s)
        lab.send_signal(signal.SIGKILL)
        _, errors = lab.communicate(timeout=60)
        for line in entered:
            phase = line.strip()
    assert seen == instant.occurrence, f"{instant}: the lab ended before: {errors}"
    assert lab.returncode == -signal.SIGKILL, f"{instant}: the lab ended by itself: {errors}"
    return phase, [(found[1], int(found[2]), int(found[3])) for found in COMMITTED.finditer(errors)]


def _all_kept(store: Path, announced: Sequence[tuple[str, int, int]], instant: Instant) -> None:
    with Store.open(str(store)) as opened:
        record = opened.load("last")
    assert record.run.status in ("interrupted", "done"), record.run
    for target, iteration, count in announced:
        kept = [s for s in record.samples if s.target == target and s.iteration == iteration]
        assert len(kept) == count, f"{instant}: {target} round {iteration} announced {count} samples"


def _run_id(store: Path) -> str:
    with Store.open(str(store)) as opened:
        (run,) = opened.runs()
    return run.id


def _nothing_left(run_id: str, instant: Instant) -> None:
    import docker
    import libvirt

    client = docker.from_env()
    containers = client.containers.list(all=True, filters={"label": f"lab.run={run_id}"})
    assert not containers, f"{instant}: container left"
    assert not client.images.list(filters={"label": f"lab.run={run_id}"}), f"{instant}: image left"
    client.close()
    connection = libvirt.open("qemu:///system")
    for domain in connection.listAllDomains():
        with contextlib.suppress(libvirt.libvirtError):  # it ended between the two calls
            assert run_id not in domain.XMLDesc(), f"{instant}: domain left"
    connection.close()
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            except OSError:
                continue
            assert run_id.encode() not in told, f"{instant}: process {process.name} left: {told!r}"
    for directory, _, _ in os.walk("/sys/fs/cgroup"):
        assert run_id not in directory, f"{instant}: cgroup left: {directory}"
    runs_root = Path("/var/tmp") / f"stratalab-{os.getuid()}"
    assert run_id not in {path.name for path in runs_root.iterdir()}, f"{instant}: run directory left"


def _lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
