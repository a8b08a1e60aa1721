"""The processes of `kind` that make a cluster now: they outlive a lab that was killed."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from lab.errors import CleanupError
from lab.host import procs
from lab.host.procs import Entry

_TIMEOUT_S = 10.0


def find(name: str, entries: Mapping[int, Entry] | None = None) -> list[Entry]:
    """Those of the cluster `name`, whoever started them."""
    wanted = ["create", "cluster", "--name", name]
    return [
        entry
        for pid, entry in (procs.table() if entries is None else entries).items()
        if entry.name == "kind" and _within(procs.arguments(pid), wanted)
    ]


def end(name: str) -> None:
    """Kill those that a lab started, each with what it started itself: else they would go on to make nodes. Those of
    a user's own, in a session of his, stay. Raises CleanupError."""
    entries = procs.table()
    leaders = {entry.process.pid for entry in find(name, entries)}
    found = [entry.process for entry in entries.values() if entry.session in leaders]
    try:
        for process in found:
            process.send(signal.SIGKILL)
    except PermissionError as error:
        raise CleanupError(f"another user's `kind` makes the cluster '{name}'", resolution="sudo lab clean") from error
    if left := procs.all_ended(found, _TIMEOUT_S):
        raise CleanupError(f"process {left[0].pid}, which makes the cluster '{name}', does not end")


def _within(argv: list[str], wanted: list[str]) -> bool:
    return any(argv[at : at + len(wanted)] == wanted for at in range(len(argv)))
