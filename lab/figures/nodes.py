"""Nodes against each other, where a scenario was measured on each (`-p nodes=each`): which are slower than the rest.

A node's values are compared with all other nodes' of the same row by the test that comparisons use, corrected by Holm
over all that is compared (docs/method.md, rule 13), and told as the ratio of the medians with its
interval. A run measures all nodes in each round, in an order by chance, so that drift is the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    """Every node of every answer that was measured on several, where values are enough for an interval."""
    found: list[tuple[Series, Sequence[float]]] = []
    for row in rows:
        others = [value for other in rows if _beside(row, other) for value in other.values]
        if min(len(row.values), len(others)) >= LEAST:
            found.append((row, others))
    p_values = [permutation_test(others, row.values) for row, others in found]
    return [
        Node(row=row, name=row.dimensions[NODE], ratio=stats.ratio(others, row.values), p=p)
        for (row, others), p in zip(found, stats.holm(p_values), strict=True)
    ]


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
    for label in dict.fromkeys(row.label for row in rows if NODE in row.dimensions):
        if not any(one.row.label == label for one in told):
            yield f"{label}: {LEAST} rounds at least are needed to tell nodes apart."


def _beside(row: Series, other: Series) -> bool:
    """Whether `other` is the same row on another node, and one that nodes are compared by."""
    if NODE not in row.dimensions or row.metric in EXPLAINING | COUNTED or other.metric != row.metric:
        return False
    if other.label != row.label or other.dimensions.get(NODE, row.dimensions[NODE]) == row.dimensions[NODE]:
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
