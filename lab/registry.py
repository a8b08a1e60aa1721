"""Finds drivers and scenarios by entry point, and loads them on use.

Run from a checkout, what its pyproject.toml names counts at once, over what was installed from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lab.errors import BadInput, LabError, one_line
from lab.spec import Target

if TYPE_CHECKING:
    from lab.driver import Context, Driver
    from lab.scenario import Scenario

DRIVERS = "lab.drivers"
SCENARIOS = "lab.scenarios"

_DISTRIBUTION = "stratalab"
_PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
"""Where the lab runs from a checkout: its own; elsewhere there is no such file."""


def driver_names() -> list[str]:
    """Every registered driver. Raises BadInput for a checkout whose pyproject.toml cannot be read."""
    return sorted(_registered(DRIVERS))


def scenario_names() -> list[str]:
    """Every registered scenario. Raises BadInput for a checkout whose pyproject.toml cannot be read."""
    return sorted(_registered(SCENARIOS))


def not_installed() -> list[str]:
    """What the checkout's pyproject.toml names and the installed package does not, or names otherwise, and the other
    way round, each as `group:name`; empty where the lab does not run from a checkout. Raises as `driver_names`."""
    differing = set()
    for group in (DRIVERS, SCENARIOS):
        declared = _declared(group)
        if declared is not None:
            installed = {entry for entry in entry_points(group=group) if _is_own(entry)}
            differing |= {f"{group}:{entry.name}" for entry in installed ^ set(declared)}
    return sorted(differing)


def driver_class(name: str) -> type[Driver]:
    """The class that `name` names. Raises BadInput when there is none, LabError when it cannot be loaded."""
    return cast("type[Driver]", _load(_find(DRIVERS, name, "driver")))


def variants(name: str) -> Mapping[str, str]:
    """The variants of the driver that `name` names, each with what it is; of one that cannot be loaded, why."""
    try:
        cls = driver_class(name)
    except LabError as error:  # it is broken, and the others are not
        return {"": error.brief}
    return cls.variants()


def make_driver(target: Target, context: Context) -> Driver:
    """A driver for `target`. Raises BadInput for a driver or a fixed variant that does not exist."""
    return driver_class(target.driver)(target.variant, context)  # type: ignore[call-arg]  # a Protocol has no __init__


def make_scenario(name: str, parameters: Mapping[str, str] | None = None) -> Scenario:
    """The scenario that `name` names; `parameters` are its fields, as a user wrote them. Raises BadInput."""
    from pydantic import ValidationError

    made = _load(_find(SCENARIOS, name, "scenario"))
    known = [field.name for field in _parameters(made)]
    for key in parameters or {}:
        if key not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise BadInput(f"{name} has no parameter '{key}'", resolution=there)
    try:
        return cast("Scenario", made(**(parameters or {})))
    except ValidationError as error:
        raise BadInput(f"{name} cannot take these parameters: {'; '.join(map(_said, error.errors()))}") from error


def describe_scenarios() -> list[dict[str, Any]]:
    """Every scenario with its question, its parameters and their defaults; of one that cannot be loaded, why."""
    return [_described(name) for name in scenario_names()]


def _described(name: str) -> dict[str, Any]:
    try:
        one = make_scenario(name)
    except LabError as error:  # it is broken, and the others are not
        return {"scenario": name, "question": error.brief, "parameters": {}}
    told = {field.name: getattr(one, field.name) for field in _parameters(type(one))}
    return {"scenario": one.name, "question": one.question, "parameters": told}


def _said(problem: Mapping[str, Any]) -> str:
    """One of pydantic's problems, for a reader."""
    said = str(problem["msg"]).removeprefix("Value error, ")
    return ": ".join(filter(None, [".".join(map(str, problem["loc"])), said]))


def _parameters(made: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(made) if dataclasses.is_dataclass(made) else ()


def _registered(group: str) -> dict[str, EntryPoint]:
    declared = _declared(group)
    installed = [entry for entry in entry_points(group=group) if declared is None or not _is_own(entry)]
    return {entry.name: entry for entry in [*installed, *(declared or ())]}


def _declared(group: str) -> list[EntryPoint] | None:
    """The entry points that the checkout's pyproject.toml names; None where the lab does not run from a checkout."""
    try:
        told: Mapping[str, Any] = tomllib.loads(_PYPROJECT.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{_PYPROJECT} cannot be read: {error}", resolution="correct the file") from error
    project = told.get("project", {})
    if project.get("name") != _DISTRIBUTION:  # the file of whoever put a copy of the lab into a project of theirs
        return None
    named: Mapping[str, object] = project.get("entry-points", {}).get(group, {})
    return [EntryPoint(name, str(value), group) for name, value in named.items()]


def _is_own(entry: EntryPoint) -> bool:
    """Whether `entry` was installed from the lab itself, and not from a package that adds to it."""
    return entry.dist is not None and entry.dist.name == _DISTRIBUTION


def _find(group: str, name: str, kind: str) -> EntryPoint:
    found = _registered(group)
    if name not in found:
        raise BadInput(f"there is no {kind} '{name}'", resolution=_suggest(name, found))
    return found[name]


def _suggest(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(known)}"


def _load(entry: EntryPoint) -> type:
    """The class that `entry` names. Raises LabError for whatever the loading of somebody's module raises."""
    try:
        made = entry.load()
        if not isinstance(made, type):
            raise TypeError("it is no class")
    except Exception as error:
        what = f"'{entry.name}' ({entry.value}) cannot be loaded: {one_line(error)}"
        remedy = "run `make venv`, or reinstall the package that brings it"
        raise LabError(what, resolution=remedy if isinstance(error, ImportError) else "correct it") from error
    return made
