"""The lab's side of each comparison: sessions of real targets, and the removal of all that was made, by label."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.driver import Context, Driver, Info
from lab.errors import CleanupError
from lab.host.ownership import Owner
from lab.launch.session import Session
from lab.registry import make_driver
from lab.run.clean import sweep
from lab.run.runner import new_run_id
from lab.spec import Spec, Target
from lab.store.place import RunDir, cache_dir, make_run_dir
from lab.timeline import Phase, SystemClock

LAUNCH_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A target whose engine answered and has what launches need."""

    target: str
    driver: Driver
    info: Info
    spec: Spec

    @contextlib.contextmanager
    def launched(self) -> Iterator[Session]:
        """A ready instance, deleted on leaving. Raises LabError."""
        with Session(self.driver, self.info, self.spec.for_launch(), SystemClock(), timeout_s=LAUNCH_TIMEOUT_S) as made:
            made.launch()
            yield made

    def boot_s(self) -> float:
        """Seconds from `requested` to `ready` of one launch. Raises LabError."""
        with self.launched() as session:
            return session.timeline.duration_s(Phase.REQUESTED, Phase.READY)


@dataclass(slots=True, kw_only=True)
class LabSide:
    """A run of this program's own."""

    labels: Mapping[str, str]
    context: Context
    _drivers: list[Driver] = field(default_factory=list)

    def prepare(self, target: str, **changes: Any) -> Prepared:
        """`target`, to launch the lab's own service, or what `changes` make of its spec. Raises DriverUnavailable where
        the engine is missing; LabError."""
        driver = make_driver(Target.parse(target), self.context)
        info = driver.info()
        self._drivers.append(driver)
        spec = Spec(labels={**self.labels, "lab.target": target}, **changes)
        driver.prepare(spec)
        return Prepared(target=target, driver=driver, info=info, spec=spec)

    def remove_all(self) -> None:
        """Remove what bears this run's label. Raises CleanupError naming what could not be removed."""
        try:
            one_each = list({driver.name: driver for driver in self._drivers}.values())
            swept = sweep(one_each, {"lab.run": self.labels["lab.run"]}, owned=True)
        finally:
            for driver in self._drivers:
                driver.close()
            RunDir(str(self.context.run_dir), self.labels).delete()
        if swept.problems:
            raise CleanupError("; ".join(swept.problems), resolution="lab clean")


@contextlib.contextmanager
def lab_side() -> Iterator[LabSide]:
    """A run whose objects are removed on leaving."""
    run_id = f"accept-{new_run_id()}"
    labels = {"lab.run": run_id, "lab.scenario": "accept", "lab.owner": str(Owner.current())}
    context = Context(run_dir=make_run_dir(run_id, labels), cache_dir=cache_dir())
    side = LabSide(labels=labels, context=context)
    try:
        yield side
    finally:
        side.remove_all()
