"""How often `compare` alarms on chance alone, and how often it finds what is there: many runs, of fixed seeds."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from lab.figures import density
from lab.figures.compared import Row, RunComparison, Verdict
from lab.figures.comparison import compare_runs
from lab.store.record import RunRecord

Make = Callable[..., RunRecord]


def row(comparison: RunComparison, target: str, name: str = "boot_s") -> Row:
    (found,) = [r for r in comparison.rows if r.target == target and r.name.startswith(name)]
    return found


def test_runs_of_chance_alone_alarm_at_about_the_stated_rate(make_record: Make) -> None:
    instants = {"process": {"ready": 3.0}, "docker": {"ready": 300.0}}
    pairs = [
        compare_runs(
            make_record("a", seed=2 * i, n=10, noise=0.08, instants=instants),
            make_record("b", seed=2 * i + 1, n=10, noise=0.08, instants=instants),
        )
        for i in range(16)
    ]
    # At 5 %, 5 or more of 16 come up once in 1,000; with these seeds it is always the same.
    assert sum(bool(pair.alarms) for pair in pairs) <= 4
    found = compare_runs(
        make_record("a", seed=1, n=20, noise=0.08, instants=instants),
        make_record("b", seed=2, n=20, noise=0.08, instants={**instants, "docker": {"ready": 350.0}}),
    )
    assert row(found, "docker").verdict is Verdict.SLOWER


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The made-up runs of the acceptance check."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "accept"))
    yield importlib.import_module("made_memory")
    sys.modules.pop("made_memory", None)


def test_twenty_mib_more_an_instance_is_found_in_95_of_100_runs(made: ModuleType) -> None:
    chance = random.Random(11)
    found = 0
    for _ in range(100):
        a = made.density_run(chance, "a", rounds=3)
        b = made.density_run(chance, "b", rounds=3, more_mib={"docker": 20.0})
        found += any(
            row.target == "docker" and row.metric == density.MARGINAL for row in compare_runs(a, b).regressions
        )
    assert found >= 95


def test_twenty_mib_more_in_a_service_is_found_in_95_of_100_runs(made: ModuleType) -> None:
    chance = random.Random(12)
    found = 0
    for _ in range(100):
        a = made.memory_run(chance, "a", n=6)
        b = made.memory_run(chance, "b", n=6, more_mib={"docker": 20.0})
        found += any(row.target == "docker" and row.metric == "pss_bytes" for row in compare_runs(a, b).regressions)
    assert found >= 95
