"""Runs and comparisons as text for a terminal: readable in 80 columns and without colour."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lab import units
from lab.figures import notes, series, stats
from lab.figures.series import EXPLAINING, SEEN, WAIT_METHOD, Series, Step
from lab.show import table_evidence, table_memory, table_wake
from lab.show.application import table as application_table
from lab.show.calls import table as calls_table
from lab.show.listing import plain_table
from lab.show.talk import table as talk_table
from lab.show.tandem import table as tandem_table
from lab.show.terminal import printable
from lab.store.record import Outcome, RunRecord

if TYPE_CHECKING:
    from lab.figures.compared import Row, RunComparison

LOOKS = {  # of a step in a bar, by the phase that ends it: a glyph for paper, and a colour beside it
    "kernel": ("░", "bright_black"),
    "init": ("▒", "blue"),
    "userspace": ("▚", "yellow"),
    "main": ("█", "cyan"),
    "listening": ("▚", "magenta"),
    "ready": ("▓", "green"),
    "handler": ("▒", "blue"),
    "answer": ("▓", "green"),
}
_OTHER_LOOK = ("▞", "yellow")
_MAX_BAR = 100
_WHOLE = 26  # characters: "libvirt:microvm (tcg)" and some more
_LEAST_NAME = 18
_FAILURES_SHOWN = 3
_COMPARED_RATIO = "B / A"
_SHORT = {"no difference seen": "none seen"}  # below the heading "difference"


def render_run(record: RunRecord) -> RenderableType:
    """A run's totals, where the time goes, what failed or was left out, and what a reader must know."""
    rows = series.series_of(record)
    facts = [row for row in rows if series.is_fact(row)]
    own = [row for row in rows if row.metric not in EXPLAINING | tandem_table.TOTALS and row not in facts]
    metrics = list(dict.fromkeys(row.metric for row in own))
    parts: list[RenderableType] = [_line(notes.headline(record), "bold")]
    parts += [_line(text, "") for text in notes.said(record.run)]
    for metric in metrics:
        parts += [Text(), _totals(record, rows, metric)]
    if facts:
        parts += [Text(), _Facts(series.fact_grid(record, facts))]
    chains = [target.target for target in record.targets if series.chain(rows, target.target, series.SERVICE)]
    if chains:
        parts += [Text(), _line("Where the time goes (each bar is one target's own whole)", "bold")]
        parts += [_phases(rows, target) for target in chains]
    parts += application_table.parts(record, rows)
    parts += calls_table.parts(record, rows, _call)
    parts += table_wake.parts(record, rows)
    parts += talk_table.parts(record, rows)
    parts += tandem_table.parts(record, rows)
    parts += table_memory.parts(record, rows)
    parts += table_evidence.parts(record)
    if any(row.metric in _ENDS for row in rows):
        parts += [Text(), _ends(record, rows)]
    if any(target.outcome is not Outcome.OK for target in record.targets):
        parts += [Text(), _not_measured(record)]
    told = [*_failed_launches(record), *notes.of_run(record, rows)]
    if told:
        parts += [Text(), *(_line(f"- {text}", "") for text in told)]
    if missing := notes.missing(record):
        parts += [Text(), _line(f"Asked for and not measured: {missing}.", "bold")]
    return Group(*parts)


def render_comparison(comparison: RunComparison) -> RenderableType:
    """B against A: each total with its numbers of values, each phase, in what else the runs differ, and the verdict."""
    title = f"{comparison.scenario}: B = {comparison.b} against A = {comparison.a}"
    parts: list[RenderableType] = [_line(title, "bold"), Text()]
    totals = [row for row in comparison.rows if row.can_alarm or not row.metric]
    parts.append(
        _compared_totals(comparison, totals, f"Totals: at most {comparison.alpha:.0%} of comparisons of equals alarm")
    )
    phases = [row for row in comparison.rows if not row.can_alarm and row.metric]
    if phases:
        parts += [
            Text(),
            _compared_phases(phases, "What explains them: corrected on their own, and alarm nobody"),
        ]
    if comparison.differences:
        table = plain_table("also differs", "A", "B")
        for difference in comparison.differences:
            table.add_row(*(_cell(_value(value)) for value in (difference.fact, difference.a, difference.b)))
        parts += [Text(), table]
    if comparison.warnings:
        parts += [Text(), *(_line(f"- {text}", "") for text in comparison.warnings)]
    return Group(*parts, Text(), _line(notes.conclusion(comparison), "bold"))


@dataclass(frozen=True, slots=True)
class _Bar:
    """The steps of one chain beside each other, as wide as the terminal has room for."""

    steps: Sequence[Step]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield bar(self.steps, min(options.max_width, _MAX_BAR))


