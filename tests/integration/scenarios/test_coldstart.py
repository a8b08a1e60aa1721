"""The scenario `coldstart` on a real function: the lab's service behind a socket."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from drivers.socket import SocketDriver
from lab.driver import Context
from lab.figures.series import call_chain, series_of
from lab.store.record import Outcome, RunRecord
from scenarios.coldstart import Coldstart

pytestmark = pytest.mark.engine("socket:activator")

SERVICE_CHAIN = ["main", "listening", "handler", "answer"]


def test_every_state_is_proven_and_every_phase_told(
    measure: Callable[..., RunRecord], make_context: Callable[..., Context]
) -> None:
    driver = SocketDriver("activator", make_context(**{"socket-keep-alive": "1"}))
    record = measure(Coldstart(warm=3, burst=4, gaps="3", longest_gap_s=4), driver)
    (launch,) = record.launches
    assert launch.outcome is Outcome.OK, launch.error
    found: dict[str, list[float]] = {}
    for one in record.samples:
        found.setdefault(one.metric, []).append(one.value)
    assert set(found["failed_calls"]) == {0}
    (cold,), (first,), (warm,) = (found[f"{state}_s"] for state in ("cold", "first", "warm"))
    assert min(cold, first, warm) > 0
    assert found["burst_workers"] == [1] and len(found["kth_answer_s"]) == 4
    gaps = {one.dimensions["gap"]: one.value for one in record.samples if one.metric == "cold_after_gap"}
    assert gaps["3"] == 1, "three times the time that it is kept"
    rows = series_of(record)
    steps = call_chain(rows, "socket", "cold")
    assert [step.end for step in steps] == SERVICE_CHAIN
    assert sum(step.median for step in steps) == pytest.approx(cold)
    shown = [one.dimensions["to"] for one in record.samples if one.metric == "shown_s"]
    assert set(shown) <= {"created", "started"}
