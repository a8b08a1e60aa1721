"""What a scenario found out in words, as text for a terminal: below each probe, what it found and on which targets."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lab.figures import evidence, series
from lab.show.terminal import printable
from lab.store.record import RunRecord

_FEATURE = 24  # characters: what was looked at is to be read at a glance


def parts(record: RunRecord) -> list[RenderableType]:
    """One table for what was seen from inside, and one for what was seen from outside; none where nothing was."""
    found = evidence.findings(record)
    shown: list[RenderableType] = []
    for seen in evidence.Seen:
        mine = [finding for finding in found if finding.seen is seen]
        rows = [finding for finding in mine if finding.shown is not None]
        told = [finding for finding in mine if finding.shown is None]
        if told:
            shown += [Text(), _table(f"seen from {seen}", told)]
        if rows:
            shown += [Text(), *_grid(f"seen from {seen}", rows, first=series.CONTROL)]
    return shown


def _grid(title: str, found: list[evidence.Finding], *, first: str) -> list[RenderableType]:
    """A row for each, with a column for each target, the control first; and how many are not shown."""
    labels = list(dict.fromkeys(label for finding in found for label in finding.said))
    labels.sort(key=lambda label: label != first)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column(title, min_width=_FEATURE, overflow="fold")
    for label in labels:
        table.add_column(printable(label), overflow="fold")
    for finding in found:
        if not finding.hidden:
            table.add_row(*(Text(printable(cell)) for cell in (finding.probe, *cells(finding, labels))))
    hidden = sum(finding.hidden for finding in found)
    if not hidden:
        return [table]
    working = sum(finding.hidden and set(finding.said.values()) == {"works"} for finding in found)
    same = f"{hidden} more are the same on all targets ({working} of them work): -p all=yes shows them"
    return [table, Text(same, style="dim")] if hidden < len(found) else [Text(same)]


def cells(finding: evidence.Finding, labels: Sequence[str]) -> list[str]:
    """What it said on each of the targets."""
    return [finding.said.get(label, "") for label in labels]


def _table(title: str, found: list[evidence.Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column(title, max_width=32, overflow="fold")
    table.add_column("", ratio=1, overflow="fold")
    everyone = {label for finding in found for label in finding.said}
    for finding in found:
        groups = finding.groups()
        if len(groups) == 1 and set(finding.said) == everyone:
            where = " (all)" if len(everyone) > 1 else ""
            table.add_row(Text(printable(finding.probe + where), style="bold"), Text(printable(*groups)))
            continue
        table.add_row(Text(printable(finding.probe), style="bold"))
        for said, labels in groups.items():
            table.add_row(Text(printable(", ".join(labels))), Text(printable(said)))
    return table
