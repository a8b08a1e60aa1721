"""What a service costs by how often it is called, as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab.figures.cost import words
from lab.figures.cost.lines import Line
from lab.figures.cost.measured import Basis
from lab.figures.cost.prices import HOURS_PER_MONTH, Price, Prices
from lab.figures.cost.reckoning import Costs
from lab.figures.cost.uncertain import Uncertain, reckoned
from lab.show.terminal import printable


def render_cost(basis: Basis, prices: Prices, costs: Costs, rates: Sequence[float]) -> RenderableType:
    """The lines by what is paid for, the break-evens, what was measured, the prices, and what a reader must know."""
    parts: list[RenderableType] = [_line(words.headline(basis, prices), "bold"), Text(), _costs(costs, rates)]
    lacking = [line for line in costs.lines if line.reason]
    if lacking:
        parts += [Text(), _lacking(lacking)]
    if costs.break_evens:
        parts += [Text(), _break_evens(costs)]
    parts += [Text(), _measured(basis)]
    used = words.used_prices(prices, costs.lines)
    if used:
        parts += [Text(), _prices(used)]
    return Group(*parts, Text(), *(_line(f"- {text}", "") for text in words.notes(basis, prices, costs)))


def figure_headings(rates: Sequence[float]) -> list[str]:
    """Those of the figures of `cells`."""
    return ["idle month", *(f"at {rate:,.10g}/h" for rate in rates)]


def figures_title(costs: Costs) -> str:
    """What those figures are."""
    return (
        f"Cost in {costs.currency}: of a month ({HOURS_PER_MONTH} h) without a call, and of a million calls by how "
        "many come in an hour"
    )


def cells(costs: Costs, rates: Sequence[float]) -> list[list[str]]:
    """Each line: what is paid for, of which target, at which price, and its figures, or the reason in their place."""
    return [
        [line.kind.value, line.title, line.offer, *([line.reason] if line.reason else _figures(line, rates))]
        for line in costs.lines
    ]


def break_even_cells(costs: Costs) -> list[list[str]]:
    """Each break-even: the function, what runs all the time, and the calls per hour."""
    return [[_named(one.function), _named(one.other), words.rate(one)] for one in costs.break_evens]


def _costs(costs: Costs, rates: Sequence[float]) -> RenderableType:
    shown = [line for line in costs.lines if not line.reason]
    if not shown:
        return _line("Nothing can be reckoned from these runs and prices.", "bold")
    tables: list[RenderableType] = []
    for heading in dict.fromkeys(map(_heading, shown)):
        table = _table("", *figure_headings(rates))
        for line in shown:
            if _heading(line) == heading:
                figures = (figure.replace(" (", "\n(") for figure in _figures(line, rates))
                table.add_row(*map(_cell, (line.title, *figures)))
        for column in table.columns[1:]:
            column.no_wrap = True
        tables += [Text(), _line(heading, "bold"), table]
    return Group(_line(figures_title(costs), "bold"), *tables)


def _heading(line: Line) -> str:
    return f"{line.kind}: {line.offer}" if line.offer else line.kind.value


def _figures(line: Line, rates: Sequence[float]) -> list[str]:
    idle = line.idle_per_hour
    found: list[Uncertain | None] = [reckoned(lambda hour: hour * HOURS_PER_MONTH, idle) if idle else None]
    found += [line.per_million(rate) for rate in rates]
    return [words.money(one) for one in found if one is not None]


def _lacking(lines: Sequence[Line]) -> RenderableType:
    table = _table("not reckoned", "why", words=2)
    alike: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        alike.setdefault((_heading(line), line.reason), []).append(line.title)
    for (heading, reason), titles in alike.items():
        table.add_row(_cell(f"{heading}, for {', '.join(titles)}"), _cell(reason))
    return table


def _break_evens(costs: Costs) -> RenderableType:
    """For each function, what it is dearer than, and from where on."""
    rows = break_even_cells(costs)
    tables: list[RenderableType] = []
    for function in dict.fromkeys(row[0] for row in rows):
        table = _table("", "from so many calls/h on")
        for _, other, rate in (row for row in rows if row[0] == function):
            table.add_row(_cell(other), _cell(rate))
        tables += [*([Text()] if tables else []), _line(f"{function} costs more than", "bold"), table]
    return Group(*tables)


def _measured(basis: Basis) -> RenderableType:
    table = _table("target", "what", "mean", "95 % interval", "n", words=2)
    for row in words.measured(basis):
        table.add_row(*map(_cell, row))
    return table


def _prices(used: Sequence[tuple[str, Price]]) -> RenderableType:
    table = _table("price", "amount", "date", "source", words=1)
    table.columns[3].justify = "left"
    for name, price in used:
        table.add_row(_cell(name), _cell(words.amount(price)), _cell(price.date.isoformat()), _cell(price.source))
    return table


def _named(line: Line) -> str:
    return f"{line.title} ({line.offer or line.kind.value})"


def _table(*headings: str, words: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < words else "right", overflow="fold")
    return table


def _cell(text: str) -> Text:
    return Text("\n".join(map(printable, text.split("\n"))))


def _line(text: str, style: str) -> Text:
    return Text(printable(text), style=style)
