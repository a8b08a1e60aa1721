"""`lab runs prune`: shows which old runs go, asks, and removes them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import typer
from rich.console import Console

from lab.show.listing import render_pruned
from lab.store.database import Store


def run_prune(*, keep: int, dry_run: bool, yes: bool, store: str | None, as_json: bool) -> None:
    """Raises StoreError."""
    console = Console(stderr=as_json)
    with Store.open(store) as opened:
        found = opened.prune(keep, dry_run=True)
        doomed = sum(len(group.removed) for group in found)
        console.print(render_pruned(found, keep))
        removed = 0
        if doomed and not dry_run and (yes or _agreed(doomed)):
            found = opened.prune(keep)  # by what the store has now
            removed = sum(len(group.removed) for group in found)
            console.print(f"removed {removed}")
    if as_json:
        told = {"groups": [asdict(group) for group in found], "removed": removed}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")


def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        sys.stderr.write("lab: nothing removed: give --yes where nobody can be asked\n")
        return False
    return typer.confirm(f"Remove {count} run{'' if count == 1 else 's'} for good?")
