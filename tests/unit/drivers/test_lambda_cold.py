"""Ending a function's workers: also one that the platform had not known yet when it was asked for the first time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from drivers.awslambda import function
from drivers.awslambda.function import Function
from drivers.awslambda.workers import Worker
from lab.errors import DriverError


class Platform:
    """It ends a worker only once it knows it: `late` is known to it from the second time on."""

    def __init__(self, *, late: bool) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self._left = {"known"} | ({"late"} if late else set())

    def configure(self, name: str, **settings: Any) -> None:
        self.asked.append(settings["Environment"]["Variables"])
        self._left -= {"known"} if len(self.asked) == 1 else {"known", "late"}

    def find(self, labels: Mapping[str, str]) -> list[Worker]:
        return [Worker(name, labels, True, 0) for name in sorted(self._left)]

    def processes(self, labels: Mapping[str, str]) -> Mapping[int, Any]:
        return {}


def made(platform: Platform) -> Function:
    parts: Any = platform
    return Function(
        "f",
        labels={"lab.launch": "l", "lab.run": "r"},
        endpoint=None,
        environment={"A": "b"},
        api=parts,
        docker=parts,
        workers=parts,
        events=parts,
    )


def test_workers_that_end_at_once_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform(late=False)
    made(platform).force_cold(timeout_s=5)
    assert platform.asked == [{"A": "b", "LAB_COLD": "1"}]


def test_a_worker_that_was_just_being_started_is_asked_for_again_by_another_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(function, "_AGAIN_S", 0.0)
    platform = Platform(late=True)
    made(platform).force_cold(timeout_s=5)
    assert platform.asked == [{"A": "b", "LAB_COLD": "1"}, {"A": "b", "LAB_COLD": "2"}]


def test_one_that_never_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform(late=True)
    with pytest.raises(DriverError, match=r"workers late are still there after 0\.1 s"):
        made(platform).force_cold(timeout_s=0.1)
