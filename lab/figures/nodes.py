"""Nodes against each other, where a scenario was measured on each (`-p nodes=each`): which are slower than the rest.

A node's values are compared with all other nodes' of the same row by the test that comparisons use, and told as the
ratio of the medians with its interval. The one that differs most is found first and then left out, so that one slow
node does not make the others fast; each step is corrected for all that it compares, as Holm does (docs/method.md, rule
13). A run measures all nodes in each round, in an order by chance, so that drift is the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lab.figures import stats
from lab.figures.rank_test import permutation_test
from lab.figures.series import COUNTED, EXPLAINING, NODE, Series

ALPHA = 0.05
LEAST = 6
"""Values on each side, below which the median has no interval (docs/method.md, rule 8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node's row over the other nodes' values: their ratio, and the test's p, corrected."""

    row: Series
    name: str
    ratio: stats.Ratio
    p: float

    @property
    def differs(self) -> bool:
        return self.p <= ALPHA


def compared(rows: Sequence[Series]) -> list[Node]:
    """Every node of every answer that was measured on several, where values are enough for an interval; those that
    differ first, in the order in which they were found."""
    left = [row for row in rows if NODE in row.dimensions and row.metric not in EXPLAINING | COUNTED]
    found: list[Node] = []
    while tested := [one for row in left if (one := _tested(row, left)) is not None]:
        nearest = min(tested, key=lambda one: (one.p, -one.ratio.value))
        corrected = min(1.0, nearest.p * len(tested))
        if corrected > ALPHA:
            return [*found, *(replace(one, p=min(1.0, one.p * len(tested))) for one in tested)]
        found.append(replace(nearest, p=corrected))
        left.remove(nearest.row)
    return found


def _tested(row: Series, left: Sequence[Series]) -> Node | None:
    """Against the other nodes that are left; None where there are too few values, or the ratio has no meaning."""
    others = [value for other in left if _beside(row, other) for value in other.values]
    if min(len(row.values), len(others)) < LEAST or min(others) <= 0:
        return None
    p = permutation_test(others, row.values)
    return Node(row=row, name=row.dimensions[NODE], ratio=stats.ratio(others, row.values), p=p)


def notes(rows: Sequence[Series]) -> Iterator[str]:
    """What a reader is told: each node that differs, or that none was seen to."""
    told = compared(rows)
    for one in told:
        if one.differs:
            yield (
                f"{one.row.label}, {_called(one.row)}: the node {one.name} takes {_times(one.ratio)} of the other "
                f"nodes' median (n = {len(one.row.values)}, p = {one.p:.2g} after Holm)."
            )
    for label in dict.fromkeys(one.row.label for one in told):
        own = [one for one in told if one.row.label == label]
        if not any(one.differs for one in own):
            names = sorted({one.name for one in own})
            yield f"{label}: no difference was seen between the nodes {', '.join(names)}."
    for label in dict.fromkeys(row.label for row in rows if NODE in row.dimensions and row.metric not in EXPLAINING):
        if not any(one.row.label == label for one in told):
            yield f"{label}: several nodes, and {LEAST} rounds at least, are needed to tell nodes apart."


def _beside(row: Series, other: Series) -> bool:
    """Whether `other` is the same row on another node."""
    if (
        other.metric != row.metric
        or other.label != row.label
        or other.dimensions.get(NODE, row.dimensions[NODE]) == row.dimensions[NODE]
    ):
        return False
    return _rest(row) == _rest(other)


def _rest(row: Series) -> dict[str, str]:
    return {key: text for key, text in row.dimensions.items() if key != NODE}


def _called(row: Series) -> str:
    return " ".join([row.metric, *(f"{key}={text}" for key, text in _rest(row).items() if key != "wait_method")])


def _times(ratio: stats.Ratio) -> str:
    low, high = ratio.low, ratio.high
    interval = f" (95 % interval {low:.2f} to {high:.2f})" if low is not None and high is not None else ""
    return f"{ratio.value:.2f}x{interval}"
