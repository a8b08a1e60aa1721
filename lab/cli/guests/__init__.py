"""What a user types of the disks of whole guests; the work is in `disks.py`."""

# No `from __future__ import annotations` here, as in main.py.
from typing import Annotated

import typer

from lab.cli.words import JsonOption, WholeSummaries

guest = typer.Typer(
    cls=WholeSummaries,
    help="The disk images of whole guests (a distribution with systemd and sshd) that the lab builds once and keeps.",
    no_args_is_help=True,
)


def add_to(app: typer.Typer) -> None:
    """Have `app` take them."""
    app.add_typer(guest, name="guest")


@guest.command("build")
def guest_build(
    suite: Annotated[str, typer.Option(help="Of Debian: bookworm or trixie.")] = "bookworm",
    mirror: Annotated[str, typer.Option(metavar="URL", help="The archive. Default: as this host's apt has it.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Although there is one.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build one from the distribution's archive, in some two minutes, unless it is there."""
    from lab.cli.guests.disks import guest_build as build

    build(suite, mirror=mirror, again=again, as_json=as_json)


@guest.command("list")
def guest_list(as_json: JsonOption = False) -> None:
    """Those that are kept: built here, or brought by --guest-image."""
    from lab.cli.guests.disks import guest_list as listed

    listed(as_json=as_json)


@guest.command("remove")
def guest_remove(
    name: Annotated[str, typer.Argument(help="As `lab guest list` shows it.")], as_json: JsonOption = False
) -> None:
    """Remove one."""
    from lab.cli.guests.disks import guest_remove as remove

    remove(name, as_json=as_json)
