"""Quantities as a reader takes them in."""

from __future__ import annotations

import pytest

from lab.units import duration


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "1 s"),
        (0.4, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (130.0, "2 min 10 s"),
        (3599.6, "1 h"),
        (3900.0, "1 h 5 min"),
        (86399.0, "24 h"),
    ],
)
def test_a_duration_is_told_no_more_exactly_than_one_wants_to_know(seconds: float, told: str) -> None:
    assert duration(seconds) == told
