"""`lab clean`: shows what dead runs left, and removes it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.driver import Context, Driver
from lab.errors import BadInput, LabError
from lab.registry import driver_names, make_driver
from lab.run.clean import Found, find, is_of, sweep, unseen
from lab.show.terminal import printable
from lab.spec import Target
from lab.store.place import cache_dir, cache_sizes


def run_clean(*, dry_run: bool, yes: bool, owner: str | None, options: Mapping[str, str], as_json: bool) -> int:
    """Returns the exit code: 1 where something could not be removed. Raises BadInput for an `owner` of whom nothing is
    here, or who lives."""
    drivers, unmade = _drivers(options)
    console = Console(stderr=as_json)
    try:
        looked = find(drivers, {})
        problems, absent = looked.problems, {**unmade, **looked.absent}
        console.print(_table(looked.found) if looked.found else "nothing of the lab's is left on this machine")
        cached = cache_sizes(cache_dir())
        if cached:
            console.print(_cache_line(cached), markup=False, highlight=False, soft_wrap=True)
        for name, reason in absent.items():
            console.print(f"not looked at: {name} ({reason})", markup=False)
        if owner is None:
            doomed = [item for item in looked.found if item.fate == "remove"]
            for line in _out_of_sight(looked.found):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            doomed = _of_owner(looked.found, owner)
        removed: Sequence[Found] = []
        if doomed and not dry_run and (yes or _agreed(len(doomed))):
            swept = sweep(drivers, {}, owner=owner)
            removed, problems = swept.removed, swept.problems
            console.print(f"removed {len(removed)}")
        for problem in problems:
            console.print(f"problem: {problem}", markup=False, style="red")
        if as_json:
            result = {
                "found": [_json(item) for item in looked.found],
                "removed": [_json(item) for item in removed],
                "problems": list(problems),
                "not_looked_at": absent,
                "cache": {"path": str(cache_dir()), "bytes": cached},
            }
            sys.stdout.write(json.dumps(result, indent=2) + "\n")
        return 1 if problems else 0
    finally:
        for driver in drivers:
            driver.close()


def _drivers(options: Mapping[str, str]) -> tuple[list[Driver], dict[str, str]]:
    context = Context(run_dir=cache_dir(), cache_dir=cache_dir(), options=options)
    drivers: list[Driver] = []
    unmade: dict[str, str] = {}
    for name in driver_names():
        try:
            drivers.append(make_driver(Target(name), context))
        except LabError as error:
            unmade[name] = error.brief
    return drivers, unmade


def _cache_line(cached: Mapping[str, int]) -> str:
    parts = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in cached.items())
    return (
        f"kept in the cache, {sum(cached.values()) / 1e6:.1f} MB in all: {parts}; "
        f"all can be made again, and goes with: rm -r {shlex.quote(str(cache_dir()))}"
    )


def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        sys.stderr.write("lab: nothing removed: give --yes where nobody can be asked\n")
        return False
    return typer.confirm(f"Remove {count}?")


def _of_owner(found: Sequence[Found], owner: str) -> list[Found]:
    theirs = [item for item in found if is_of(item, owner)]
    if not theirs:
        raise BadInput(
            f"nothing of '{printable(owner)}' is here",
            resolution="name a run or an owner as `lab clean --dry-run` does",
        )
    if any(item.fate == "live owner" for item in theirs):
        raise BadInput(f"'{printable(owner)}' lives", resolution="end that run first: Ctrl-C, or kill its process")
    return theirs


def _out_of_sight(found: Sequence[Found]) -> list[str]:
    """For each owner that cannot be judged: what is its, why, and what would remove it."""
    owners: dict[str, list[Found]] = {}
    for item in found:
        if item.fate == "owner out of sight":
            owners.setdefault(item.labels.get("lab.run", "?"), []).append(item)
    return [
        f"left alone: {len(items)} of run {printable(run)}, whose owner is {unseen(items[0].labels)} and may live; "
        f"once it does not: lab clean --owner {printable(run)}"
        for run, items in owners.items()
    ]


def _table(found: Sequence[Found]) -> Table:
    table = Table("engine", "kind", "id", "run", "will be", box=None, pad_edge=False)
    for item in found:
        fate = "removed" if item.fate == "remove" else f"left alone: {item.fate}"
        cells = (item.driver, item.kind, item.id, item.labels.get("lab.run", "?"), fate)
        table.add_row(*(Text(printable(cell)) for cell in cells))  # any process's environment may have these labels
    return table


def _json(item: Found) -> dict[str, Any]:
    return {"driver": item.driver, "kind": item.kind, "id": item.id, "labels": dict(item.labels), "fate": item.fate}
