"""An end is seen at once, with its reason, on every target; and no service that ends is ever ready."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import ending_image
import pytest

from lab.driver import Context, Driver
from lab.errors import LaunchError
from lab.features import OnThisHost, Role
from lab.host.procs import Process
from lab.launch.session import Session
from lab.registry import make_driver
from lab.spec import Restart, Spec, Target
from lab.timeline import Phase, SystemClock
from lab.units import MIB

TIMEOUT_S = 60.0
SEEN_WITHIN_S = 20.0
"""From the request on, and so with what the platform takes to start: far from the time that a wait would end by."""
TOLD_WITHIN_S = 1.0

CONTAINERS = ("docker", "oci", "swarm")
BOXES = ("nspawn", "lxc")
GUEST = "libvirt:microvm"


@dataclass(frozen=True, slots=True)
class Case:
    """A service's environment, and how its end is told."""

    name: str
    environment: dict[str, str]
    told: str
    lines: bool = True
    on: tuple[str, ...] = (*CONTAINERS, GUEST)
    memory_bytes: int = field(default=128 * MIB)


CASES = (
    Case("status", {"EXIT": "3"}, "the service ended with exit status 3", on=(*CONTAINERS, *BOXES, GUEST)),
    Case("well", {"EXIT": "0"}, "the service ended with exit status 0", on=("oci", "docker")),
    Case("fault", {"FAULT": "1"}, "the service was ended by signal SIGSEGV (11)", on=(*CONTAINERS, "lxc")),
    # Its tool ends with 1 for any signal.
    Case("untold fault", {"FAULT": "1"}, "the service ended by itself", on=("nspawn",)),
    Case(
        "memory",
        {"EAT_MIB": "400"},
        "the service was killed: it wanted more than the 96 MiB of --memory",
        memory_bytes=96 * MIB,
    ),
    Case(
        "memory of a child",
        {"EAT_MIB": "400", "CHILD": "1"},
        "the service ended with exit status 7 after a process of it was killed: it wanted more than the 128 MiB of "
        "--memory",
        on=CONTAINERS,
    ),
    Case("one answer", {"ONCE": "1"}, "the service ended with exit status 4", on=(*CONTAINERS, GUEST)),
)


def _params() -> Iterator[object]:
    for case in CASES:
        for target in case.on:
            marks = [pytest.mark.engine(target), pytest.mark.timeout(300)]
            yield pytest.param(target, case, id=f"{target}-{case.name}", marks=marks)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ending_image.make(tmp_path_factory.mktemp("ending"))


@pytest.fixture
def driver_of(context: Context, labels: dict[str, str]) -> Iterator[Callable[[str], Driver]]:
    made: list[Driver] = []

    def make(target: str) -> Driver:
        made.append(make_driver(Target.parse(target), context))
        return made[-1]

    yield make
    for driver in made:
        for thing in (*driver.list_instances({"lab.run": labels["lab.run"]}), *driver.leftovers(labels)):
            thing.delete()
        driver.close()


def _session(driver: Driver, target: str, labels: dict[str, str], **changes: object) -> Session:
    spec = Spec(labels={**labels, "lab.target": target}, **changes)  # type: ignore[arg-type]
    info = driver.info()
    driver.prepare(spec)
    return Session(driver, info, spec.for_launch(), SystemClock(), timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("target,case", list(_params()))
def test_an_end_is_told_at_once_with_its_reason_and_its_last_lines(
    driver_of: Callable[[str], Driver], labels: dict[str, str], image: Path, target: str, case: Case
) -> None:
    changes = {"ready_path": "/", "environment": case.environment, "memory_bytes": case.memory_bytes}
    with _session(driver_of(target), target, labels, image=str(image), **changes) as session:
        begun = time.monotonic()
        with pytest.raises(LaunchError) as raised:
            session.launch()
        took_s = time.monotonic() - begun
    assert raised.value.brief == case.told
    assert took_s < SEEN_WITHIN_S
    lines = raised.value.details.splitlines()
    if "EXIT" in case.environment:
        assert any(line.startswith("without an end of line") for line in lines)
    assert "line 12 of what it says" in [line.strip() for line in lines]
    assert Phase.READY not in session.timeline


@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=pytest.mark.engine(name)) for name in ("process", *CONTAINERS)]
)
def test_a_signal_from_outside_is_told_by_its_name(
    driver_of: Callable[[str], Driver], labels: dict[str, str], target: str
) -> None:
    with _session(driver_of(target), target, labels) as session:
        session.launch()
        assert isinstance(session.instance, OnThisHost)
        (pid,) = [pid for pid, role in session.instance.host_pids().items() if role is Role.SERVICE]
        process = Process.of(pid)
        assert process is not None
        process.send(signal.SIGKILL)
        killed = time.monotonic()
        assert session._marks.failed_already.wait(TIMEOUT_S)
        assert time.monotonic() - killed < TOLD_WITHIN_S + 1.0  # a busy machine's second
        with pytest.raises(LaunchError) as raised:
            session.require_alive()
    assert raised.value.brief == "the service was ended by signal SIGKILL (9)"


@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=pytest.mark.engine(name)) for name in ("process", *CONTAINERS)]
)
def test_an_end_that_was_asked_for_is_no_failure(
    driver_of: Callable[[str], Driver], labels: dict[str, str], target: str
) -> None:
    driver = driver_of(target)
    for end in ("stop", "delete"):
        with _session(driver, target, labels) as session:
            session.launch()
            if end == "stop":
                session.stop()
            session.delete()
            time.sleep(0.5)
            assert session._marks.failure is None


@pytest.mark.engine("swarm")
@pytest.mark.engine("docker")
@pytest.mark.parametrize("target", ["docker", "swarm"])
def test_who_asked_for_the_best_restart_waits_for_what_the_engine_begins_again(
    driver_of: Callable[[str], Driver], labels: dict[str, str], target: str
) -> None:
    with _session(driver_of(target), target, labels, restart=Restart.BEST) as session:
        session.launch()
        assert isinstance(session.instance, OnThisHost)
        (pid,) = [pid for pid, role in session.instance.host_pids().items() if role is Role.SERVICE]
        process = Process.of(pid)
        assert process is not None
        process.send(signal.SIGKILL)
        assert process.wait(10)
        time.sleep(1)
        assert session._marks.failure is None
