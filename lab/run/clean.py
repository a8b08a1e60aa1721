"""Finds what dead runs left, on every engine and on disk, and removes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lab.driver import Driver, Instance, Leftover
from lab.errors import CleanupError, DriverError, DriverUnavailable
from lab.host.ownership import owner_alive
from lab.host.tracing.instance import trace_instances
from lab.store.place import run_dirs

QUIET_S = 2.0
"""Two listings this far apart must be empty: a daemon may still finish what a dead run had asked for."""

Fate = Literal["remove", "live owner", "another machine's"]


@dataclass(frozen=True, slots=True)
class Found:
    """One object of the lab's: what it is, whose, and whether it may be removed."""

    driver: str
    kind: str
    id: str
    labels: Mapping[str, str]
    fate: Fate
    thing: Instance | Leftover


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at every engine gave: objects (instances first), what went wrong, and the engines that could not be
    looked at, each with the reason."""

    found: Sequence[Found]
    problems: Sequence[str]
    absent: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Swept:
    """What `sweep` did: what it removed, what could not be removed or not be looked at, each with the reason."""

    removed: Sequence[Found]
    problems: Sequence[str]
    absent: Mapping[str, str]


def find(drivers: Iterable[Driver], labels: Mapping[str, str]) -> Looked:
    """Everything of the lab's that bears `labels`."""
    found: list[Found] = []
    problems: list[str] = []
    absent: dict[str, str] = {}
    for driver in drivers:
        # Apart, since an engine that has no instances, being down, can have left something on this host all the same.
        for look in (_instances, _leftovers):
            try:
                found += look(driver, labels)
            except DriverUnavailable as error:
                absent[driver.name] = error.brief
            except DriverError as error:
                problems.append(f"{driver.name}: {error}")
    found += [_found("lab", own.kind, own) for own in (*trace_instances(labels), *run_dirs(labels))]
    order = {"instance": 0, "directory": 2}
    once = {(item.kind, item.id): item for item in reversed(found)}  # two drivers of one engine see the same image
    return Looked(sorted(once.values(), key=lambda item: order.get(item.kind, 1)), problems, absent)


def sweep(
    drivers: Sequence[Driver],
    labels: Mapping[str, str],
    *,
    owned: bool = False,
    on_removed: Callable[[Found], None] = lambda _: None,
    quiet_s: float | None = None,
    limit_s: float = 120.0,
) -> Swept:
    """Remove all that bears `labels` and whose owner is dead (with `owned`: whoever owns it), until two listings
    `quiet_s` (by default `QUIET_S`) apart find nothing, or `limit_s` is over."""
    removed: list[Found] = []
    deadline = time.monotonic() + limit_s
    pause_s = QUIET_S if quiet_s is None else quiet_s
    quiet = False
    while True:
        looked = find(drivers, labels)
        mine = [item for item in looked.found if owned or item.fate == "remove"]
        failed = _remove(mine, removed, on_removed)
        stuck = bool(failed) and len(failed) == len(mine)
        late = bool(mine) and time.monotonic() > deadline
        if stuck or late or (quiet and not mine):
            gave_up = [f"gave up after {limit_s:g} s"] if late and not stuck else []
            return Swept(removed, [*looked.problems, *failed, *gave_up], looked.absent)
        quiet = not mine
        time.sleep(pause_s if quiet else 0)


def _instances(driver: Driver, labels: Mapping[str, str]) -> list[Found]:
    return [_found(driver.name, "instance", instance) for instance in driver.list_instances(labels)]


def _leftovers(driver: Driver, labels: Mapping[str, str]) -> list[Found]:
    return [_found(driver.name, leftover.kind, leftover) for leftover in driver.leftovers(labels)]


def _found(driver: str, kind: str, thing: Instance | Leftover) -> Found:
    alive = owner_alive(thing.labels)
    fate: Fate = "another machine's" if alive is None else "live owner" if alive else "remove"
    return Found(driver, kind, thing.id, thing.labels, fate, thing)


def _remove(found: Sequence[Found], removed: list[Found], on_removed: Callable[[Found], None]) -> list[str]:
    failed: list[str] = []
    for item in found:
        try:
            item.thing.delete()
        except (CleanupError, DriverError) as error:
            failed.append(f"{item.driver} {item.kind} {item.id}: {error}")
        else:
            removed.append(item)
            on_removed(item)
    return failed
