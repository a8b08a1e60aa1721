"""Bursts by who does them: the jobs, the service's own answers meanwhile, memory, and from where on which is better."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lab import units
from lab.figures import stats, tandem
from lab.figures.series import ABSENT, Series
from lab.figures.tandem import ARRANGEMENT, BURST, LONG, PAUSE, WINDOW, WITHIN, WORDS
from lab.show.terminal import printable
from lab.store.record import RunRecord

GROUPED = frozenset(
    {"first_job_s", "half_job_s", "jth_job_s", "steady_p99_s", "steady_worst_s", "cold_starts", "failed_jobs"}
    | {"held_bytes", "mean_held_bytes", "saved_bytes", "save_s"}
)
"""What is in these tables and charts, and in no list of what is left."""


TOTALS = frozenset({"last_job_s"})
"""Totals that have their medians, intervals and numbers of values in these tables."""

_WINDOWS = ("before", "during", "after")


@dataclass(frozen=True, slots=True)
class Case:
    """One arrangement, burst and pause."""

    who: str
    arrangement: str
    burst: str
    pause: str

    @property
    def title(self) -> str:
        """Who does the jobs, and how."""
        return self.who if self.who.endswith(f" {self.arrangement}") else f"{self.who}: {self.arrangement}"

    @property
    def said(self) -> str:
        """For a table's row."""
        return f"{self.burst}, {self.pause if self.pause == LONG else f'{self.pause} s'}"


def cases(rows: Sequence[Series]) -> list[Case]:
    """By who does the jobs, the service itself first, then as first measured; then by burst and pause."""
    found = dict.fromkeys(_case(row) for row in rows if row.metric == "failed_jobs")
    order = list(dict.fromkeys(case.who for case in sorted(found, key=lambda case: case.arrangement != WITHIN)))
    return sorted(found, key=lambda one: (order.index(one.who), int(one.burst), _seconds(one.pause)))


def parts(record: RunRecord, rows: Sequence[Series]) -> list[RenderableType]:
    """All of it, by who does the jobs; nothing where no burst was measured."""
    found: list[RenderableType] = []
    compared = better(rows)
    for who, own in itertools.groupby(cases(rows), key=lambda case: case.who):
        mine = list(own)
        found += [Text(), Text(printable(mine[0].title), "bold")]
        found += [_table(done(rows, mine)), Text(), _table(memory(rows, mine))]
        if told := [line[1:] for line in compared[1:] if line[0] == who]:
            found += [Text(), _table([compared[0][1:], *told], words=True)]
    if lines := failed(record):
        found += [Text(), _table([["jobs that were not done", "why"], *lines], words=True)]
    return found


def done(rows: Sequence[Series], chosen: Sequence[Case]) -> list[list[str]]:
    """The headings, and a row for each case: when jobs were done, what came for them, and how the service answered
    meanwhile: medians, below the last job's its interval or range, and below a p99 the longest."""
    headings = ["burst, pause", "first job", "half", "last job", "cold starts", "p99 before", "during", "after", "n"]
    grid = [headings]
    for case in chosen:
        mine = [row for row in rows if _is_of(row, case)]
        last = _one(mine, "last_job_s")
        times = [_median(_one(mine, metric)) for metric in ("first_job_s", "half_job_s")]
        starts = _median(_one(mine, "cold_starts"), plain=True)
        answers = [_answers(rows, case, window) for window in _WINDOWS]
        grid.append([case.said, *times, _spread(last), starts, *answers, str(len(last.values) if last else 0)])
    return grid


def memory(rows: Sequence[Series], chosen: Sequence[Case]) -> list[list[str]]:
    """The headings, and a row for each case: jobs that failed, and what is held by the service and the other half."""
    grid = [["burst, pause", "failed jobs", "held at rest", "peak", "mean", "held after", "on disk", "to save"]]
    for case in chosen:
        mine = [row for row in rows if _is_of(row, case)]
        around = [row for row in rows if _is_around(row, case)]
        cells = [
            _one(around, "held_bytes", at="before"),
            _one(mine, "held_bytes", at="peak"),
            _one(mine, "mean_held_bytes"),
            _one(around, "held_bytes", at="after"),
            _one(around, "saved_bytes"),
            _one(mine, "save_s"),
        ]
        failures = _median(_one(mine, "failed_jobs"), plain=True)
        grid.append([case.said, failures, *map(_median, cells)])
    return grid


def better(rows: Sequence[Series]) -> list[list[str]]:
    """The headings, and a row for each question: from which burst, or which pause, on who is better than whom."""
    grid = [["who", "better in", "than", "at", "from", "x by size"]]
    for one in tandem.crossings(rows):
        grid.append([one.who, WORDS[one.metric], one.base, one.at, one.said, tandem.ratios(one)])
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
    p99, worst = (_one(mine, metric) for metric in ("steady_p99_s", "steady_worst_s"))
    return f"{_median(p99)}\n{_longest(p99, worst)}"


def _longest(p99: Series | None, worst: Series | None) -> str:
    """The median of the rounds' longest answers; a round in which one never came has none, and counts as endless."""
    endless = set(p99.rounds if p99 else ()) - set(worst.rounds if worst else ())
    values = [*(worst.values if worst else ()), *([math.inf] * len(endless))]
    if not values:
        return "-"
    middle = statistics.median(values)
    return units.quantity(middle, "s") if math.isfinite(middle) else "endless"


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
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for place, heading in enumerate(grid[0]):
        left = words or place == 0
        told = heading if words else "\n".join(heading.split())
        table.add_column(told, justify="left" if left else "right", overflow="fold", no_wrap=not words)
    for row in grid[1:]:
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    return table
