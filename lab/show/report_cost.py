"""What a service costs by how often it is called, as one HTML file that opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.figures.cost import words
from lab.figures.cost.measured import Basis
from lab.figures.cost.prices import Prices
from lab.figures.cost.reckoning import Costs
from lab.show import charts_cost, table_cost
from lab.show.page import chart, listed, page, text
from lab.show.page import table as _table
from lab.store.place import write_whole


def write_html(basis: Basis, prices: Prices, costs: Costs, rates: Sequence[float], path: Path) -> None:
    """Write the page to `path`, whole or not at all. Raises BadInput where it cannot be written."""
    write_whole(path, render(basis, prices, costs, rates))


def render(basis: Basis, prices: Prices, costs: Costs, rates: Sequence[float]) -> str:
    """The page."""
    title = "What it costs by how often it is called"
    body = [
        f"<h1>{text(title)}</h1>",
        f"<p>{text(words.headline(basis, prices))}</p>",
        *listed("What a reader must know", words.notes(basis, prices, costs)),
        *_curve(costs),
        f"<h2>{text(table_cost.figures_title(costs))}</h2>",
        _table(["paid for", "target", "price", *table_cost.figure_headings(rates)], table_cost.cells(costs, rates)),
        *_break_evens(costs),
        "<h2>What was measured</h2>",
        _table(["target", "what", "mean", "95 % interval", "n"], words.measured(basis)),
        "<h2>Prices, and where they were read</h2>",
        _table(["price", "amount", "date", "source", "checked by"], _sources(prices), figures_from=5),
    ]
    return page(title, body)


def _curve(costs: Costs) -> list[str]:
    if all(line.reason for line in costs.lines):
        return []
    return [
        "<h2>A million calls, by how many come in an hour</h2>",
        "<p>Functions are dashed. Bands and bars are 95 % intervals, where what they depend on was measured; a cross "
        "is where a function begins to be the dearer one.</p>",
        chart("cost", charts_cost.curves(costs)),
    ]


def _break_evens(costs: Costs) -> list[str]:
    if not costs.break_evens:
        return []
    return [
        "<h2>From how many calls an hour on the function is dearer</h2>",
        _table(["function", "than", "calls per hour"], table_cost.break_even_cells(costs)),
    ]


def _sources(prices: Prices) -> list[list[str]]:
    return [
        [name, words.amount(price), price.date.isoformat(), price.source, price.checked]
        for name, price in prices.each()
    ]
