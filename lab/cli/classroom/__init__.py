"""What a teacher types of a class; the work is in `command.py`."""

# No `from __future__ import annotations` here, as in main.py.
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.words import JsonOption

_EXITS = "Exit codes: 0 done, 1 something that was handed in could not be taken, 2 nothing could be read."


def add_to(app: typer.Typer) -> None:
    """Have `app` take it."""
    app.command("class", epilog=_EXITS)(class_page)


def class_page(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILES", help="What students exported: runs (`lab export`), lessons' exports."),
    ] = None,
    # LAB_STORE is the teacher's own store, and no class's.
    store: Annotated[
        str | None,
        typer.Option("--store", help="The class's store, filled by `lab forward`: a file, or postgresql://…"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page for the projector to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """A class at a glance: each machine over its own control, steps and common mistakes, and no ranking."""
    from lab.cli.classroom.command import show_class

    raise typer.Exit(show_class(files or [], store=store, html=html, as_json=as_json))
