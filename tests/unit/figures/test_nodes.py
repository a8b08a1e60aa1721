"""Nodes against each other: a slow one is found with its ratio and interval, and equal ones are said to be."""

from __future__ import annotations

import random

from lab.figures.nodes import compared, notes
from lab.figures.series import Series


def row(node: str, values: list[float], metric: str = "boot_s", label: str = "kubernetes (node-port)") -> Series:
    return Series(
        target="kubernetes",
        label=label,
        metric=metric,
        unit="s",
        dimensions={"node": node, "wait_method": "poll"},
        values=tuple(values),
        rounds=tuple(range(len(values))),
    )


def drawn(seed: int, median: float, n: int = 20) -> list[float]:
    chance = random.Random(seed)
    return [median * chance.uniform(0.9, 1.1) for _ in range(n)]


def test_the_slow_node_is_named_with_its_ratio_and_interval() -> None:
    rows = [row("a", drawn(1, 1.0)), row("b", drawn(2, 1.5)), row("c", drawn(3, 1.0))]
    told = {one.name: one for one in compared(rows)}
    assert told["b"].differs
    assert told["b"].ratio.low is not None and 1.3 < told["b"].ratio.low < told["b"].ratio.value < 1.7
    said = list(notes(rows))
    assert any("the node b takes 1." in text and "95 % interval" in text for text in said)
    assert "no difference" not in " ".join(said)


def test_one_slow_node_makes_no_other_fast_and_two_are_both_found() -> None:
    rows = [row(name, drawn(100 + place, 1.0, n=40)) for place, name in enumerate("abcd")]
    told = compared([*rows[:3], row("d", drawn(9, 2.0, n=40))])
    assert [one.name for one in told if one.differs] == ["d"]
    told = compared([*rows[:2], row("c", drawn(8, 2.0, n=40)), row("d", drawn(9, 4.0, n=40))])
    assert {one.name for one in told if one.differs} == {"c", "d"}
    assert all(one.ratio.value > 1 for one in told if one.differs)


def test_equal_nodes_are_told_apart_no_oftener_than_stated() -> None:
    alarms = 0
    for trial in range(60):
        rows = [row(name, drawn(1000 * trial + place, 1.0, n=8)) for place, name in enumerate("abc")]
        alarms += any(one.differs for one in compared(rows))
    assert alarms <= 8  # 5 % of 60 is 3; more than 8 has a chance of 1 in 300
    rows = [row(name, drawn(place, 1.0)) for place, name in enumerate("ab")]
    assert "no difference was seen between the nodes a, b." in next(iter(notes(rows)))


def test_too_few_rounds_and_what_explains_tell_nothing() -> None:
    few = [row("a", [1.0] * 5), row("b", [2.0] * 5)]
    assert compared(few) == []
    assert "6 rounds at least, are needed" in next(iter(notes(few)))
    explaining = [row("a", drawn(1, 1.0), "stop_s"), row("b", drawn(2, 2.0), "stop_s")]
    assert compared(explaining) == []
    assert list(notes([])) == []
