"""A student's own figures: rows of a stored run, with their interval, over the control, and signed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.figures import stats
from lab.figures.series import CONTROL, Series, beside, ratio_of, series_of
from lab.lesson.lesson import Row
from lab.lesson.record import Figure, Relative
from lab.lesson.signing import sign
from lab.store.record import RunRecord

_MOST_VALUES = 10_000


def rows_of(record: RunRecord, metric: str, where: Mapping[str, str]) -> list[Series]:
    """The run's rows of that metric that have these dimensions, a target each: of several, that of most values."""
    found: dict[str, Series] = {}
    for row in series_of(record):
        if row.metric == metric and all(row.dimensions.get(key) == value for key, value in where.items()):
            known = found.get(row.target)
            if known is None or len(row.values) > len(known.values):
                found[row.target] = row
    return list(found.values())


def row_of(record: RunRecord, wanted: Row) -> Series | None:
    """The row that a step is about: of the first of its targets that has one."""
    found = {row.target: row for row in rows_of(record, wanted.metric, wanted.where)}
    return next((found[name] for name in wanted.of if name in found), None)


def over_control(record: RunRecord, row: Series) -> stats.Ratio | None:
    """The row's median over the bare process's of the same run."""
    return ratio_of(beside(series_of(record), row), row)


def figures_of(record: RunRecord, wanted: Row, key: bytes | None) -> list[Figure]:
    """Every target's, signed."""
    rows = rows_of(record, wanted.metric, wanted.where)
    return [_figure(record, row, rows, key) for row in rows]


def _figure(record: RunRecord, row: Series, rows: Sequence[Series], key: bytes | None) -> Figure:
    values = tuple(row.values[:_MOST_VALUES])
    found = stats.estimate(values)
    ratio = ratio_of(beside(rows, row), row)
    about = {"run_id": record.run.id, "host_id": record.run.host_id, "target": row.target, "metric": row.metric}
    dimensions = dict(row.dimensions)
    return Figure(
        **about,
        label=row.label,
        dimensions=dimensions,
        unit=row.unit,
        n=found.n,
        low=found.low,
        mid=found.median,
        high=found.high,
        relative=Relative(to=CONTROL, mid=ratio.value, low=ratio.low, high=ratio.high) if ratio else None,
        values=list(values),
        signature=sign(**about, dimensions=dimensions, unit=row.unit, values=values, key=key),
    )
