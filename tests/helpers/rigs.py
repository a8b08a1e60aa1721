"""Makes the rigs of the contract's tests: for a registered driver, for those that tests bring, and for broken ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from contract_rig import Rig
from host_view import HostView

from lab.driver import Context, Driver
from lab.features import Feature
from lab.host.ownership import Owner
from lab.run.runner import new_run_id
from lab.spec import Target
from lab.store.place import RunDir, make_run_dir
from lab.testing import FakeDriver, ModelDriver, engine_of, model_engine_of
from lab.timeline import HostClock, SystemClock


def make_rig(target: Target, made: Callable[..., Driver], cache: Path, run_dir: RunDir, **limits: Any) -> Rig:
    """A rig for `target`, whose class is `made`; `limits` are those that `Rig` takes."""
    context = Context(run_dir=Path(run_dir.id), cache_dir=cache)
    clock: HostClock = SystemClock()
    view = HostView()
    if issubclass(made, FakeDriver):  # type: ignore[arg-type]
        engine = engine_of(context)
        clock = engine.clock
        engine.features |= {Feature.REPLICAS, Feature.FUNCTION}
    if issubclass(made, ModelDriver):  # type: ignore[arg-type]
        view = HostView(model_engine_of(context).kernel.root)
    return Rig(
        target,
        lambda: made(target.variant, context),
        context,
        run_dir.labels,
        clock=clock,
        view=view,
        **limits,
    )


def new_run_dir() -> RunDir:
    """The directory of a run of the contract's own."""
    run_id = f"c{new_run_id()}"
    labels = {"lab.run": run_id, "lab.scenario": "contract", "lab.owner": str(Owner.current())}
    return RunDir(str(make_run_dir(run_id, labels)), labels)
