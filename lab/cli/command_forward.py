"""`lab forward`, and what `lab run --forward` does once its run has ended."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from lab.errors import BadInput, with_remedy
from lab.show.terminal import printable
from lab.store.database import Store
from lab.store.forwarding import Destination, Forwarded

VARIABLE = "LAB_FORWARD"


def run_forward(*, to: str | None, store: str | None, as_json: bool) -> int:
    """Returns the exit code: 1 where runs are left or refused. Raises BadInput, StoreError."""
    url = to or os.environ.get(VARIABLE)
    if not url:
        raise BadInput("no store is named to forward to", resolution=f"lab forward postgresql://…, or set {VARIABLE}")
    destination = Destination(url)
    with Store.open(store) as local:
        done = destination.send(local)
    _tell(destination, done, Console(stderr=as_json))
    if as_json:
        sys.stdout.write(json.dumps(_json(destination, done), indent=2) + "\n")
    return 1 if done.left or done.refused else 0


def forward_ended(destination: Destination, local: Store, ended: Sequence[str], console: Console) -> Forwarded:
    """Send the runs that have just `ended`, and those that an earlier time could not. What cannot be sent is told, and
    waits; it is no failure of the run. Raises StoreError where `local` fails."""
    for run_id in ended:
        destination.queue(local, run_id)
    done = destination.send(local, queued=True)
    _tell(destination, done, console)
    return done


def _tell(destination: Destination, done: Forwarded, console: Console) -> None:
    say: Callable[[str], None] = lambda text: console.print(  # noqa: E731
        printable(text), highlight=False, markup=False, soft_wrap=True
    )
    if done.sent or done.known or not (done.left or done.refused):
        known = f", {len(done.known)} were there already" if done.known else ""
        say(f"forwarded to {destination.shown}: {_count(len(done.sent))}{known}")
    for run_id, why in done.refused:
        say(f"not forwarded: {run_id}: {why}")
    if done.left:
        why = with_remedy(done.problem.brief, done.problem.resolution) if done.problem else ""
        say(f"not forwarded yet: {_count(len(done.left))}, kept here; `lab forward` sends them: {why}")


def _count(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"


def _json(destination: Destination, done: Forwarded) -> dict[str, Any]:
    return {
        "to": destination.shown,
        "sent": list(done.sent),
        "known": list(done.known),
        "left": list(done.left),
        "problem": done.problem.brief if done.problem and done.left else None,
        "refused": [{"id": run_id, "why": why} for run_id, why in done.refused],
    }
