"""Figures of two hosts: each over the control of its own host, the bare process of the same run and round.

What a launch takes on one machine says nothing of another; how many times the bare process's it takes says something.
The control is divided by round by round, since a run interleaves its targets, so that a ratio's spread has the
control's in it, and the tests of a comparison hold their level.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lab.errors import IncomparableRuns
from lab.figures.series import CONTROL, WAIT_METHOD, Series
from lab.store.record import Run, RunRecord
from lab.units import RATIO

OVER = "over"
"""The dimension of a figure that is a ratio to the control's: which target that is."""

_DIVIDED = frozenset({"s", "bytes"})


def of_two_hosts(a: Run, b: Run) -> bool:
    """Whether the runs are known to be of different machines."""
    return bool(a.host_id and b.host_id) and a.host_id != b.host_id


def over_control(rows: Sequence[Series]) -> list[Series]:
    """The rows that can stand beside another host's: ratios as they are, and times and sizes over the control's same
    metric of the same round."""
    found = []
    for row in rows:
        if row.unit == RATIO:
            found.append(row)
        elif row.unit in _DIVIDED and row.target != CONTROL:
            found += [one for control in _controls(rows, row) if (one := _divided(row, control)) is not None]
    return found


def undivided(rows: Sequence[Series]) -> list[Series]:
    """The rows that `over_control` leaves out."""
    kept = {(row.label, row.metric, row.name.removesuffix(f" {OVER}={CONTROL}")) for row in over_control(rows)}
    return [row for row in rows if (row.label, row.metric, row.name) not in kept]


def require_control(records: Iterable[RunRecord], rows: Iterable[Sequence[Series]]) -> None:
    """Raises IncomparableRuns for the first run without a measured control."""
    for record, found in zip(records, rows, strict=True):
        if not any(row.target == CONTROL for row in found):
            raise IncomparableRuns(
                f"run {record.run.id} is of another host ({record.run.host_name or record.run.host_id}) and has no "
                f"'{CONTROL}', over which alone figures of two hosts can be compared",
                resolution=f"run both with -t {CONTROL},…",
            )


def _controls(rows: Sequence[Series], row: Series) -> list[Series]:
    """The control's row of the same kind, however each was waited for."""
    same = [one for one in rows if one.target == CONTROL and one.metric == row.metric and _kind(one) == _kind(row)]
    return same[:1]


def _kind(row: Series) -> dict[str, str]:
    return {key: value for key, value in row.dimensions.items() if key != WAIT_METHOD}


def _divided(row: Series, control: Series) -> Series | None:
    """The ratio of each round in which both were measured; of several values in a round, of their medians."""
    own, base = _by_round(row), _by_round(control)
    rounds = [place for place in own if base.get(place, 0.0) > 0]
    if not rounds:
        return None
    values = tuple(own[place] / base[place] for place in rounds)
    dimensions = {**row.dimensions, OVER: CONTROL}
    return replace(row, unit=RATIO, dimensions=dimensions, values=values, rounds=tuple(rounds))


def _by_round(row: Series) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for place, value in zip(row.rounds, row.values, strict=True):
        found.setdefault(place, []).append(value)
    return {place: statistics.median(values) for place, values in found.items()}
