"""What works on this machine, and what mends the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from lab.driver import Context
from lab.errors import LabError, with_remedy
from lab.host.facts import host_facts
from lab.host.noise import HostWarning, host_warnings
from lab.host.ownership import Owner
from lab.registry import driver_names, make_driver, not_installed
from lab.run.runner import info_json, new_run_id
from lab.show.terminal import printable
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


def render(findings: Findings, *, verbose: bool = False) -> RenderableType:
    """The findings for a terminal: a line an engine, and with `verbose` every fact about each and about the host."""
    parts: list[RenderableType] = []
    for engine in findings.engines:
        if engine.info:
            parts.append(Text.assemble(("✓ ", "green"), (engine.name, "bold"), f" {_sentence(engine)}"))
            if verbose:
                parts += _facts(engine.info["facts"], 2)
        else:
            parts.append(Text.assemble(("✗ ", "red"), (engine.name, "bold"), f": {engine.reason}"))
            parts += [_indented(line, 2, "yellow") for line in engine.remedy.splitlines()]
    if verbose:
        parts += [Text("\nThis host:", "bold"), *_facts(findings.host, 2)]
    if findings.warnings:
        parts.append(Text("\nWhat makes figures weak here:", "bold"))
    for warning in findings.warnings:
        parts.append(_indented(with_remedy(warning.text, warning.remedy), 2))
    parts += [Text(f"\n{line}", "red") for line in findings.installation]
    return Group(*parts)


def _sentence(engine: Engine) -> str:
    """Its version, and what is special: `20.10.24: namespaces (runc), no bridge`. What the driver's name already says
    of the engine's is not said again, nor a condition of which the isolation tells."""
    told, version = engine.info["engine"], engine.info["version"].removeprefix(f"{engine.name} ")
    named = version if engine.name.casefold() in told.casefold() else f"({told} {version})"
    isolation = engine.info["isolation"]
    conditions = [text for text in engine.info["qualifiers"].values() if text.casefold() not in isolation.casefold()]
    return ", ".join([f"{named}: {isolation}", *conditions])


def _facts(facts: Mapping[str, Any], indent: int) -> list[RenderableType]:
    """A line a fact, those of a group below its name."""
    lines: list[RenderableType] = []
    for key, value in facts.items():
        group = value if isinstance(value, Mapping) else {}
        said = "" if group else f" {_plain(value)}"
        lines.append(_indented(f"{key.replace('_', ' ')}:{said}", indent, "dim"))
        lines += _facts(group, indent + 2)
    return lines


def _indented(text: str, indent: int, style: str = "") -> RenderableType:
    return Padding(Text(printable(text), style), (0, 0, 0, indent), expand=False)


def _plain(value: object) -> str:
    """A fact's value as a reader writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not known"
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        told = (
            [f"{key} {_plain(one)}" for key, one in value.items()] if isinstance(value, Mapping) else map(_plain, value)
        )
        return ", ".join(told) or "none"
    return str(value)


def _engine(name: str, context: Context) -> Engine:
    try:
        driver = make_driver(Target(name), context)
        try:
            return Engine(name=name, info=info_json(driver.info()))
        finally:
            driver.close()
    except LabError as error:
        return Engine(name=name, info={}, reason=error.brief, remedy=error.resolution)


def _stale_entry_points() -> list[str]:
    differing = not_installed()
    if not differing:
        return []
    what = ", ".join(differing)
    return [f"what is installed and pyproject.toml differ in {what}: run `make venv`; until then pyproject.toml counts"]
