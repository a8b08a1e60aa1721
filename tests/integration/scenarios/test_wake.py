"""Asleep and awake on real platforms: each state is proven, what it holds is counted, and what wakes is told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lab.driver import Context, Driver
from lab.figures.series import FACT
from lab.registry import make_driver
from lab.spec import Target
from lab.store.record import Outcome, RunRecord
from lab.units import MIB
from scenarios.wake import Wake

ASLEEP_S = 0.5
HOW = {
    "process paused": "its processes are stopped",
    "docker stopped": "no process of it is left",
    "swarm zero": "no process of it is left",
    "libvirt:microvm saved": "no process of it is left",
    "libvirt:microvm paused": "its virtual CPUs are held still: their threads did not run",
}
SLEEPERS = [
    pytest.param(target, states, marks=pytest.mark.engine(target))
    for target, states in (
        ("process", "paused"),
        ("docker", "stopped"),
        ("swarm", "zero"),
        ("libvirt:microvm", "paused,saved"),
    )
]


@pytest.fixture
def driver(target: str, make_context: Callable[..., Context]) -> Iterator[Driver]:
    made = make_driver(Target.parse(target), make_context())
    yield made
    made.close()


@pytest.mark.parametrize(("target", "states"), SLEEPERS)
def test_what_sleeps_is_proven_and_what_wakes_is_what_it_has_to_be(
    target: str, states: str, driver: Driver, measure: Callable[..., RunRecord]
) -> None:
    record = measure(Wake(states=states, asleep=ASLEEP_S, answers=3, evict=True), driver)
    failed = [one.error for one in record.launches if one.outcome is Outcome.FAILED]
    assert not failed
    for state in states.split(","):
        told = {one.metric: one.value for one in record.samples if one.dimensions.get("state") == state}
        facts = {one.dimensions["probe"]: one.dimensions["said"] for one in record.samples if one.metric == FACT}
        assert told["wake_s"] > 0 < told["sleep_s"]
        assert facts[f"{state}: asleep"] == HOW[f"{target} {state}"]
        kept = state in ("paused", "saved")
        assert facts[f"{state}: who answers"].startswith("the same:" if kept else "a new one:")
        guest = target.startswith("libvirt")
        assert told["clock_late_s"] > ASLEEP_S / 2 if guest else abs(told["clock_late_s"]) < ASLEEP_S / 2
        assert (told["asleep_pss_bytes"] > 0) == (state == "paused")
        if state == "saved":
            assert told["asleep_disk_bytes"] > MIB
            assert facts["saved: uniqueness"].startswith(
                "no: two copies that were woken of it had the same token, boot id"
            )
