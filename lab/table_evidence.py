"""What a scenario found out in words, as text for a terminal: each finding with the targets that share it."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lab import evidence
from lab.figures import printable
from lab.run import RunRecord


def parts(record: RunRecord) -> list[RenderableType]:
    """One table for what was seen from inside, and one for what was seen from outside; none where nothing was."""
    found = evidence.findings(record)
    shown: list[RenderableType] = []
    for seen in evidence.Seen:
        mine = [finding for finding in found if finding.seen is seen]
        if not mine:
            continue
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
        table.add_column(f"seen from {seen}", max_width=24, overflow="fold")
        table.add_column("", ratio=1, overflow="fold")
        table.add_column("on", max_width=28, overflow="fold")
        for finding in mine:
            name = finding.probe
            groups = finding.groups()
            for said, labels in groups.items():
                everywhere = len(groups) == 1 and len(labels) > 1
                where = "all" if everywhere else ", ".join(labels)
                table.add_row(*(Text(printable(text)) for text in (name, said, where)))
                name = ""
        shown += [Text(), table]
    return shown
