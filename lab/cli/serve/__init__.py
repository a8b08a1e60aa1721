"""What a user types of the live page; the work is in `command.py`, and in lab/web."""

# No `from __future__ import annotations` here, as in main.py.
from typing import Annotated

import typer

from lab.cli.words import StoreOption


def add_to(app: typer.Typer) -> None:
    """Have `app` take it."""
    app.command("serve")(serve)


def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where it listens; 0: a free one.")] = 8765,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="At which address; beyond loopback only with --beyond-this-host.")
    ] = "127.0.0.1",
    beyond: Annotated[
        bool,
        typer.Option("--beyond-this-host", help="Let others have it who know the token, which goes over the net bare."),
    ] = False,
    store: StoreOption = None,
) -> None:
    """The live page, until Ctrl-C: a race of targets on the wall, and all runs to browse."""
    from lab.cli.serve.command import serve_page

    serve_page(host=host, port=port, beyond=beyond, store=store)
