"""Other runs on the same engines, which the host's lock does not see.

The lock is a file, and two containers or mount namespaces that share an engine's socket have two of it. What all of
them see is the engine, and on it what a run has there from its preparation to its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lab.driver import Driver
from lab.errors import LabError
from lab.run.clean import Found, find

LOOK_EVERY_S = 1.0
WATCH_S = 5.0
"""For so long nothing may be launched by an owner that cannot be seen, and whose image or network is there: what a dead
run left lies still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """What another run has on the engines; `alive` is None where its owner is out of sight."""

    run: str
    alive: bool | None
    instances: int
    engines: Sequence[str]

    @property
    def busy(self) -> bool:
        """Whether it measures now: its owner is seen to live, or has something running."""
        return bool(self.alive) or self.instances > 0

    def __str__(self) -> str:
        what = f"{self.instances} of its instances" if self.instances else "what it prepared"
        whose = "" if self.alive else ", its owner out of sight from here"
        return f"run {self.run} ({what} on {', '.join(self.engines)}{whose})"


class Company:
    """The other runs on the engines of `drivers`, as the run `run_id` finds them, and waits for them where `wait`."""

    def __init__(
        self, drivers: Iterable[Driver], run_id: str, *, wait: bool, on_wait: Callable[[str], None] = lambda _: None
    ) -> None:
        self._drivers = list({driver.name: driver for driver in drivers}.values())
        self._run_id = run_id
        self._wait = wait
        self._on_wait = on_wait
        self._waited_for: dict[str, None] = {}
        self._beside: dict[str, None] = {}

    def look(self) -> list[Other]:
        """Those that are there and not known to be dead, the earliest first."""
        runs: dict[str, list[Found]] = {}
        for item in find(self._drivers, {}).found:
            run = item.labels.get("lab.run", "")
            # What lies on this host and on no engine, a run has also while it waits.
            if item.driver != "lab" and item.fate != "remove" and run != self._run_id:
                runs.setdefault(run, []).append(item)
        return [_other(run, items) for run, items in sorted(runs.items())]

    def await_alone(self) -> None:
        """Return once no other run is busy on the engines. Raises LabError where there is one and none to be waited
        for."""
        self._await(lambda _: True)

    def await_turn(self) -> None:
        """The same once this run has prepared, which others see: of two that began together, the later one waits."""
        self._await(lambda other: other.run < self._run_id)

    def note(self) -> None:
        """Remember who is busy beside this run."""
        self._beside |= {other.run: None for other in self.look() if other.busy}

    def to_json(self) -> dict[str, list[str]]:
        """Which runs were waited for, and which were there meanwhile; only what there was."""
        told = {"waited_for": list(self._waited_for), "beside": list(self._beside)}
        return {key: runs for key, runs in told.items() if runs}

    def _await(self, concerns: Callable[[Other], bool]) -> None:
        told = ""
        still_since_s = time.monotonic()
        while True:
            there = [other for other in self.look() if concerns(other)]
            busy = [other for other in there if other.busy]
            if not busy and (not there or time.monotonic() - still_since_s >= WATCH_S):
                return
            if busy:
                still_since_s = time.monotonic()
                names = "; ".join(map(str, busy))
                if not self._wait:
                    raise LabError(f"another lab run uses the same engine: {names}", resolution=_remedy(busy))
                if names != told:
                    self._on_wait(f"{names}; if it is dead: {_clean(busy)}")
                    told = names
                self._waited_for |= {other.run: None for other in busy}
            time.sleep(LOOK_EVERY_S)


def facts(company: Company | None) -> Mapping[str, object]:
    """What a run's parameters carry of `company`: nothing where it was alone."""
    told = company.to_json() if company is not None else {}
    return {"other_runs": told} if told else {}


def _other(run: str, items: Sequence[Found]) -> Other:
    alive = True if any(item.fate == "live owner" for item in items) else None
    instances = sum(item.kind == "instance" for item in items)
    return Other(run=run, alive=alive, instances=instances, engines=sorted({item.driver for item in items}))


def _remedy(busy: Sequence[Other]) -> str:
    return f"wait for it to end, or pass --wait; if it is dead: {_clean(busy)}"


def _clean(busy: Sequence[Other]) -> str:
    return " && ".join(f"lab clean --owner {other.run}" for other in busy)
