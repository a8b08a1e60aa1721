"""What commands have in common: their options' words, and how each opens the store and shows what it found."""

# No `from __future__ import annotations` here: Typer would evaluate every annotation three times at each start.
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from lab.store.database import Store
    from lab.store.record import RunRecord

StoreOption = Annotated[
    str | None, typer.Option("--store", envvar="LAB_STORE", help="Where runs are kept: a file, or postgresql://…")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, alone on standard output.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its beginning, or 'last'.")]
ForwardOption = Annotated[
    str | None,
    typer.Option(
        "--forward", envvar="LAB_FORWARD", metavar="URL", help="Also send the ended run there: postgresql://…"
    ),
]


class WholeSummaries(TyperGroup):
    """Commands listed with their whole summary, where Typer would cut it to the rest of the line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(limit=1000)) for name, one in commands if one])


def open_store(store: str | None) -> "Store":
    """Raises StoreError."""
    from lab.store.database import Store

    return Store.open(store)


def load(store: str | None, run: str) -> "RunRecord":
    """Raises BadInput, StoreError."""
    with open_store(store) as opened:
        return opened.load(run)


def show(value: Any, render: Callable[[], Any], as_json: bool) -> None:
    """`value`, or what it returns where that takes time, as JSON; else what `render` makes."""
    if as_json:
        import json

        sys.stdout.write(json.dumps(value() if callable(value) else value, indent=2) + "\n")
        return
    from rich.console import Console

    Console().print(render())
