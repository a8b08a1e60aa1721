"""`lab cost`: what stored runs and a table of prices come to, by how often the service is called."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from rich.console import Console

from lab.cli.options import Size, problems
from lab.errors import BadInput
from lab.figures.cost.lines import Line
from lab.figures.cost.measured import SCENARIOS, Basis, basis_of, host_of
from lab.figures.cost.prices import SHIPPED, Machine, Prices, read_prices
from lab.figures.cost.reckoning import Assumed, Costs, costs_of
from lab.figures.cost.uncertain import Uncertain
from lab.host.facts import host_facts
from lab.host.ownership import Owner
from lab.show.report_cost import write_html
from lab.show.table_cost import render_cost
from lab.store.database import Store
from lab.store.record import Run, RunRecord, RunStatus
from lab.units import parse_share

_DEFAULT_RATES = (10.0, 1_000.0, 100_000.0)
_MACHINE = ("machine_price", "machine_years", "machine_watts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line said; `given` holds `CostOptions` fields, None where not given."""

    runs: Sequence[str]
    given: Mapping[str, Any]
    prices: Path | None
    store: str | None
    html: Path | None
    as_json: bool


def _rates(value: Any) -> Any:
    return [float(part.strip().replace("_", "")) for part in str(value).split(",")]


class CostOptions(BaseModel):
    """Options of `lab cost` that are reckoned with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rates: Annotated[
        list[Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]],
        BeforeValidator(_rates),
        Field(min_length=1, max_length=6),
    ] = Field(default_factory=lambda: list(_DEFAULT_RATES))
    cold_share: Annotated[float, BeforeValidator(parse_share), Field(ge=0, le=1)] | None = None
    function_memory: Annotated[Size, Field(gt=0)] | None = None
    machine_price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    machine_years: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    machine_watts: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    kwh_price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> CostOptions:
        told = [getattr(self, name) is not None for name in _MACHINE]
        if any(told) and not all(told):
            raise ValueError("--machine-price, --machine-years and --machine-watts belong together: give all three")
        return self

    def assumed(self) -> Assumed:
        """What no run and no table tells."""
        machine = None
        if self.machine_price is not None and self.machine_years is not None and self.machine_watts is not None:
            machine = Machine(price=self.machine_price, years=self.machine_years, watts=self.machine_watts)
        return Assumed(
            machine=machine,
            kwh_price=self.kwh_price,
            cold_share=self.cold_share,
            function_memory_bytes=self.function_memory,
        )


def print_prices() -> None:
    """The table that ships with the lab, as it is."""
    sys.stdout.write(SHIPPED.read_text(encoding="utf-8"))


def show_cost(request: Request) -> None:
    """Reckon and show. Raises BadInput, IncomparableRuns, StoreError."""
    try:
        options = CostOptions.model_validate({key: one for key, one in request.given.items() if one is not None})
    except ValidationError as error:
        raise BadInput(problems(error), resolution="see `lab cost --help`") from error
    prices = read_prices(request.prices)
    with Store.open(request.store) as store:
        basis = basis_of(_records(store, request.runs))
    costs = costs_of(basis, prices, options.assumed())
    if request.html is not None:
        write_html(basis, prices, costs, options.rates, request.html)
    if request.as_json:
        sys.stdout.write(json.dumps(_json(basis, prices, costs, options), indent=2) + "\n")
        return
    Console().print(render_cost(basis, prices, costs, options.rates))
    if request.html is not None:
        Console().print(str(request.html), markup=False, highlight=False, soft_wrap=True)


def _records(store: Store, wanted: Sequence[str]) -> list[RunRecord]:
    """The runs that are named, or the newest complete one of each scenario that was made on this host."""
    if wanted:
        found = {record.run.id: record for record in map(store.load, wanted)}
        return list(found.values())
    here = _here()
    records: list[RunRecord] = []
    runs: list[Run] = store.runs()
    for scenario in SCENARIOS:
        for run in runs:
            if run.scenario == scenario and run.status is RunStatus.DONE:
                record = store.load(run.id)
                if host_of(record) == here:
                    records.append(record)
                    break
    if not records:
        raise BadInput(
            f"the store has no complete run of {', '.join(SCENARIOS[:-1])} or {SCENARIOS[-1]} of this host",
            resolution="lab run memory, then lab run overhead with the same targets; or name runs: lab cost RUN …",
        )
    return records


def _here() -> tuple[object, ...]:
    run = Run(
        id="",
        scenario="",
        started_at="",
        ended_at=None,
        status=RunStatus.DONE,
        owner=str(Owner.current()),
        lab_version="",
    )
    return host_of(RunRecord(run=run, host=host_facts(), targets=(), samples=(), launches=()))


def _json(basis: Basis, prices: Prices, costs: Costs, options: CostOptions) -> dict[str, Any]:
    from lab.figures.cost import words

    return {
        "currency": costs.currency,
        "prices": [{"of": name, **price.model_dump(mode="json")} for name, price in prices.each()],
        "runs": list(basis.runs),
        "host": (basis.host.get("cpu") or {}).get("model"),
        "spec": {"image": basis.image, "cpus": basis.cpus, "memory_bytes": basis.memory_bytes},
        "measured": [
            {"target": target.label, "of": name, **(_figure(found) or {})}
            for target in basis.targets
            for name, found in target.means.items()
        ],
        "lines": [_line(line, options.rates) for line in costs.lines],
        "break_even": [
            {
                "function": _named(one.function),
                "other": _named(one.other),
                "calls_per_hour": _figure(one.calls_per_hour),
                "never_dearer": math.isinf(one.calls_per_hour.figure),
            }
            for one in costs.break_evens
        ],
        "notes": words.notes(basis, prices, costs),
    }


def _line(line: Line, rates: Sequence[float]) -> dict[str, Any]:
    found = {rate: line.per_million(rate) for rate in rates}
    return {
        **_named(line),
        "emulated": line.emulated,
        "reason": line.reason,
        "idle_per_hour": _figure(line.idle_per_hour),
        "per_call": _figure(line.per_call),
        "per_million": [
            {"calls_per_hour": rate, **told} for rate, one in found.items() if (told := _figure(one)) is not None
        ],
    }


def _named(line: Line) -> dict[str, str]:
    return {"kind": line.kind.value, "target": line.target, "what": line.what, "price": line.offer}


def _figure(found: Uncertain | None) -> dict[str, Any] | None:
    """What is endless is null, which JSON has for it."""
    if found is None:
        return None
    low, high = found.interval or (None, None)
    return {"value": _number(found.figure), "low": _number(low), "high": _number(high), "n": found.n}


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
