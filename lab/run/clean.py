"""Finds what dead runs left, on every engine and on disk, and removes it.

Only what is proven dead goes by itself. An owner that cannot be judged from here is named, with the reason, and what it
made goes by an explicit word.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lab.driver import Driver, Instance, Leftover
from lab.errors import BadInput, CleanupError, DriverError, DriverUnavailable
from lab.host.ownership import Owner
from lab.host.tracing.instance import trace_instances
from lab.store.place import RunDir, owner_lives, run_dirs

QUIET_S = 2.0
"""Two listings this far apart must be empty: a daemon may still finish what a dead run had asked for."""

Fate = Literal["remove", "live owner", "owner out of sight"]


@dataclass(frozen=True, slots=True)
class Found:
    """One object of the lab's: what it is, whose, and whether it may be removed. An owner out of sight is one of which
    cannot be known from here whether it lives."""

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


class Judge:
    """Whether owners live, each asked once: one found dead stays so, though what proved it has been removed since."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], bool | None] = {}

    def alive(self, thing: Instance | Leftover) -> bool | None:
        """False only where it is proven; None where cannot be known from here."""
        if isinstance(thing, RunDir) and thing.abandoned:
            return False
        key = (thing.labels.get("lab.owner", ""), thing.labels.get("lab.run", ""))
        if key not in self._known:
            self._known[key] = owner_lives(thing.labels)
        return self._known[key]


def unseen(labels: Mapping[str, str]) -> str:
    """Why cannot be known from here whether the owner in `labels` lives, in words."""
    try:
        return Owner.parse(labels.get("lab.owner", "")).unseen()
    except BadInput:
        return "not named in a way that this lab reads"


def is_of(found: Found, owner: str) -> bool:
    """Whether `owner`, a run's id or the label `lab.owner`, is whose it is."""
    return owner in (found.labels.get("lab.run"), found.labels.get("lab.owner"))


def find(drivers: Iterable[Driver], labels: Mapping[str, str], *, judge: Judge | None = None) -> Looked:
    """Everything of the lab's that bears `labels`."""
    judge = judge or Judge()
    found: list[Found] = []
    problems: list[str] = []
    absent: dict[str, str] = {}
    for driver in drivers:
        # Apart, since an engine that has no instances, being down, can have left something on this host all the same.
        for look in (_instances, _leftovers):
            try:
                found += look(driver, labels, judge)
            except DriverUnavailable as error:
                absent[driver.name] = error.brief
            except DriverError as error:
                problems.append(f"{driver.name}: {error}")
    found += [_found("lab", own.kind, own, judge) for own in (*trace_instances(labels), *run_dirs(labels))]
    order = {"instance": 0, "directory": 2}
    once = {(item.kind, item.id): item for item in reversed(found)}  # two drivers of one engine see the same image
    return Looked(sorted(once.values(), key=lambda item: order.get(item.kind, 1)), problems, absent)


def sweep(
    drivers: Sequence[Driver],
    labels: Mapping[str, str],
    *,
    owned: bool = False,
    owner: str | None = None,
    on_removed: Callable[[Found], None] = lambda _: None,
    quiet_s: float | None = None,
    limit_s: float = 120.0,
) -> Swept:
    """Remove all that bears `labels` and whose owner is proven dead (with `owned`: whoever owns it; with `owner`: what
    is that owner's, by `is_of`, unless it is seen to live), until two listings `quiet_s` (by default `QUIET_S`) apart
    find nothing, or `limit_s` is over."""
    removed: list[Found] = []
    deadline = time.monotonic() + limit_s
    pause_s = QUIET_S if quiet_s is None else quiet_s
    quiet = False
    judge = Judge()
    while True:
        looked = find(drivers, labels, judge=judge)
        mine = [item for item in looked.found if owned or _may_go(item, owner)]
        failed = _remove(mine, removed, on_removed)
        stuck = bool(failed) and len(failed) == len(mine)
        late = bool(mine) and time.monotonic() > deadline
        if stuck or late or (quiet and not mine):
            gave_up = [f"gave up after {limit_s:g} s"] if late and not stuck else []
            return Swept(removed, [*looked.problems, *failed, *gave_up], looked.absent)
        quiet = not mine
        time.sleep(pause_s if quiet else 0)


def _may_go(item: Found, owner: str | None) -> bool:
    return item.fate == "remove" if owner is None else item.fate != "live owner" and is_of(item, owner)


def _instances(driver: Driver, labels: Mapping[str, str], judge: Judge) -> list[Found]:
    return [_found(driver.name, "instance", instance, judge) for instance in driver.list_instances(labels)]


def _leftovers(driver: Driver, labels: Mapping[str, str], judge: Judge) -> list[Found]:
    return [_found(driver.name, leftover.kind, leftover, judge) for leftover in driver.leftovers(labels)]


def _found(driver: str, kind: str, thing: Instance | Leftover, judge: Judge) -> Found:
    alive = judge.alive(thing)
    fate: Fate = "owner out of sight" if alive is None else "live owner" if alive else "remove"
    return Found(driver, kind, thing.id, thing.labels, fate, thing)


def _remove(found: Sequence[Found], removed: list[Found], on_removed: Callable[[Found], None]) -> list[str]:
    failed: list[str] = []
    holding: set[str | None] = set()
    for item in found:
        if item.kind == "directory" and item.labels.get("lab.run") in holding:
            # Its heartbeat may be what proves the owner dead; directories come last.
            failed.append(f"{item.driver} {item.kind} {item.id}: kept while other things of its run are")
            continue
        try:
            item.thing.delete()
        except (CleanupError, DriverError) as error:
            failed.append(f"{item.driver} {item.kind} {item.id}: {error}")
            holding.add(item.labels.get("lab.run"))
        else:
            removed.append(item)
            on_removed(item)
    return failed
