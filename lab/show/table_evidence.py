"""What a scenario found out in words, as text for a terminal: below each probe, what it found and on which targets."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lab.figures import evidence
from lab.show.terminal import printable
from lab.store.record import RunRecord


def parts(record: RunRecord) -> list[RenderableType]:
    """One table for what was seen from inside, and one for what was seen from outside; none where nothing was."""
    found = evidence.findings(record)
    shown: list[RenderableType] = []
    for seen in evidence.Seen:
        mine = [finding for finding in found if finding.seen is seen]
        if mine:
            shown += [Text(), _table(f"seen from {seen}", mine)]
    return shown


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
