"""Fixtures for all tests, and the rule that a required engine's tests may not skip."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import hypothesis
import made_run
import pytest

from lab.driver import Context, Driver
from lab.errors import DriverUnavailable, LabError
from lab.features import Clustered
from lab.host.ownership import Owner
from lab.registry import driver_names, make_driver
from lab.run.estimate import Span
from lab.run.runner import Entrant, Plan, Runner, new_run_id, now_iso
from lab.scenario import Scenario
from lab.service.build import build_service
from lab.spec import Spec, Target
from lab.store.database import Store
from lab.store.place import RunDir, make_run_dir
from lab.store.record import LaunchRecord, Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.timeline import HostClock, SystemClock

_ALSO_KNOWN_AS = {"kind": "kubernetes"}
_NAMED = (name.strip() for name in os.environ.get("LAB_REQUIRE", "").split(","))
REQUIRED = frozenset(_ALSO_KNOWN_AS.get(name, name) for name in _NAMED if name)


TURNS = ("beside", "alone")
_TESTS = Path(__file__).parent
_MANY = "test_breakages.py"
"""Whose tests share nothing, and take long together."""
_ALONE = "run"
"""The folder whose tests of engines run `lab run`, which waits while another lab's instances are there."""

_ALLOWED = ("Skipped: not promised: ", "Skipped: left to `make test-whole`")


