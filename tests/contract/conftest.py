"""One rig for each driver that is registered, and for the two that tests bring: nothing here names an engine.

A session's rigs are made one after the other, each when the first test of its target runs, so that each target's tests
share what is launched for them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from contract_rig import Rig
from rigs import make_rig, new_run_dir

from lab.driver import Driver
from lab.registry import driver_class, driver_names
from lab.spec import Target
from lab.store.place import cache_dir
from lab.testing import FakeDriver, ModelDriver

OF_TESTS: dict[str, Callable[..., Driver]] = {"fake": FakeDriver, "model": ModelDriver}
_ASKED_FOR = frozenset(os.environ.get("LAB_CONTRACT", "").split(","))
_open: list[contextlib.ExitStack] = []


def _targets() -> list[object]:
    """Every variant once: not what an engine launches only when a flag asks for it, such as a privileged container, nor
    a default that is, in the driver's words, `the same as` another, nor what is dear and hardly another (`apart`),
    unless LAB_CONTRACT names it."""
    found: list[object] = [pytest.param(Target(name), id=name) for name in OF_TESTS]
    for name in driver_names():
        driver = driver_class(name)
        variants = driver.variants()
        for variant, about in variants.items():
            _, alias, other = about.partition("the same as ")
            if variant in getattr(driver, "by_flag_only", ()) or (alias and other in variants):
                continue
            target = Target(name, variant)
            if variant in getattr(driver, "apart", ()) and str(target) not in _ASKED_FOR:
                continue
            marks = [pytest.mark.engine(str(target))]
            if variant in _whole(driver):
                marks += [pytest.mark.whole(first=variant == _whole(driver)[0]), pytest.mark.timeout(1500)]
            found.append(pytest.param(target, id=str(target), marks=marks))
    return found


def _whole(driver: object) -> Sequence[str]:
    """Its variants whose guests are whole distributions, which take a minute to boot: in `make test` one of the first
    is booted, and `make test-whole` asks all of the contract of each."""
    return getattr(driver, "whole_variants", ())


@pytest.fixture(scope="session", params=_targets())
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    target: Target = request.param
    of_tests = target.driver in OF_TESTS
    cache = tmp_path_factory.mktemp(target.driver) if of_tests else cache_dir()
    made = OF_TESTS[target.driver] if of_tests else driver_class(target.driver)
    with contextlib.ExitStack() as stack:
        run_dir = new_run_dir()
        stack.callback(run_dir.delete)
        shared_only = target.variant in _whole(made) and not request.config.getoption("whole")
        found = make_rig(target, made, cache, run_dir, shared_only=shared_only)
        stack.callback(found.close)
        _open.append(stack)
        yield found


@pytest.hookimpl(trylast=True)  # after the test's own fixtures
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last test here no rig's instances stay: runs that other tests of the session make would wait."""
    if nextitem is None or not nextitem.path.is_relative_to(Path(__file__).parent):
        while _open:
            _open.pop().close()
