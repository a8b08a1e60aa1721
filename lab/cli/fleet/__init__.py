"""What a user types of many machines; the work is in `command.py`."""

# No `from __future__ import annotations` here, as in main.py.
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.fleet.asked import Asked
from lab.cli.words import JsonOption, StoreOption, WholeSummaries

fleet = typer.Typer(
    cls=WholeSummaries,
    help="Many machines by Ansible, a job each: `lab fleet -i inventory.yml run boot -t process,docker`. Host keys are "
    "checked. Exit codes: 0 every host is done, 1 one is not, 2 bad input, 130 interrupted.",
    no_args_is_help=True,
)


def add_to(app: typer.Typer) -> None:
    """Have `app` take them."""
    app.add_typer(fleet, name="fleet")


@fleet.callback()
def _whom(
    ctx: typer.Context,
    inventory: Annotated[Path, typer.Option("--inventory", "-i", help="Ansible's: a file, folder or program.")],
    limit: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Of its hosts only these: a pattern of Ansible's.")
    ] = None,
    forks: Annotated[int, typer.Option(min=1, max=500, help="So many hosts are spoken to at a time.")] = 20,
) -> None:
    ctx.obj = Asked(inventory, limit, forks)


@fleet.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
)
def run(
    ctx: typer.Context,
    scenario: Annotated[str, typer.Argument(help="And what else `lab run` takes: files that it names are the hosts'.")],
    serial: Annotated[
        int | None, typer.Option(min=1, help="Run on so many hosts at a time: for what they share. Default: all.")
    ] = None,
    limit_each: Annotated[
        str, typer.Option("--limit-each", metavar="TIME", help="A host's job ends after this, whoever asks.")
    ] = "2h",
    patience: Annotated[
        str, typer.Option(metavar="TIME", help="A host that was started and is out of touch so long is given up.")
    ] = "10m",
    every: Annotated[str, typer.Option(metavar="TIME", help="Ask after the jobs this often.")] = "5s",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """The same `lab run` on every host, which outlives the connection; brings the runs home into the local store. Its
    own options come before the scenario, `lab run`'s after it."""
    from lab.cli.fleet.command import fleet_run

    words = [scenario, *ctx.args]
    times = {"limit_each": limit_each, "patience": patience, "every": every}
    raise typer.Exit(fleet_run(ctx.obj, words, serial=serial, times=times, store=store, as_json=as_json))


@fleet.command("collect")
def collect(ctx: typer.Context, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Bring home the runs of jobs that ended while nobody asked: after a connection, or this machine, was lost."""
    from lab.cli.fleet.command import fleet_collect

    raise typer.Exit(fleet_collect(ctx.obj, store=store, as_json=as_json))


@fleet.command("doctor")
def doctor(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """What works on each host: a column an engine, a line a host."""
    from lab.cli.fleet.command import fleet_doctor

    raise typer.Exit(fleet_doctor(ctx.obj, as_json=as_json))


@fleet.command("clean")
def clean(
    ctx: typer.Context,
    cancel: Annotated[bool, typer.Option("--cancel", help="Also end jobs that run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """`lab clean --yes` on each host, and away with the folders of jobs that have ended or are lost."""
    from lab.cli.fleet.command import fleet_clean

    raise typer.Exit(fleet_clean(ctx.obj, cancel=cancel, as_json=as_json))


@fleet.command("setup")
def setup(
    ctx: typer.Context,
    engines: Annotated[str, typer.Option(help="As ENGINES= of `make run`.")] = "process,docker,libvirt",
) -> None:
    """Bring this checkout to each host, and have it set up there by the same scripts as `make run`."""
    from lab.cli.fleet.command import fleet_setup

    raise typer.Exit(fleet_setup(ctx.obj, engines=engines))
