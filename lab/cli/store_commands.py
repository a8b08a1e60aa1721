"""The commands about stored runs: parsing only; every heavy import waits until its command runs."""

# No `from __future__ import annotations` here: Typer would evaluate every annotation three times at each start.
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.cli.words import JsonOption, RunArgument, StoreOption, WholeSummaries, open_store, show
from lab.errors import BadInput

runs = typer.Typer(cls=WholeSummaries, invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands to `lab`."""
    app.add_typer(runs, name="runs")
    for command in (accept, hosts, forward):
        app.command()(command)
    app.command("import")(import_files)


@runs.callback()
def list_runs(
    ctx: typer.Context,
    limit: Annotated[int | None, typer.Option(min=1, help="The newest so many.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """The stored runs, newest first; `lab runs note` adds words to one, and `lab runs prune` removes old ones."""
    if ctx.invoked_subcommand is not None:
        given = [name for name in ("limit", "store", "as_json") if _given(ctx, name)]
        if given:
            option = given[0].replace("as_", "")
            raise BadInput(
                f"--{option} stands before '{ctx.invoked_subcommand}'",
                resolution=f"lab runs {ctx.invoked_subcommand} … --{option}",
            )
        return
    from lab.show.listing import render_runs, run_row

    with open_store(store) as opened:
        found = opened.runs(limit)
    show(lambda: [run_row(run) for run in found], lambda: render_runs(found), as_json)


@runs.command("note")
def note(
    run: RunArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What is to be remembered of it.")],
    store: StoreOption = None,
) -> None:
    """Add a note to a run, with the time: `lab runs note last 'the fan was replaced'`."""
    with open_store(store) as opened:
        noted = opened.note(run, text)
    typer.echo(f"{noted.id} has {len(noted.notes)} note{'s' if len(noted.notes) > 1 else ''}")


@runs.command("prune")
def prune(
    keep: Annotated[int, typer.Option(min=1, help="So many of the newest runs of each host and scenario stay.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove old runs, by host and scenario; what was accepted, goes on, or waits to be forwarded stays."""
    from lab.cli.command_prune import run_prune

    run_prune(keep=keep, dry_run=dry_run, yes=yes, store=store, as_json=as_json)


def accept(
    run: RunArgument,
    note: Annotated[str, typer.Option(help="What changed, and why that is right.")] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take back that it was accepted.")] = False,
    store: StoreOption = None,
) -> None:
    """Mark a run as the new normal, a step that is meant: histories begin anew there, and it is never pruned."""
    if withdraw and note:
        raise BadInput("--withdraw and --note do not belong together", resolution="lab runs note RUN TEXT")
    with open_store(store) as opened:
        found = opened.withdraw(run) if withdraw else opened.accept(run, note)
    typer.echo(f"{found.id} is {'no longer ' if withdraw else ''}accepted")


def hosts(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """The machines whose runs the store has: name, fingerprint, runs, when last seen."""
    from lab.host.facts import host_identity
    from lab.show.listing import host_row, render_hosts

    with open_store(store) as opened:
        found = opened.hosts()
    here = host_identity().id
    show(lambda: [host_row(host, here) for host in found], lambda: render_hosts(found, here), as_json)


def forward(
    to: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="postgresql://…; else what LAB_FORWARD says.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send all ended runs that have not gone there yet to a fleet's store; exit 1 where some are left."""
    from lab.cli.command_forward import run_forward

    raise typer.Exit(run_forward(to=to, store=store, as_json=as_json))


def import_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="What `lab export --format json` wrote.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take runs from files, the lab's own exports, hyperfine's and pyperf's; one that is there is not entered again."""
    from lab.store.importing.file import read_file

    records = [read_file(file) for file in files]  # all of them, before any is entered
    with open_store(store) as opened:
        found = [(record.run, opened.import_run(record)) for record in records]

    def rows() -> Any:
        return [{"id": run.id, "scenario": run.scenario, "origin": run.origin, "new": new} for run, new in found]

    def lines() -> Any:
        from rich.text import Text

        said = (f"{run.id} ({run.scenario}) {'is imported' if new else 'was there already'}" for run, new in found)
        return Text("\n".join(said))

    show(rows, lines, as_json)


def _given(ctx: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line, where it stands before a subcommand's name and would be lost."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
