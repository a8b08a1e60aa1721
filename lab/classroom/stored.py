"""A class's store: the one that `lab forward` of every student's machine, or `lab import`, has filled."""

from __future__ import annotations

from pathlib import Path

from lab.classroom.handed import NOT_SHOWN, Class, Handed, handed, handed_of_record
from lab.errors import BadInput
from lab.figures import density, series
from lab.figures.series import Series
from lab.store import connect
from lab.store.database import Store
from lab.store.history import HistoricRun


def read_store(url: str) -> Class:
    """All ended runs of the lab's own in the store. Raises BadInput where there is none at `url`, StoreError."""
    where = connect.address(url)
    if where.get_backend_name() == "sqlite" and not Path(where.database or "").is_file():
        raise BadInput(f"there is no store {where.database}", resolution="name the file that the class's runs are in")
    with Store.open(url) as store:
        name = str(store)
        scenarios = dict.fromkeys(run.scenario for run in store.runs() if not run.origin)
        told = [one for scenario in scenarios for one in store.history(scenario, but=NOT_SHOWN)]
        # A slope over instances needs the whole of its run, which a history has not.
        sloped = {one.run.id for one in told if any(key.metric == density.LEVEL for key in one.series)}
        whole = {run_id: handed_of_record(store.load(run_id), source=name) for run_id in sloped}
    return Class(runs=[whole.get(one.run.id) or _handed(one, name) for one in told])


def _handed(one: HistoricRun, name: str) -> Handed:
    known = {target.target: target for target in one.targets}
    rows = []
    for key, values in one.series.items():
        about = known.get(key.target)
        qualifiers = (about.info.get("qualifiers") or {}) if about else {}
        rows.append(
            Series(
                target=key.target,
                label=series.label(about) if about else key.target,
                metric=key.metric,
                unit=key.unit,
                dimensions={key: value for key, value in key.dimensions if qualifiers.get(key) != value},
                values=tuple(values),
            )
        )
    return handed(one.run, one.host, one.targets, rows, source=name, failed_launches=sum(one.failures.values()))