# No test is wrong because the machine is slow.
hypothesis.settings.register_profile("lab", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("lab")

# What they assert is told as a test's own.
pytest.register_assert_rewrite("store_promises", "store_promises_later", "service_process")


def pytest_configure(config: pytest.Config) -> None:
    """A name in LAB_REQUIRE that no driver has would require nothing, silently."""
    known = driver_names()
    if unknown := sorted(name for name in REQUIRED if name.partition(":")[0] not in known):
        there = ", ".join([*known, *_ALSO_KNOWN_AS])
        raise pytest.UsageError(f"LAB_REQUIRE names {', '.join(unknown)}, which is no driver; there are: {there}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--whole",
        action="store_true",
        help="all of what concerns whole guests, each launch of which boots a distribution: see `make test-whole`",
    )
    parser.addoption(
        "--turn",
        choices=TURNS,
        help="only what may run beside others (all that pytest-xdist runs by itself), or only what must be the only "
        "one that runs",
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    """Where workers leave something out, and do not tell."""
    if config.getoption("numprocesses", None):
        return f"side by side: only {_turn(config) or TURNS[0]}; --turn={'|'.join(TURNS)} runs the others"
    return None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Nothing of tests/unit has to run alone."""
    return True if _turn(config) == TURNS[1] and collection_path == Path(__file__).parent / "unit" else None


@pytest.hookimpl(tryfirst=True)  # before `-m` is looked at
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what drives a real Kubernetes as `kind`, whose cluster it is; and leave out what is another turn's."""
    for item in items:
        if any(Target.parse(marker.args[0]).driver == "kubernetes" for marker in item.iter_markers("engine")):
            item.add_marker("kind")
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    if not config.getoption("whole"):
        left = {item for item in items if (mark := item.get_closest_marker("whole")) and not mark.kwargs["first"]}
        config.hook.pytest_deselected(items=list(left))
        items[:] = [item for item in items if item not in left]
    if turn := _turn(config):
        others = {item for item in items if _turn_of(item) != turn}
        config.hook.pytest_deselected(items=list(others))
        items[:] = [item for item in items if item not in others]


def _turn(config: pytest.Config) -> str | None:
    """One of TURNS, or None for all."""
    turn: str | None = config.getoption("turn")
    return turn or (TURNS[0] if hasattr(config, "workerinput") else None)


def _turn_of(item: pytest.Item) -> str:
    drives = item.get_closest_marker("engine") is not None
    if item.get_closest_marker("alone") or (drives and _ALONE in item.path.relative_to(_TESTS).parts):
        return "alone"
    return "beside"


def _group(item: pytest.Item) -> str:
    """Whose tests run one after the other, beside those of other groups: a file's, or an engine's. Docker's and
    libvirt's are many, and look at nothing but their own instances: a group for each folder of tests, and one of whole
    guests, which boot for long. What turns a swarm on and off is in one with all in it."""
    engines = [Target.parse(marker.args[0]).driver for marker in item.iter_markers("engine")]
    if not engines:
        return item.nodeid if item.path.name == _MANY else item.path.relative_to(_TESTS).as_posix()
    if "swarm" in engines:
        return "swarm"
    group = min(engines)
    if item.get_closest_marker("whole"):
        return f"{group} whole"
    return f"{group} {item.path.parent.name}" if group in ("docker", "libvirt") else group


@pytest.fixture(autouse=True, scope="session")
def _own_directories(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tests' state is their own; the cache is shared between them, since it only holds what can be made again."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests of an engine that is not here; fail them where LAB_REQUIRE names it."""
    for marker in item.iter_markers("engine"):
        engine = Target.parse(marker.args[0])
        missing = _missing(str(engine))
        if missing and {engine.driver, str(engine)} & REQUIRED:
            pytest.fail(f"LAB_REQUIRE names {engine}, and it is not available: {missing}", pytrace=False)
        if missing:
            pytest.skip(f"{engine}: {missing}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A test of a required engine that skips itself has failed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's result, untyped in a wrapper
    engines = {Target.parse(marker.args[0]).driver for marker in item.iter_markers("engine")}
    if report.skipped and engines & REQUIRED and not hasattr(report, "wasxfail") and not _allowed(item, report):
        report.outcome = "failed"
        report.longrepr = f"LAB_REQUIRE names {', '.join(engines & REQUIRED)}, and this test skipped: {report.longrepr}"


@pytest.fixture
def make_context(tmp_path: Path) -> Iterator[Callable[..., Context]]:
    """Contexts whose run directories are removed at the end; labels are in `labels_of(context)`."""
    made: list[RunDir] = []

    def make(**options: str) -> Context:
        labels = run_labels()
        run_dir = make_run_dir(labels["lab.run"], labels)
        made.append(RunDir(str(run_dir), labels))
        return Context(run_dir=run_dir, cache_dir=_cache(), options=options)

    yield make
    for run_dir in made:
        run_dir.delete()


@pytest.fixture
def labels() -> dict[str, str]:
    """The labels of a run of this test's own."""
    return run_labels()


@pytest.fixture(scope="session")
def binary() -> Path:
    """The service's program, built once for all tests and whoever runs them side by side."""
    return build_service(_cache())


@pytest.fixture
def make_record() -> Callable[..., RunRecord]:
    """Makes up runs of `boot`."""
    return made_run.make_record


@pytest.fixture
def measure(tmp_path: Path) -> Callable[..., RunRecord]:
    """Runs a scenario on one driver, as `lab run` does but for the lock, and gives what the store kept."""
    return partial(_measure, tmp_path / "measured.db")


def _measure(
    store_path: Path,
    scenario: Scenario,
    driver: Driver,
    clock: HostClock | None = None,
    rounds: int = 1,
    beside: Sequence[Driver] = (),
    timeout_s: float | None = None,
    **spec: Any,
) -> RunRecord:
    labels = run_labels()
    run = Run(
        id=labels["lab.run"],
        scenario=scenario.name,
        started_at=now_iso(),
        ended_at=None,
        status=RunStatus.RUNNING,
        owner=labels["lab.owner"],
        lab_version="0",
    )
    entrants = [
        Entrant(
            target=Target.parse(one.name),
            driver=one,
            info=one.info(),
            record=TargetRecord(target=one.name, outcome=Outcome.OK),
        )
        for one in (driver, *beside)
    ]
    with Store.open(str(store_path)) as store:
        Runner(
            run=run,
            scenario=scenario,
            entrants=entrants,
            spec=Spec(labels=labels, **spec),
            plan=Plan(rounds=rounds, warmup=0, timeout_s=timeout_s),
            store=store,
            host={},
            progress=_Silent(),
            clock=clock or SystemClock(),
        ).execute()
        return store.load(run.id)


class _Silent:
    """A Progress that lets only problems of cleaning up be heard."""

    def preparing(self, target: str) -> None: ...
    def launching(self, target: str, iteration: int, warmup: bool) -> None: ...
    def committed(self, launch: LaunchRecord, samples: Sequence[Sample]) -> None: ...
    def turned(self, left: Span) -> None: ...
    def round_over(self, iteration: int, left: Span) -> None: ...
    def target_changed(self, record: TargetRecord) -> None: ...
    def cleaning(self) -> None: ...

    def problem(self, text: str) -> None:
        raise AssertionError(text)


def run_labels() -> dict[str, str]:
    """Labels of a new run that this process owns."""
    return {"lab.run": f"t{new_run_id()}", "lab.scenario": "test", "lab.owner": str(Owner.current())}


def _allowed(item: pytest.Item, report: Any) -> bool:
    """Skips within a required engine that are about something else than the engine, and say so by a marker; or about
    what the contract leaves to each driver (see `contract_rig.not_promised`)."""
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    return item.get_closest_marker("beyond_engine") is not None or said.startswith(_ALLOWED)


def _cache() -> Path:
    from lab.store.place import cache_dir

    return cache_dir()


@cache
def _missing(name: str) -> str:
    target = Target.parse(name)
    labels = run_labels()
    run_dir = make_run_dir(labels["lab.run"], labels)
    try:
        driver: Driver = make_driver(target, Context(run_dir=run_dir, cache_dir=_cache()))
        try:
            _require(driver, bool({target.driver, name} & REQUIRED))
        finally:
            driver.close()
    except DriverUnavailable as error:
        return str(error)
    finally:
        RunDir(str(run_dir), labels).delete()
    return ""


def _require(driver: Driver, required: bool) -> None:
    """Ask the engine; a cluster or a guest's disk that is required, and that the lab can make, is made where it is
    missing."""
    try:
        driver.info()
    except DriverUnavailable as error:
        if required and error.resolution.startswith("lab guest build"):
            subprocess.run([sys.executable, "-m", *error.resolution.split()], check=True)
            driver.info()
            return
        if not required or not isinstance(driver, Clustered):
            raise
        try:
            driver.cluster_up(lambda _: None)
        except LabError as error:  # told of every test, and tried once
            raise DriverUnavailable(str(error), details=error.details) from error
        driver.info()


def spec_for(labels: dict[str, str], **changes: object) -> Spec:
    """A launch's own spec with `labels`."""
    return Spec(labels=labels, **changes).for_launch()  # type: ignore[arg-type]