def bar(steps: Sequence[Step], width: int) -> Text:
    """`steps` as one line of `width` characters, each by its median's share; a step too short for a character has
    none, and is in the list below the bar."""
    total = sum(step.median for step in steps)
    text = Text()
    if total <= 0:
        return text
    passed, drawn = 0.0, 0
    for step in steps:
        passed += step.median
        until = round(width * passed / total)
        glyph, colour = LOOKS.get(step.end, _OTHER_LOOK)
        text.append(glyph * (until - drawn), style=colour)
        drawn = until
    return text


def _totals(record: RunRecord, rows: Sequence[Series], metric: str) -> Table:
    shown = [row for row in rows if row.metric == metric]
    quantiles = [q for q in (0.95, 0.99, 0.999) if all(stats.quantile(row.values, q) for row in shown)]
    failed = any(series.failures(record, row.target) for row in shown)
    related = any(series.beside(rows, row) for row in shown)
    table = plain_table(metric, "median", "95 % interval", *([f"p{100 * q:g}" for q in quantiles] or ["range"]), "n")
    if failed:
        table.add_column("failed", justify="right")
    heading = series.related(shown)
    if related:
        table.add_column(heading, justify="right")
    for row in shown:
        if metric in series.COUNTED:
            table.add_row(_cell(_title(row)), _cell(series.counted(row)))
            continue
        found = stats.estimate(row.values)
        spread = [_quantile(row, q) for q in quantiles] or [
            units.span(found.minimum, found.maximum, row.unit, like=found.median)
        ]
        cells = [
            _title(row),
            series.median(row, found),
            _interval(found, row.unit),
            *spread,
            str(found.n),
        ]
        cells += [str(len(series.failures(record, row.target)))] if failed else []
        cells += [series.against(series.beside(rows, row), row)] if related else []
        table.add_row(*map(_cell, cells))
    for target in record.targets:
        seen = any(row.target == target.target for row in rows)
        if seen and not any(row.target == target.target for row in shown):
            why = series.absences(record).get((target.target, metric))
            table.add_row(_cell(series.label(target)), _cell(why or "absent"))
    _wrap_only(table, heading)
    return table


@dataclass(frozen=True, slots=True)
class _Facts:
    """Headings and a row a target, in one table where the terminal has room, else in several that are alike."""

    grid: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        headings = ["", *(heading.replace(" ", "\n") for heading in self.grid[0][1:])]
        widths = [max(map(len, heading.split()), default=_LEAST_NAME) + 2 for heading in headings]
        tables = math.ceil(sum(widths[1:]) / max(1, options.max_width - widths[0]))
        size = math.ceil((len(headings) - 1) / tables)
        for start in range(1, len(headings), size):
            shown = [0, *range(start, min(start + size, len(headings)))]
            table = plain_table(*(headings[place] for place in shown))
            for column in table.columns[1:]:
                column.no_wrap = True
            for row in self.grid[1:]:
                table.add_row(*(_cell(row[place]) for place in shown))
            yield table


