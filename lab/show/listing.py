"""The list of runs for a terminal, which shows no figures and imports nothing that makes any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from lab.show.terminal import printable
from lab.store.record import Run


def render_runs(runs: Sequence[Run]) -> RenderableType:
    """The runs as a list, in the order given."""
    if not runs:
        return Text("no runs yet: lab run boot")
    table = plain_table("run", "scenario", "started (UTC)", "status", "lab", text_columns=5)
    told = ((run.id, run.scenario, run.started_at.replace("T", " ")[:19], run.status, run.lab_version) for run in runs)
    return _Listing(table, [row if "".join(row).isprintable() else tuple(map(printable, row)) for row in told])


def plain_table(*headings: str, text_columns: int = 1) -> Table:
    """A table without vertical rules; the first columns are words and the rest figures."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < text_columns else "right", overflow="fold")
    return table


@dataclass(frozen=True, slots=True)
class _Listing:
    """Headings above any number of rows of words: a table of Rich's takes half a millisecond a row, so that it is one
    of the headings alone wherever the rows fit the terminal as they are."""

    table: Table
    rows: Sequence[tuple[str, ...]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        told = [(str(column.header) for column in self.table.columns), *self.rows]
        widths = [max(map(_width, {*cells})) for cells in zip(*told, strict=True)]
        if sum(widths) + 2 * len(widths) > options.max_width:
            for row in self.rows:
                self.table.add_row(*map(Text, row))
            yield self.table
            return
        for column, width in zip(self.table.columns, widths, strict=True):
            column.width = width
        yield self.table
        padded = "  ".join(f"%-{width}s" for width in widths) + "\n"
        for row in self.rows:
            yield Segment(padded % row if "".join(row).isascii() else "  ".join(map(set_cell_size, row, widths)) + "\n")


def _width(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)
