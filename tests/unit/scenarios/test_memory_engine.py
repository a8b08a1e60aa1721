"""What an engine costs before the first instance: of what stands, and not of what passes by."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from lab.features import Feature
from scenarios import memory


class Bench:
    """A bench whose engine has a daemon, which stays, and a `portmap`, which ends while the instance is launched."""

    def __init__(self, passing: subprocess.Popen[bytes]) -> None:
        self.driver = self
        self.name = "fake"
        self.info = type("Info", (), {"features": frozenset[Feature](), "qualifiers": {}})
        self.emitted: dict[str, float] = {}
        self._passing = passing

    def engine_pids(self) -> Mapping[int, str]:
        return {os.getpid(): "daemon", self._passing.pid: "portmap", 2**22 + 1: "gone"}

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        self._passing.kill()
        self._passing.wait(10)
        yield type("Session", (), {"answer": None, "instance": None})

    def emit(self, metric: str, value: float, unit: str, **dimensions: str) -> None:
        self.emitted[dimensions["process"]] = value


def test_the_fixed_cost_is_of_what_was_there_before_and_after_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.Memory, "_emit", lambda *_: None)
    with subprocess.Popen(["sleep", "60"]) as passing:
        bench: Any = Bench(passing)
        memory.Memory(settle=0).measure(bench)
    assert set(bench.emitted) == {"daemon"} and bench.emitted["daemon"] > 0
