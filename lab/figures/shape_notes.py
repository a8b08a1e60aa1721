"""The words for what a median cannot tell: groups, drift, steps and outliers, of a run's totals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab import units
from lab.figures import series, stats
from lab.figures.series import COUNTED, EXPLAINING, Series
from lab.figures.shapes import LEVEL, Drift, Groups, Outliers, Shape, Steps, shapes

_NAMED = 4
"""Steps or outliers that are told one by one."""
_METHOD = (
    "Two groups, drift, steps and outliers are looked for in every total, by tests that together tell something of at "
    f"most {LEVEL:.0%} of runs that have none of them."
)


def of_rows(rows: Sequence[Series]) -> Iterator[str]:
    """A sentence for each shape of each total, and how they were found; nothing where none was."""
    totals = [row for row in rows if _has_shape(row)]
    several = len({row.metric for row in totals}) > 1
    told = [
        f"{row.label}{f', {row.name}' if several else ''}: {_said(shape, row)}"
        for row in totals
        for shape in shapes(row.values, row.rounds, row.unit, rows=len(totals))
    ]
    yield from told
    if told:
        yield _METHOD


def _has_shape(row: Series) -> bool:
    """What is counted one by one has no smooth hill to begin with."""
    return bool(row.unit) and row.metric not in EXPLAINING | COUNTED and not series.is_fact(row)


def _said(shape: Shape, row: Series) -> str:
    n, unit = len(row.values), row.unit
    match shape:
        case Groups(counts=counts, medians=medians, between=between, change=change):
            groups = [f"{units.quantity(at, unit)} ({k} of {n})" for at, k in zip(medians, counts, strict=True)]
            when = "they came mixed over the rounds"
            if change:
                when = f"the change came between rounds {change[0]} and {change[1]}"
            of_neither = between[0] < stats.estimate(row.values).median < between[1]
            return f"two groups, {' and '.join(groups)}; {when}{', and no value is the median' if of_neither else ''}."
        case Drift(first=first, last=last, correlation=correlation):
            return (
                f"its values {'rise' if correlation > 0 else 'fall'} over the rounds, from "
                f"{units.quantity(first, unit)} in the first third to {units.quantity(last, unit)} in the last (rank "
                f"correlation {correlation:.2f}): the median is of no one time."
            )
        case Steps(size=size, at=at):
            steps = [f"{units.quantity(value, unit)} ({k} of {n})" for value, k in at[:_NAMED]]
            more = f" and {len(at) - _NAMED} more" if len(at) > _NAMED else ""
            return (
                f"its values come in steps of {units.quantity(size, unit)}, as behind something that looks or acts at "
                f"intervals: {', '.join(steps)}{more}."
            )
        case Outliers(values=values, rounds=rounds):
            if len(values) > _NAMED:
                spread = f"from {units.quantity(min(values), unit)} to {units.quantity(max(values), unit)}"
                return f"{len(values)} of {n} are outliers, {spread}."
            each = [f"{units.quantity(one, unit)} in round {at}" for one, at in zip(values, rounds, strict=True)]
            return f"{len(values)} of {n} {'is an outlier' if len(values) == 1 else 'are outliers'}: {', '.join(each)}."
