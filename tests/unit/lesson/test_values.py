"""What students write for a value or an interval."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.lesson.values import EXAMPLES, parse


@pytest.mark.parametrize(
    ("text", "low", "high", "unit"),
    [
        ("300-375ms", 0.3, 0.375, "s"),
        ("300-375 ms", 0.3, 0.375, "s"),
        ("300ms-0.4s", 0.3, 0.4, "s"),
        ("0,3 s bis 0,4 s", 0.3, 0.4, "s"),
        ("0.3 to 0.4 s", 0.3, 0.4, "s"),
        ("300\u2013375 ms", 0.3, 0.375, "s"),
        ("[300; 375] ms", 0.3, 0.375, "s"),
        ("10.8..32.4x", 10.8, 32.4, "x"),
        ("10.8-32.4 \u00d7", 10.8, 32.4, "x"),
        ("14.9-15.3MiB", 14.9 * 2**20, 15.3 * 2**20, "bytes"),
        ("14-15 MB", 14e6, 15e6, "bytes"),
        ("1,491-1,520", 1491.0, 1520.0, ""),
        ("85-99 functions", 85.0, 99.0, "functions"),
    ],
)
def test_an_interval_is_read_as_people_write_it(text: str, low: float, high: float, unit: str) -> None:
    found = parse(text)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.unit, found.single) == (unit, False)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [("50ms", 0.05, "s"), ("2 min", 120.0, "s"), ("1,5 s", 1.5, "s"), ("16x", 16.0, "x"), ("3", 3.0, "")],
)
def test_a_single_number_is_told_from_an_interval(text: str, value: float, unit: str) -> None:
    found = parse(text)
    assert (found.low, found.high, found.unit, found.single) == (pytest.approx(value), pytest.approx(value), unit, True)


@pytest.mark.parametrize("text", ["", "banana", "ms", "5-3ms", "1s-2MiB", "-", "1.2.3.4s", "5ms-", "\u0661ms-x"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


def test_the_examples_are_values_themselves() -> None:
    assert all(parse(text).unit == unit for unit, text in EXAMPLES.items())


@given(st.text(max_size=40))
def test_no_text_ends_it_otherwise(text: str) -> None:
    try:
        found = parse(text)
    except ValueError:
        return
    assert found.low <= found.high
