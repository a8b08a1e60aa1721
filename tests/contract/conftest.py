"""One rig for each driver that is registered, and for the two that tests bring: nothing here names an engine.

A session's rigs are made one after the other, each when the first test of its target runs, so that each target's tests
share what is launched for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contract_rig import Rig
from host_view import HostView

from lab.driver import Context, Driver
from lab.features import Feature
from lab.host.ownership import Owner
from lab.registry import driver_class, driver_names
from lab.run.runner import new_run_id
from lab.spec import Target
from lab.store.place import RunDir, cache_dir, make_run_dir
from lab.testing import FakeDriver, ModelDriver, engine_of, model_engine_of
from lab.timeline import HostClock, SystemClock

OF_TESTS: dict[str, Callable[..., Driver]] = {"fake": FakeDriver, "model": ModelDriver}


def _targets() -> list[object]:
    """Every variant once: not what an engine launches only when a flag asks for it, such as a privileged container, nor
    a default that is, in the driver's words, `the same as` another."""
    found: list[object] = [pytest.param(Target(name), id=name) for name in OF_TESTS]
    for name in driver_names():
        driver = driver_class(name)
        variants = driver.variants()
        for variant, about in variants.items():
            _, alias, other = about.partition("the same as ")
            if variant in getattr(driver, "by_flag_only", ()) or (alias and other in variants):
                continue
            target = Target(name, variant)
            found.append(pytest.param(target, id=str(target), marks=pytest.mark.engine(str(target))))
    return found


def make_rig(target: Target, made: Callable[..., Driver], cache: Path, run_dir: RunDir, **limits: float) -> Rig:
    """A rig for `target`, whose class is `made`; `limits` are those that `Rig` takes."""
    context = Context(run_dir=Path(run_dir.id), cache_dir=cache)
    clock: HostClock = SystemClock()
    view = HostView()
    if issubclass(made, FakeDriver):  # type: ignore[arg-type]
        engine = engine_of(context)
        clock = engine.clock
        engine.features |= {Feature.REPLICAS}
    if issubclass(made, ModelDriver):  # type: ignore[arg-type]
        view = HostView(model_engine_of(context).kernel.root)
    return Rig(
        target,
        lambda: made(target.variant, context),
        context,
        run_dir.labels,
        clock=clock,
        view=view,
        **limits,
    )


def new_run_dir() -> RunDir:
    """The directory of a run of the contract's own."""
    run_id = f"c{new_run_id()}"
    labels = {"lab.run": run_id, "lab.scenario": "contract", "lab.owner": str(Owner.current())}
    return RunDir(str(make_run_dir(run_id, labels)), labels)


@pytest.fixture(scope="session", params=_targets())
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    target: Target = request.param
    of_tests = target.driver in OF_TESTS
    cache = tmp_path_factory.mktemp(target.driver) if of_tests else cache_dir()
    made = OF_TESTS[target.driver] if of_tests else driver_class(target.driver)
    run_dir = new_run_dir()
    try:
        found = make_rig(target, made, cache, run_dir)
        try:
            yield found
        finally:
            found.close()
    finally:
        run_dir.delete()