def _steps(steps: Sequence[Step]) -> Table:
    """Each step below the other, with its share of the whole; rows without one may be added."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for _ in range(4):
        table.add_column(justify="right", no_wrap=True)
    whole = sum(step.median for step in steps)
    for step in steps:
        glyph, colour = LOOKS.get(step.end, _OTHER_LOOK)
        share = units.share(step.median, whole)
        table.add_row(Text(glyph, colour), *_step_cells(step.series), _cell(share))
    return table


def _call(steps: Sequence[Step], shown: Sequence[Series]) -> RenderableType:
    """One kind of call: its steps, and when its platform showed something."""
    table = _steps(steps)
    for row in shown:
        table.add_row(_cell("shown"), *_step_cells(row))
    return Padding(Group(_Bar(steps), table), (0, 0, 0, 2))


def _phases(rows: Sequence[Series], target: str) -> RenderableType:
    service = series.chain(rows, target, series.SERVICE)
    table = _steps(service)
    for name in (series.ENGINE, series.LOGIN, series.SETTLING):
        for step in series.chain(rows, target, name):
            table.add_row(_cell(name), *_step_cells(step.series))
    for row in rows:
        if row.target == target and row.metric == "lead_s":
            table.add_row(_cell("between"), *_step_cells(row))
    return Group(
        Text(),
        _line(service[0].series.label, "bold"),
        Padding(Group(_Bar(service), table), (0, 0, 0, 2)),
    )


def _step_cells(row: Series) -> list[Text]:
    found = stats.estimate(row.values)
    name = f"{row.dimensions.get('from', 'request')} → {row.dimensions['to']}"
    cells = (name, units.quantity(found.median, row.unit), _interval(found, row.unit), f"n {found.n}")
    return [_cell(cell) for cell in cells]


_ENDS = {"stop_s": "stop", "delete_s": "delete", "wait_cpu_s": "CPU of waiting"}


def _ends(record: RunRecord, rows: Sequence[Series]) -> Table:
    """What the rest took, with its interval below each median."""
    table = plain_table("and then", *_ENDS.values(), "n")
    for target in record.targets:
        mine = {row.metric: row for row in rows if row.target == target.target and row.metric in _ENDS}
        if mine:
            cells = [_brief(mine[metric]) if metric in mine else "" for metric in _ENDS]
            counts = sorted({len(row.values) for row in mine.values()})
            table.add_row(*map(_cell, (series.label(target), *cells, " or ".join(map(str, counts)))))
    return table


def _not_measured(record: RunRecord) -> Table:
    table = plain_table("not measured", "", "why", "what to do", text_columns=4)
    for target in record.targets:
        if target.outcome is not Outcome.OK:
            why = (series.label(target), target.outcome.value, target.reason, target.remedy)
            table.add_row(*map(_cell, why))
    return table


def _failed_launches(record: RunRecord) -> Iterator[str]:
    for target in record.targets:
        failed = series.failures(record, target.target)
        for launch in failed[:_FAILURES_SHOWN]:
            yield f"{target.target}, round {launch.iteration} failed: {launch.error}"
        if len(failed) > _FAILURES_SHOWN:
            yield f"{target.target}: {len(failed) - _FAILURES_SHOWN} more failed; lab export {record.run.id}"


def _compared_totals(comparison: RunComparison, rows: Sequence[Row], title: str) -> RenderableType:
    table = _compared_table("n")
    told: list[str] = []
    for row in rows:
        counts = ", ".join(str(found.n if found else 0) for found in (row.a, row.b))
        name = comparison.title(row)
        table.add_row(_cell(name), _cell(counts), *_compared_cells(row, ""))
        if row.reason:
            told.append(f"{name}: {row.reason}")
        failed = [f"{count} in {name}" for name, count in (("A", row.failed_a), ("B", row.failed_b)) if count]
        if failed:
            told.append(f"{row.target}: launches failed, {' and '.join(failed)}")
    _wrap_only(table, _COMPARED_RATIO)
    return Group(_line(title, "bold"), table, *(_line(text, "") for text in dict.fromkeys(told)))


def _compared_phases(rows: Sequence[Row], title: str) -> RenderableType:
    table = _compared_table()
    absent = []
    for target, group in itertools.groupby(rows, key=lambda row: row.target):
        mine = list(group)
        reasons = {row.reason for row in mine}
        if len(reasons) == 1 and "" not in reasons:
            absent.append(_line(f"{target}: {reasons.pop()}", ""))
            continue
        table.add_row(_line(target, "bold"))
        for row in mine:
            told = "too few" if row.p is None and row.ratio else row.reason
            table.add_row(_cell(f"  {row.name}"), *_compared_cells(row, told))
    _wrap_only(table, _COMPARED_RATIO)
    return Group(_line(title, "bold"), table, *absent)


def _compared_table(*counts: str) -> Table:
    return plain_table("", *counts, "A", "B", _COMPARED_RATIO, "p (Holm)", "difference")


def _compared_cells(row: Row, told: str) -> list[Text]:
    values = [
        ""
        if found is None
        else units.quantity(found.median, row.unit)
        if share is None
        else f"{share * found.n:.0f} of {found.n}"
        for found, share in ((row.a, row.share_a), (row.b, row.share_b))
    ]
    ratio = series.times(row.ratio) if row.ratio else ""
    p = "" if row.p_corrected is None else notes.probability(row.p_corrected)
    verdict = _SHORT.get(row.verdict, row.verdict.value)
    return [_cell(cell) for cell in (*values, ratio, p, told or verdict)]


def _wrap_only(table: Table, *headings: str) -> None:
    """Let the columns of these headings wrap where there is no room for all, and others only where they hold a lot."""
    for column in table.columns:
        longest = max((cell.cell_len for cell in column.cells if isinstance(cell, Text)), default=0)
        column.no_wrap = column.header not in headings and longest <= _WHOLE


def _title(row: Series) -> str:
    """A total's row: how it was waited for is in a note below, all else that keeps rows apart is in its name."""
    told = [f"{key}={value}" for key, value in row.dimensions.items() if key not in (WAIT_METHOD, SEEN)]
    return " ".join([row.label, *told])


def _quantile(row: Series, q: float) -> str:
    found = stats.quantile(row.values, q)
    return (
        f"{units.quantity(found.value, row.unit)} ({units.span(found.low, found.high, row.unit, like=found.value)})"
        if found
        else ""
    )


def _interval(found: stats.Estimate, unit: str) -> str:
    return (
        "n < 6"
        if found.low is None or found.high is None
        else units.span(found.low, found.high, unit, like=found.median)
    )


def _brief(row: Series) -> str:
    found = stats.estimate(row.values)
    return f"{units.quantity(found.median, row.unit)} ({_interval(found, row.unit)})"


def _value(value: object) -> str:
    return "absent" if value is None else str(value)


def _cell(text: str) -> Text:
    return Text(printable(text))


def _line(text: str, style: str) -> Text:
    return Text(printable(text), style=style)
