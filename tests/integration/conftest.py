"""Fixtures that the tests of several engines share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.driver import Context


@pytest.fixture
def context(make_context: Callable[..., Context]) -> Context:
    """A run's own directory, without options."""
    return make_context()


@pytest.fixture
def engine() -> Iterator[Any]:
    """The Docker engine as another program sees it."""
    import docker

    client = docker.from_env(timeout=60)
    yield client.api
    client.close()


@pytest.fixture
def until() -> Callable[..., object]:
    """Waits for what an engine, the kernel or another thread does in its own time: `until(what, timeout_s=60)`
    returns what `what` gives once that is true, and fails when it does not become so."""
    return _until


def _until(what: Callable[[], object], timeout_s: float = 60.0) -> object:
    deadline = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < deadline, f"within {timeout_s:g} s it stayed {found!r}"
        time.sleep(0.02)
    return found
