"""What the service measures of its platform against a plain C loop in the same target: paired, in a random order.

The loop shares no code with the service. It runs in the process target's cgroup, and in the container by the engine's
own exec, under the same seccomp filter and limits. Guests have no way in, and are not compared.
"""

from __future__ import annotations

import io
import random
import statistics
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from docker_pairs import engine_socket
from labside import LabSide, Prepared, lab_side
from programs import compile_program
from verdict import SAME, Verdict, report, say

from lab.errors import DriverUnavailable, LabError, Unsupported
from lab.features import Execs, OnThisHost
from lab.host import cgroup
from lab.launch.session import Session
from lab.service.build import build_enter
from lab.service.measure import Kind, measure
from lab.store.place import cache_dir

TARGETS = ("process", "docker")
COUNTS = {Kind.SYSCALL: 200_000, Kind.CPU: 20_000_000}
NAMES = {Kind.SYSCALL: "a system call", Kind.CPU: "a step of CPU work"}
LOOP_TIMEOUT_S = 30.0
LOOP = "loops"

Loop = Callable[[Kind], float]


def overhead(rounds: int, chance: random.Random) -> list[Verdict]:
    """Measure and print. Raises LabError."""
    verdicts: list[Verdict] = []
    with lab_side() as side:
        program = compile_program(f"{LOOP}.c", side.context.run_dir / LOOP)
        prepared = _prepare(side, verdicts)
        service: dict[tuple[str, Kind], list[float]] = {}
        plain: dict[tuple[str, Kind], list[float]] = {}
        for number in range(rounds + 1):
            chance.shuffle(prepared)
            for one in prepared:
                with one.launched() as session:
                    for kind, by_service, by_loop in _round(session, _way_in(session, program), chance):
                        if number:  # the first warms up
                            service.setdefault((one.target, kind), []).append(by_service)
                            plain.setdefault((one.target, kind), []).append(by_loop)
    for kind in COUNTS:
        for target in (target for target in TARGETS if (target, kind) in service):
            ours, theirs = service[target, kind], plain[target, kind]
            report(f"{target}: {NAMES[kind]}, by the service", [value * 1e9 for value in ours], "ns")
            report(f"{target}: {NAMES[kind]}, by a plain C loop", [value * 1e9 for value in theirs], "ns")
            verdicts += _judged(f"{target}: the service's over the loop's", _ratios(ours, theirs))
        both = [service[target, kind] for target in TARGETS if (target, kind) in service]
        if len(both) == 2:
            # A container's CPU is the host's; its system calls pass a seccomp filter, whose cost is a finding.
            ratios = _ratios(both[1], both[0])
            if kind is Kind.CPU:
                verdicts += _judged("docker over process, by the service", ratios)
            else:
                report("docker over process, by the service", ratios, "")
    say("  guests: not compared, as nothing can be run in them beside the service")
    return verdicts


def _round(session: Session, loop: Loop, chance: random.Random) -> list[tuple[Kind, float, float]]:
    """For each kind, seconds of one operation by the service and by the loop, one right after the other."""
    found = []
    for kind, count in COUNTS.items():
        ways: dict[str, Callable[[], float]] = {
            "service": lambda kind=kind, count=count: _by_service(session, kind, count),  # type: ignore[misc]
            "loop": lambda kind=kind: loop(kind),  # type: ignore[misc]
        }
        took = {way: ways[way]() for way in chance.sample(list(ways), len(ways))}
        found.append((kind, took["service"], took["loop"]))
    return found


def _by_service(session: Session, kind: Kind, count: int) -> float:
    found = measure(session, kind, count)
    if isinstance(found, str):
        raise LabError(f"the service cannot measure {kind}: {found}")
    return found.operation_s


def _way_in(session: Session, program: Path) -> Loop:
    """Runs the loop in the same target as the service. Raises LabError."""
    instance = session.instance
    if isinstance(instance, Execs):
        _put(instance.id, program)

        def within(kind: Kind) -> float:
            ended = instance.exec([f"/{LOOP}", kind.value, str(COUNTS[kind])], timeout_s=LOOP_TIMEOUT_S)
            if ended.exit_code:
                raise LabError(f"the loop ended with {ended.exit_code}", details=ended.stderr.decode(errors="replace"))
            return _per_operation_s(ended.stdout, kind)

        return within
    if not isinstance(instance, OnThisHost):
        raise Unsupported("nothing can be run in this target beside the service")
    entrances = [str(path) for path in cgroup.of_process(min(instance.host_pids())).entrances]

    def beside(kind: Kind) -> float:
        command = [str(build_enter(cache_dir())), *entrances, "--", str(program), kind.value, str(COUNTS[kind])]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=LOOP_TIMEOUT_S, check=True)
        except subprocess.SubprocessError as error:
            raise LabError(f"the loop failed: {error}") from error
        return _per_operation_s(ended.stdout, kind)

    return beside


def _put(container: str, program: Path) -> None:
    """Copy the loop into the container's writable layer, which goes with it."""
    import docker

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(LOOP)
        entry.mode, entry.size = 0o755, program.stat().st_size
        with program.open("rb") as content:
            tar.addfile(entry, content)
    api = docker.APIClient(base_url=f"unix://{engine_socket()}", version="auto")
    try:
        api.put_archive(container, "/", archive.getvalue())
    except docker.errors.DockerException as error:
        raise LabError(f"the loop cannot be put into the container: {error}") from error
    finally:
        api.close()


def _per_operation_s(output: bytes, kind: Kind) -> float:
    parts = [int(line) for line in output.split()]
    return statistics.median(parts) / (COUNTS[kind] // len(parts)) / 1e9


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def _judged(name: str, ratios: list[float]) -> list[Verdict]:
    verdict = report(name, ratios, "", SAME)
    return [verdict] if verdict is not None else []


def _prepare(side: LabSide, verdicts: list[Verdict]) -> list[Prepared]:
    prepared = []
    for target in TARGETS:
        try:
            prepared.append(side.prepare(target))
        except (DriverUnavailable, Unsupported) as error:
            say(f"  {target}: not run: {error}")
            verdicts.append(Verdict.NOT_RUN)
    return prepared
