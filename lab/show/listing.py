"""The list of runs for a terminal, which shows no figures and imports nothing that makes any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from lab.show.terminal import printable
from lab.store.hosts import Host
from lab.store.record import Run
from lab.store.retention import Pruned

_LEAST_WORDS = 10


def render_runs(runs: Sequence[Run]) -> RenderableType:
    """The runs as a list, in the order given: with their hosts where they are of several, and with what was said of
    them where anything was."""
    if not runs:
        return Text("no runs yet: lab run boot")
    hosts = len({run.host_id for run in runs}) > 1
    said = any(run.accepted_at or run.notes for run in runs)
    headings = ["run", "scenario", "started (UTC)", "status", "lab"]
    table = plain_table(*headings, *["host"] * hosts, *["said"] * said, text_columns=7)
    rows = []
    digits = 16 if hosts or said else 19  # to the minute, where there is less room
    for run in runs:
        row = [run.id, run.scenario, _time(run.started_at)[:digits], run.status, run.origin or run.lab_version]
        rows.append((*row, *[run.host_name or run.host_id or "unknown"] * hosts, *[_said(run)] * said))
    told = [row if "".join(row).isprintable() else tuple(map(printable, row)) for row in rows]
    return _Listing(table, told, words=said)


def run_row(run: Run) -> dict[str, Any]:
    """A run of `lab runs --json`."""
    return {
        "id": run.id,
        "scenario": run.scenario,
        "started_at": run.started_at,
        "status": run.status,
        "host": {"id": run.host_id, "name": run.host_name},
        "origin": run.origin,
        "accepted_at": run.accepted_at,
        "accepted_note": run.accepted_note,
        "notes": [{"at": at, "text": text} for at, text in run.notes],
    }


def render_hosts(hosts: Sequence[Host], here: str) -> RenderableType:
    """The machines as a list; `here` is this one's fingerprint."""
    if not hosts:
        return Text("no runs yet: lab run boot")
    table = plain_table("host", "fingerprint", "last seen (UTC)", "machine", "runs", text_columns=4)
    for host in hosts:
        told = host_row(host, here)
        name = ", then ".join(reversed(told["names"])) or "unknown"
        machine = ", ".join(str(one) for one in (told["cpu"], told["memory"], told["kernel"]) if one)
        cells = (f"{name}{' (this one)' if told['here'] else ''}", host.id, _time(host.last_seen), machine)
        table.add_row(*(Text(printable(cell)) for cell in cells), str(host.runs))
    return table


def host_row(host: Host, here: str) -> dict[str, Any]:
    """A machine of `lab hosts --json`."""
    cpu, memory, kernel = (host.facts.get(name) or {} for name in ("cpu", "memory", "kernel"))
    total = memory.get("memory_total_bytes")
    return {
        "id": host.id,
        "names": list(host.names),
        "here": host.id == here,
        "runs": host.runs,
        "last_seen": host.last_seen,
        "cpu": cpu.get("model"),
        "memory": f"{total / 2**30:.0f} GiB" if isinstance(total, int) else None,
        "kernel": kernel.get("release"),
    }


def render_pruned(groups: Sequence[Pruned], keep: int) -> RenderableType:
    """What goes and what stays of the hosts and scenarios that have more than `keep` runs."""
    if not groups:
        return Text(f"nothing goes: no host has more of a scenario than {keep}")
    table = plain_table("host", "scenario", "runs", "go", "accepted", "going on", "not forwarded", text_columns=2)
    for group in groups:
        cells = (group.host_name or group.host_id or "unknown", group.scenario)
        numbers = (group.runs, len(group.removed), group.accepted, group.going_on, group.not_forwarded)
        table.add_row(*(Text(printable(cell)) for cell in cells), *(str(number or "") for number in numbers))
    return table


def _said(run: Run) -> str:
    """That it was accepted, and the first line of the latest word on it."""
    words = run.accepted_note or (run.notes[-1][1] if run.notes else "")
    told = next(iter(words.splitlines()), "")
    return ": ".join(part for part in ("accepted" if run.accepted_at else "", told) if part)


def _time(iso: str) -> str:
    return iso.replace("T", " ")[:19]


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
    words: bool = False
    """The last column is one of words, which alone is folded where there is no room for all."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        told = [(str(column.header) for column in self.table.columns), *self.rows]
        widths = [max(map(_width, {*cells})) for cells in zip(*told, strict=True)]
        if sum(widths) + 2 * len(widths) > options.max_width:
            for column in self.table.columns[:-1]:
                column.no_wrap = self.words and sum(widths[:-1]) + 2 * len(widths) + _LEAST_WORDS <= options.max_width
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
