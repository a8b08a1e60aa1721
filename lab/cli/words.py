"""What commands have in common: their options' words, and how each opens the store and shows what it found."""

# No `from __future__ import annotations` here: Typer would evaluate every annotation three times at each start.
import sys
from collections.abc import Callable
from pathlib import Path
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

# What `lab run` and those that run a scenario under another name take alike.
RoundsOption = Annotated[
    int | None,
    typer.Option(help="Measured rounds; with --until-ci, the most. Default: the scenario's, mostly 10, or 160."),
]
WarmupOption = Annotated[
    int | None, typer.Option(help="Rounds before, kept and left out of figures. Default: mostly 1.")
]
SeedOption = Annotated[int | None, typer.Option(help="Of the shuffled order; drawn and stored without it.")]
ReadyPathOption = Annotated[str | None, typer.Option(help="What to request of it until it answers 200. Default: /.")]
TimeoutOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Wait this long for ready. Default: 60s; 10m for whole guests.")
]
ParamOption = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="KEY=VALUE", help="Of the scenario: replicas, parallel, rate, …"),
]
RunReportOption = Annotated[Path | None, typer.Option(help="Also write the report to this file.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the plan and end.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait while another run holds this machine.")]
DriverOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--driver-option",
        "-o",
        metavar="KEY=VALUE",
        help="For drivers: docker-host, libvirt-uri, accel, guest-kernel, …",
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
