"""What works on this machine, and what mends the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab.driver import Context
from lab.errors import LabError
from lab.host.facts import host_facts
from lab.host.noise import HostWarning, host_warnings
from lab.host.ownership import Owner
from lab.registry import driver_names, make_driver, not_installed
from lab.run.runner import info_json, new_run_id
from lab.spec import Target
from lab.store.place import RunDir, cache_dir, make_run_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine: what it says of itself, or why it is not there and what mends that."""

    name: str
    info: Mapping[str, Any]
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What `lab doctor` shows."""

    engines: Sequence[Engine]
    host: Mapping[str, Any]
    warnings: Sequence[HostWarning]
    installation: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(options: Mapping[str, str]) -> Findings:
    """Ask every engine, and look at the host. Starts nothing but a short proof of KVM where there is a /dev/kvm."""
    run_id = f"doctor-{new_run_id()}"
    labels = {"lab.run": run_id, "lab.scenario": "doctor", "lab.owner": str(Owner.current())}
    run_dir = RunDir(str(make_run_dir(run_id, labels)), labels)
    try:
        context = Context(run_dir=Path(run_dir.id), cache_dir=cache_dir(), options=options)
        engines = [_engine(name, context) for name in driver_names()]
    finally:
        run_dir.delete()
    facts = host_facts()
    return Findings(engines=engines, host=facts, warnings=host_warnings(facts), installation=_stale_entry_points())


def render(findings: Findings) -> RenderableType:
    """The findings for a terminal."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for engine in findings.engines:
        if engine.info:
            table.add_row(Text("✓", "green"), engine.name, Text(_sentence(engine.info)))
            for key, value in engine.info["facts"].items():
                table.add_row("", "", Text(f"{key}: {value}", "dim"))
        else:
            table.add_row(Text("✗", "red"), engine.name, Text(engine.reason))
            table.add_row("", "", Text(f"mend: {engine.remedy}", "yellow"))
    parts: list[RenderableType] = [table]
    if findings.warnings:
        parts.append(Text("\nWhat makes figures weak here:", "bold"))
        parts += [
            Text(f"  {warning.text}" + (f" ({warning.remedy})" if warning.remedy else ""))
            for warning in findings.warnings
        ]
    parts += [Text(f"\n{line}", "red") for line in findings.installation]
    return Group(*parts)


def _engine(name: str, context: Context) -> Engine:
    try:
        driver = make_driver(Target(name), context)
        try:
            return Engine(name=name, info=info_json(driver.info()))
        finally:
            driver.close()
    except LabError as error:
        return Engine(name=name, info={}, reason=error.brief, remedy=error.resolution)


def _sentence(info: Mapping[str, Any]) -> str:
    qualifiers = ", ".join(f"{key} {value}" for key, value in info["qualifiers"].items())
    return f"{info['engine']} {info['version']}: {info['isolation']}" + (f" ({qualifiers})" if qualifiers else "")


def _stale_entry_points() -> list[str]:
    differing = not_installed()
    if not differing:
        return []
    what = ", ".join(differing)
    return [f"what is installed and pyproject.toml differ in {what}: run `make venv`; until then pyproject.toml counts"]
