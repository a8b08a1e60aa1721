"""Bursts by who does them: the jobs, the service's own answers meanwhile, memory, and from where on which is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lab import units
from lab.figures import stats, tandem
from lab.figures.series import ABSENT, Series
from lab.figures.tandem import ARRANGEMENT, BURST, LONG, PAUSE, WINDOW, WORDS
from lab.show.terminal import printable
from lab.store.record import RunRecord

GROUPED = frozenset(
    {"first_job_s", "half_job_s", "jth_job_s", "steady_p99_s", "steady_worst_s", "cold_starts", "failed_jobs"}
    | {"held_bytes", "mean_held_bytes", "saved_bytes", "save_s"}
)
"""What is in these tables and charts, and in no list of what is left."""


@dataclass(frozen=True, slots=True)
class Case:
    """One arrangement, burst and pause."""

    who: str
    arrangement: str
    burst: str
    pause: str

    @property
    def said(self) -> list[str]:
        """For a table's row."""
        pause = self.pause if self.pause == LONG else f"{self.pause} s"
        return [self.who if self.arrangement in self.who else f"{self.who}\n{self.arrangement}", self.burst, pause]


def cases(rows: Sequence[Series]) -> list[Case]:
    """By who does the jobs as it was first measured, then by burst and pause."""
    found = dict.fromkeys(_case(row) for row in rows if row.metric == "failed_jobs")
    order = list(dict.fromkeys(case.who for case in found))
    return sorted(found, key=lambda one: (order.index(one.who), int(one.burst), _seconds(one.pause)))


def parts(record: RunRecord, rows: Sequence[Series]) -> list[RenderableType]:
    """All of it; nothing where no burst was measured."""
    if not cases(rows):
        return []
    found: list[RenderableType] = [Text(), _table(jobs(rows)), Text(), _table(service(rows))]
    found += [Text(), _table(memory(rows))]
    if len(told := better(rows)) > 1:
        found += [Text(), _table(told, words=True)]
    if lines := failed(record):
        found += [Text(), _table([["jobs that were not done", "why"], *lines], words=True)]
    return found


def jobs(rows: Sequence[Series]) -> list[list[str]]:
    """The headings, and a row for each case: medians, and below the last job's its interval or range."""
    grid = [["jobs", "burst", "pause", "first job", "half", "last job", "cold starts", "failed jobs", "n"]]
    for case in cases(rows):
        mine = [row for row in rows if _is_of(row, case)]
        last = _one(mine, "last_job_s")
        times = [_median(_one(mine, metric)) for metric in ("first_job_s", "half_job_s")]
        counts = [_median(_one(mine, metric), plain=True) for metric in ("cold_starts", "failed_jobs")]
        grid.append([*case.said, *times, _spread(last), *counts, str(len(last.values) if last else 0)])
    return grid


def service(rows: Sequence[Series]) -> list[list[str]]:
    """The headings, and a row for each case: p99 of the service's own requests before, during and after, and below it
    the longest of them."""
    grid = [["the service's p99, longest", "burst", "pause", "before", "during", "after"]]
    for case in cases(rows):
        grid.append([*case.said, *(_answers(rows, case, window) for window in ("before", "during", "after"))])
    return grid


def memory(rows: Sequence[Series]) -> list[list[str]]:
    """The headings, and a row for each case: what is held by the service and the other half."""
    grid = [["memory held", "burst", "pause", "at rest", "peak", "mean", "after", "on disk"]]
    for case in cases(rows):
        mine = [row for row in rows if _is_of(row, case)]
        around = [row for row in rows if _is_around(row, case)]
        cells = [
            _one(around, "held_bytes", at="before"),
            _one(mine, "held_bytes", at="peak"),
            _one(mine, "mean_held_bytes"),
            _one(around, "held_bytes", at="after"),
            _one(around, "saved_bytes"),
        ]
        grid.append([*case.said, *map(_median, cells)])
    return grid


def better(rows: Sequence[Series]) -> list[list[str]]:
    """The headings, and a row for each question: from which burst, or which pause, on who is better than whom."""
    grid = [["better in", "who", "than", "at", "from", "x"]]
    for one in tandem.crossings(rows):
        grid.append([WORDS[one.metric], one.who, one.base, one.at, one.said, tandem.ratios(one)])
    return grid


def failed(record: RunRecord) -> list[list[str]]:
    """A row for each case whose burst was not done in some round, with the last reason."""
    found: dict[str, str] = {}
    for sample in record.samples:
        of = sample.dimensions.get("of", "")
        if sample.metric == ABSENT and not sample.warmup and of.startswith(f"last_job_s {ARRANGEMENT}="):
            found[f"{sample.target} {of.removeprefix('last_job_s ')}"] = sample.dimensions.get("why", "")
    return [list(line) for line in found.items()]


def _case(row: Series) -> Case:
    told = row.dimensions
    return Case(tandem.who(row), told.get(ARRANGEMENT, ""), told.get(BURST, ""), told.get(PAUSE, ""))


def _is_of(row: Series, case: Case) -> bool:
    return ARRANGEMENT in row.dimensions and _case(row) == case


def _is_around(row: Series, case: Case) -> bool:
    """Whether it is of the burst's size, whatever the pause."""
    told = _case(row)
    return PAUSE not in row.dimensions and (told.who, told.arrangement, told.burst) == (
        case.who,
        case.arrangement,
        case.burst,
    )


def _one(rows: Sequence[Series], metric: str, **dimensions: str) -> Series | None:
    found = (row for row in rows if row.metric == metric and dimensions.items() <= row.dimensions.items())
    return next(found, None)


def _answers(rows: Sequence[Series], case: Case, window: str) -> str:
    mine = [row for row in rows if row.dimensions.get(WINDOW) == window]
    mine = [row for row in mine if (_is_of(row, case) if window == "during" else _is_around(row, case))]
    return "\n".join(_median(_one(mine, metric)) for metric in ("steady_p99_s", "steady_worst_s"))


def _median(row: Series | None, *, plain: bool = False) -> str:
    if row is None:
        return "-"
    median = stats.estimate(row.values).median
    return f"{median:g}" if plain else units.quantity(median, row.unit)


def _spread(row: Series | None) -> str:
    """The median, and below it the interval, or the range of fewer than 6."""
    if row is None:
        return "-"
    found = stats.estimate(row.values)
    low, high = (found.minimum, found.maximum) if found.low is None or found.high is None else (found.low, found.high)
    return f"{units.quantity(found.median, row.unit)}\n{units.span(low, high, row.unit, like=found.median)}"


def _seconds(pause: str) -> float:
    return -1.0 if pause == LONG else float(pause)


def _table(grid: Sequence[Sequence[str]], *, words: bool = False) -> Table:
    from lab.show.listing import plain_table

    table = plain_table(*grid[0], text_columns=len(grid[0]) if words else 1)
    for row in grid[1:]:
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    return table
