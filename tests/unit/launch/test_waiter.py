"""How long an attempt is waited for before another begins beside it."""

from __future__ import annotations

import pytest

from lab.launch.waiter import ABANDON_AFTER_S, PATIENT_AFTER_S, patience_s


def test_patience_grows_only_after_what_a_launch_may_take() -> None:
    assert patience_s(0) == patience_s(PATIENT_AFTER_S) == ABANDON_AFTER_S
    assert patience_s(PATIENT_AFTER_S + 40) == pytest.approx(10)
    # Ten attempts overlap, so that the next begins within a fortieth of the time for which it was asked.
    assert all(patience_s(asked_s) / 10 <= asked_s / 40 for asked_s in (11, 60, 900))
