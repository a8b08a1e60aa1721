"""Whether `ready` is what one patient client would see: services that think or work for each answer, on each target.

Every launch is the lab's own; what differs is who waits. By turns it is the lab's waiter, and a small separate program
that connects until it is let in, asks once and waits. What is compared is the time from the instant at which the
service listened to the answer (in a guest, whose clock is another: from the arrival of the line in which it says so),
so that the engine's own spread is no part of it. The goal is a difference of at most 2 % of the whole time
from `requested` to `ready`, or 5 ms.

On a machine that does something else, the same CPU time takes longer in one launch than in the next. So the service
says how long its answer took by its own clock, and where the two ways to wait overlap without being equal, what is
left without that is judged (`waiting`). That no second request took the CPU from the first is a test of the waiter's
own (tests/integration/launch/test_waiter.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labside import LabSide, Prepared, lab_side
from programs import compile_program
from verdict import Verdict, say

from lab.driver import Info, Instance, Leftover, Mark
from lab.errors import DriverUnavailable, LabError, LaunchError, ReadyTimeout, Unsupported
from lab.features import Feature
from lab.image.archive import machine_architecture
from lab.launch import session as sessions
from lab.launch.session import Session
from lab.launch.waiter import Answer, Waiter
from lab.spec import Endpoint, Spec
from lab.timeline import HostClock, Phase, Source, SystemClock

TARGETS = ("process", "docker", "oci", "swarm", "libvirt:microvm")
PAIRS = 3
PORT = 8080
SHARE, LEAST_MS = 0.02, 5.0
LATEST_START_MS = 300
SAYING_S = 5.0
FEW, ENOUGH = 3, 6


@dataclass(frozen=True, slots=True)
class Cell:
    """One service of the grid: how long each answer sleeps, how much CPU time it takes, how many workers there are."""

    delay_ms: int
    cpu_ms: int
    workers: int


GRID = (Cell(0, 0, 1), Cell(300, 0, 32), Cell(0, 250, 4), Cell(0, 500, 1), Cell(0, 500, 32), Cell(1000, 500, 8))
FULL_GRID = tuple(
    Cell(delay, cpu, workers)
    for delay in (0, 100, 300, 1000, 5000)
    for cpu in (0, 50, 250, 500)
    for workers in (1, 4, 32)
)


@dataclass(frozen=True, slots=True)
class Seen:
    """One launch in ms: the whole time to `ready`, the part of it after the anchor, what the answer took by the
    service's own clock, and the lab's CPU while waiting."""

    whole_ms: float
    waited_ms: float
    served_ms: float
    cpu_ms: float


def readiness(pairs: int, chance: random.Random, grid: Sequence[Cell] = GRID) -> list[Verdict]:
    """Measure and print the table. Raises LabError."""
    verdicts: list[Verdict] = []
    say(
        "  target            delay   CPU  workers  start |  patient      lab  difference    waiting   allowed    ratio"
        "  lab's CPU"
    )
    with lab_side() as side:
        program = compile_program("slow_service.c", side.context.run_dir / "slow-service")
        image = _image(program, side.context.run_dir / "slow-service.tar")
        for target in TARGETS:
            for cell in grid:
                start_ms = chance.randrange(LATEST_START_MS)
                try:
                    prepared = _prepare(side, target, program, image, cell, start_ms)
                except (DriverUnavailable, Unsupported) as error:
                    say(f"  {target}: not run: {error}")
                    verdicts.append(Verdict.NOT_RUN)
                    break
                verdicts.append(_cell(prepared, cell, start_ms, pairs, chance))
    return verdicts


def _cell(prepared: Prepared, cell: Cell, start_ms: int, pairs: int, chance: random.Random) -> Verdict:
    seen: dict[bool, list[Seen]] = {True: [], False: []}
    for _ in range(pairs):
        for by_lab in chance.sample([True, False], 2):
            seen[by_lab].append(_launch(prepared, by_lab=by_lab))
    whole_ms = statistics.median(one.whole_ms for one in seen[False])
    difference_ms = _median(one.waited_ms for one in seen[True]) - _median(one.waited_ms for one in seen[False])
    waiting_ms = _median(_beyond_ms(one) for one in seen[True]) - _median(_beyond_ms(one) for one in seen[False])
    allowed_ms = max(LEAST_MS, SHARE * whole_ms)
    cpu = statistics.median(one.cpu_ms / one.whole_ms for one in seen[True])
    verdict = _verdict(seen, difference_ms, waiting_ms, allowed_ms)
    say(
        f"  {prepared.target:16} {cell.delay_ms:5} ms {cell.cpu_ms:4} ms {cell.workers:4} {start_ms:7} | "
        f"{whole_ms:8.1f} {whole_ms + difference_ms:8.1f} {difference_ms:+8.1f} ms {waiting_ms:+7.1f} ms "
        f"{allowed_ms:6.1f} ms {1 + difference_ms / whole_ms:8.4f} {cpu:8.2%} -> {verdict}"
    )
    return verdict


def _verdict(
    seen: Mapping[bool, Sequence[Seen]], difference_ms: float, waiting_ms: float, allowed_ms: float
) -> Verdict:
    """Missed only where the two ways to wait do not overlap: in what is left without the service's own time, or, where
    enough launches tell, as a whole."""
    if abs(difference_ms) <= allowed_ms:
        return Verdict.MET
    if len(seen[True]) < FEW:
        return Verdict.INCONCLUSIVE
    apart = _apart(*([one.waited_ms for one in seen[which]] for which in (True, False)))
    if apart and len(seen[True]) >= ENOUGH:
        return Verdict.MISSED
    if abs(waiting_ms) <= allowed_ms:
        return Verdict.INCONCLUSIVE if apart else Verdict.MET
    left_apart = _apart(*([_beyond_ms(one) for one in seen[which]] for which in (True, False)))
    return Verdict.MISSED if left_apart else Verdict.INCONCLUSIVE


def _apart(one: Sequence[float], other: Sequence[float]) -> bool:
    return min(one) > max(other) or min(other) > max(one)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _beyond_ms(one: Seen) -> float:
    return one.waited_ms - one.served_ms


def _launch(prepared: Prepared, *, by_lab: bool) -> Seen:
    heard: list[int] = []
    before = sessions.Waiter
    sessions.Waiter = Waiter if by_lab else Patient  # type: ignore[misc,assignment]
    try:
        with Session(
            prepared.driver, prepared.info, prepared.spec.for_launch(), SystemClock(), timeout_s=120
        ) as session:
            _hear(session, b"slow_service listens", heard)
            session.launch()
            requested_ns = session.timeline.mark(Phase.REQUESTED).ns
            ready_ns = session.timeline.mark(Phase.READY).ns
            listened_ns, served_ns = _said(session)
            anchor_ns = listened_ns if Feature.OWN_KERNEL not in prepared.info.features else heard[0]
            assert session.answer is not None
            return Seen(
                whole_ms=(ready_ns - requested_ns) / 1e6,
                waited_ms=(ready_ns - anchor_ns) / 1e6,
                served_ms=served_ns / 1e6,
                cpu_ms=session.answer.wait_cpu_ns / 1e6,
            )
    finally:
        sessions.Waiter = before  # type: ignore[misc]


def _hear(session: Session, words: bytes, heard: list[int]) -> None:
    """Note when a line with `words` arrives."""
    line = session._marks.line

    def note(text: bytes, *, source: Source) -> None:
        if words in text:
            heard.append(SystemClock().now_ns())
        line(text, source=source)

    session._marks.line = note  # type: ignore[method-assign]


def _said(session: Session) -> tuple[int, int]:
    """When the service listened, by its own clock, and how long its first answer took. Raises LabError."""
    assert session.instance is not None
    deadline = time.monotonic() + SAYING_S
    while True:
        logs = session.instance.logs()
        listened, served = (
            re.search(rb"slow_service %b (\d+)" % what, logs) for what in (b"listens at", b"answered after")
        )
        if listened is not None and served is not None:
            return int(listened[1]), int(served[1])
        if time.monotonic() > deadline:
            raise LabError("the service did not say when it listened and answered", details=logs.decode())
        time.sleep(0.02)


def _prepare(side: LabSide, target: str, program: Path, image: Path, cell: Cell, start_ms: int) -> Prepared:
    words = tuple(str(one) for one in (start_ms, cell.delay_ms, cell.cpu_ms, cell.workers))
    if target == "process":
        spec = Spec(image=str(program), command=words, ready_path="/", labels=dict(side.labels))
        bare = BareProcess()
        return Prepared(target=target, driver=bare, info=bare.info(), spec=spec)
    prepared = side.prepare(target, image=str(image), command=words, ready_path="/", port=PORT)
    return replace(prepared, info=prepared.driver.info())


def _image(program: Path, archive: Path) -> Path:
    """The program as the only file of an image, as `docker save` writes one."""
    layer = _tar({"slow-service": (program.read_bytes(), 0o755)})
    config = {
        "architecture": machine_architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/slow-service"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["stratalab-accept/slow:1"], "Layers": ["layer.tar"]}]
    files = {"config.json": config, "manifest.json": manifest}
    written = {name: (json.dumps(value).encode(), 0o644) for name, value in files.items()}
    archive.write_bytes(_tar(written | {"layer.tar": (layer, 0o644)}))
    return archive


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = mode, len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


class Patient:
    """Stands in for the lab's waiter: hands each of its calls to the separate program."""

    def __init__(self, spec: Spec, clock: HostClock) -> None:
        program = Path(__file__).with_name("patient_by_hand.py")
        self._child = subprocess.Popen(
            [sys.executable, "-I", str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._failure: Exception | None = None

    def start(self, endpoint: Endpoint | None) -> None:
        assert self._child.stdout is not None and self._child.stdout.readline() == "there\n"
        if endpoint is not None:
            self.set_endpoint(endpoint)

    def set_endpoint(self, endpoint: Endpoint) -> None:
        self._tell(f"at {endpoint.host} {endpoint.port}")

    def attempt(self) -> None:
        self._tell("go")

    def fail(self, error: Exception) -> None:
        self._failure = error
        self._child.kill()

    def wait(self, timeout_s: float) -> Answer:
        ender = threading.Timer(timeout_s, self._child.kill)
        ender.start()
        assert self._child.stdout is not None
        told = self._child.stdout.readline()
        ender.cancel()
        if self._failure is not None:
            raise self._failure
        if not told.strip():
            raise ReadyTimeout(f"the patient client had no answer within {timeout_s:g} s")
        return Answer(sent_ns=0, received_ns=int(told), status=200, body=b"", attempts=1, wait_cpu_ns=0)

    def cancel(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _tell(self, line: str) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()


class BareProcess:
    """A driver for the slow service without an image, which the lab's own process target does not launch."""

    name = "process"

    def info(self) -> Info:
        return Info(engine="Linux", version="", isolation="none", features=frozenset({Feature.NETWORK}))

    def prepare(self, spec: Spec) -> None:
        """It is compiled."""

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        assert endpoint is not None and spec.command is not None
        try:
            child = subprocess.Popen(
                [spec.image, *spec.command, str(endpoint.port)], stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise LaunchError(f"the service cannot be started: {error.strerror}") from error
        mark(Phase.STARTED, source=Source.RETURN)
        return BareInstance(child, endpoint)

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        return ()

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        return ()

    def close(self) -> None:
        """Nothing is held open."""


class BareInstance:
    def __init__(self, child: subprocess.Popen[bytes], endpoint: Endpoint) -> None:
        self.id = str(child.pid)
        self.labels: Mapping[str, str] = {}
        self.endpoint = endpoint
        self._child = child
        self._said = b""

    def logs(self) -> bytes:
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)
        self._said += self._child.stdout.read() or b""
        return self._said

    def stop(self, *, timeout_s: float) -> None:
        self.delete()

    def delete(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, 9)
        self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
