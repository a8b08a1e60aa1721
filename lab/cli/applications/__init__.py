"""What a user types of whole applications: `lab app` is `lab run` of the scenarios app-boot, app-memory and
app-recover, and their files' options."""

# No `from __future__ import annotations` here, as in main.py.
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.words import (
    DriverOptions,
    DryRunOption,
    ForwardOption,
    JsonOption,
    ParamOption,
    ReadyPathOption,
    RoundsOption,
    RunReportOption,
    SeedOption,
    StoreOption,
    TimeoutOption,
    WaitOption,
    WarmupOption,
)
from lab.errors import BadInput

QUESTIONS = ("boot", "memory", "recover")


def add_to(app: typer.Typer) -> None:
    """Have `app` take the command."""
    app.command("app")(application)


def application(
    question: Annotated[str, typer.Argument(help="boot, memory or recover.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The application's file, in TOML: see docs/app.md.")
    ] = None,
    compose: Annotated[Path | None, typer.Option(help="A Compose file instead; what it cannot have is named.")] = None,
    entry: Annotated[
        str | None, typer.Option(help="Of a Compose file: the service that is asked. Default: the one with ports.")
    ] = None,
    ready_path: ReadyPathOption = None,
    image: Annotated[
        list[str] | None, typer.Option(metavar="SERVICE=IMAGE", help="Another image for one of the services.")
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option("--targets", "-t", help="Comma-separated. Default: docker,libvirt:q35.")
    ] = None,
    rounds: RoundsOption = None,
    warmup: WarmupOption = None,
    seed: SeedOption = None,
    timeout: TimeoutOption = None,
    param: ParamOption = None,
    option: DriverOptions = None,
    store: StoreOption = None,
    forward: ForwardOption = None,
    html: RunReportOption = None,
    dry_run: DryRunOption = False,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """A whole application of several services: `lab app boot -c app.toml -t docker,swarm,libvirt:q35`."""
    from lab.cli.command_run import Request, run_scenario

    if question not in QUESTIONS:
        raise BadInput(f"'{question}' is no question about an application", resolution=f"ask {', '.join(QUESTIONS)}")
    if (config is None) == (compose is None):
        raise BadInput("an application is described by one file", resolution="give -c app.toml, or --compose FILE")
    if compose is None and (entry or ready_path):
        raise BadInput("--entry and --ready-path are for a Compose file", resolution=f"write them into {config}")
    own = {"file": config, "compose": compose, "entry": entry, "ready_path": ready_path}
    given = {
        "targets": targets or ["docker", "libvirt:q35"],
        "rounds": rounds,
        "warmup": warmup,
        "seed": seed,
        "timeout": timeout,
        "param": [
            *(f"{key}={value}" for key, value in own.items() if value),
            *([f"images={','.join(image)}"] if image else []),
            *(param or []),
        ],
        "driver_options": option,
    }
    request = Request(
        scenario=f"app-{question}",
        given=given,
        config=None,
        store=store,
        forward=forward,
        html=html,
        dry_run=dry_run,
        wait=wait,
        as_json=as_json,
    )
    raise typer.Exit(run_scenario(request))
