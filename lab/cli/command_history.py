"""`lab history`: the nights of a scenario, each judged by those before it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from rich.console import Console

from lab.cli.options import problems
from lab.errors import BadInput
from lab.figures import density
from lab.figures.nights import otava
from lab.figures.nights.levels import LEAST
from lab.figures.nights.night import CONFIRMS, Night, night_of, nights_of
from lab.figures.nights.past import Past, past_of
from lab.figures.series import EXPLAINING, IN_NO_ROW
from lab.host.facts import host_identity
from lab.registry import scenario_names
from lab.show.nights.report import write_html
from lab.show.nights.table import render_history
from lab.store.database import Store
from lab.store.history import HistoricRun
from lab.units import parse_share

SHOWN = 60
_EVERY = "all"
_DAYS = re.compile(r"(\d+)\s*(d|w)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line said; `given` holds `HistoryOptions` fields, None where not given."""

    scenario: str
    given: Mapping[str, Any]
    otava: str | None
    store: str | None
    html: Path | None
    as_json: bool


def _since(value: Any) -> str:
    """A date, an instant, or so many days or weeks ago, as the store has instants: ISO 8601 in UTC."""
    text = str(value).strip()
    if ago := _DAYS.fullmatch(text):
        days = int(ago[1]) * (7 if ago[2].lower() == "w" else 1)
        if days > 36_500:
            raise ValueError("that is more than a century ago")
        began = datetime.now(UTC).timestamp() - 86_400 * days
        return datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds")
    try:
        told = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError("write a date such as 2026-11-30, or so many days or weeks ago: 90d, 12w") from error
    told = told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
    return told.isoformat(timespec="seconds")


class HistoryOptions(BaseModel):
    """Options of `lab history` that choose and judge."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    last: Annotated[int, Field(ge=1)] = SHOWN
    since: Annotated[str, BeforeValidator(_since)] = ""
    host: str | None = None
    least: Annotated[float, BeforeValidator(parse_share), Field(gt=0, lt=10, allow_inf_nan=False)] = LEAST
    metric: tuple[str, ...] = ()


def show_history(request: Request) -> None:
    """Judge and show. Raises BadInput, StoreError."""
    try:
        told = {key: one for key, one in request.given.items() if one is not None}
        options = HistoryOptions.model_validate(told)
    except ValidationError as error:
        raise BadInput(problems(error), resolution="see `lab history --help`") from error
    python = otava.interpreter(request.otava)
    with Store.open(request.store) as store:
        hosts = _hosts(store, request.scenario, options)
        pasts = [_past(store, request.scenario, host, name, options) for host, name in hosts]
    if python is not None:
        pasts = [_with_change_points(past, python) for past in pasts]
    if request.html is not None:
        write_html(request.scenario, pasts, request.html)
    if request.as_json:
        found = {"scenario": request.scenario, "hosts": [past.to_json() for past in pasts]}
        sys.stdout.write(json.dumps(found, indent=2, allow_nan=False) + "\n")
        return
    Console().print(render_history(request.scenario, pasts))
    if request.html is not None:
        Console().print(str(request.html), markup=False, highlight=False, soft_wrap=True)


def _hosts(store: Store, scenario: str, options: HistoryOptions) -> list[tuple[str, str]]:
    """The hosts asked for that have runs of it, by id and name: this one, else all."""
    found: dict[str, str] = {}
    for run in store.runs():
        if run.scenario == scenario and not run.origin:
            found.setdefault(run.host_id, run.host_name)
    if not found:
        known = ", ".join(sorted({run.scenario for run in store.runs()}))
        if scenario not in scenario_names() and scenario not in known.split(", "):
            raise BadInput(f"there is no scenario '{scenario}'", resolution="see `lab scenarios`")
        told = f"it has runs of {known}" if known else f"lab run {scenario}"
        raise BadInput(f"the store has no runs of {scenario} yet", resolution=told)
    if options.host is None:
        here = host_identity().id
        return [(here, found[here])] if here in found else list(found.items())
    if options.host == _EVERY:
        return list(found.items())
    chosen = [(host, name) for host, name in found.items() if options.host in (host, name)]
    if not chosen:
        names = ", ".join(name or host or "one that no run tells" for host, name in found.items())
        raise BadInput(f"no host '{options.host}' has runs of {scenario}", resolution=f"there are: {names}; or all")
    return chosen


def _past(store: Store, scenario: str, host: str, name: str, options: HistoryOptions) -> Past:
    newest = store.history(scenario, host_id=host, last=1)
    if not newest:
        raise BadInput(f"no run of {scenario} has ended yet", resolution="wait for it, and see `lab runs`")
    metrics = _metrics(newest[0], options.metric)
    runs = store.history(scenario, host_id=host, metrics=metrics)
    nights = _sloped(store, runs) if density.LEVEL in metrics else nights_of(runs)
    if not nights:
        raise BadInput(f"all runs of {scenario} look into another's suspicion", resolution=f"lab run {scenario}")
    shown = None if options.since and "last" not in options.model_fields_set else options.last
    return past_of(nights, host=host, host_name=name, shown=shown, since=options.since, least=options.least)


def _metrics(newest: HistoricRun, asked: Sequence[str]) -> set[str]:
    """What is read of each run: the metrics that are asked for, or those that answer the scenario's question."""
    there = {key.metric for key in newest.series}
    slopes = there & {density.LEVEL}
    if not asked:
        return (there - EXPLAINING - IN_NO_ROW) | slopes
    names = [name.strip() for one in asked for name in one.split(",") if name.strip()]
    if unknown := [name for name in names if name not in there or name in IN_NO_ROW]:
        known = ", ".join(sorted(there - IN_NO_ROW)) or "none"
        raise BadInput(
            f"the newest run, {newest.run.id}, has no metric {', '.join(unknown)}", resolution=f"it has: {known}"
        )
    return set(names)


def _sloped(store: Store, runs: Sequence[HistoricRun]) -> list[Night]:
    """Slopes over the rounds need all of a run."""
    return [night_of(store.load(one.run.id)) for one in runs if CONFIRMS not in one.run.parameters]


def _with_change_points(past: Past, python: str) -> Past:
    runs = [verdict.run for verdict in past.verdicts]
    series = [line.at_equal_control() for line in past.lines]
    found = otava.change_points(python, runs, series, least=past.least)
    return replace(
        past, lines=[replace(line, change_points=points) for line, points in zip(past.lines, found, strict=True)]
    )
