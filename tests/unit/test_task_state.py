"""What the service tells of its task: taken whole, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lab.errors import MeasurementError
from lab.task import parse

TOLD = {
    "kind": "memory",
    "running": False,
    "pid": 7,
    "amount": 8,
    "started_ns": 5,
    "ended_ns": 9,
    "deadline_ns": 20,
    "exit_code": 0,
    "signal": 9,
    "made": 0,
    "refused": 0,
    "errno": 0,
    "bytes": 4096,
    "operations": 0,
}


def test_what_does_not_apply_is_none() -> None:
    state = parse(TOLD)
    assert (state.signal, state.exit_code, state.ended_ns) == (9, None, 9)
    gentle = parse({**TOLD, "signal": 0, "more": "ignored"})
    assert gentle == replace(state, signal=None, exit_code=0)
    running = parse({**TOLD, "running": True, "ended_ns": 0, "signal": 0})
    assert (running.signal, running.exit_code, running.ended_ns) == (None, None, None)


@pytest.mark.parametrize(
    "wrong",
    [{"bytes": None}, {"made": "3"}, {"running": 1}, {"errno": True}, {"refused": -1}, {"ended_ns": 4}, {"kind": "x"}],
)
def test_a_state_that_is_not_whole_is_no_state(wrong: dict[str, Any]) -> None:
    with pytest.raises(MeasurementError):
        parse({**TOLD, **wrong})
    with pytest.raises(MeasurementError):
        parse({name: value for name, value in TOLD.items() if name not in wrong})
