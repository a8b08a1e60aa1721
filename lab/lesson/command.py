"""The command that a step has its student type, taken apart: what is typed is what the check asks of the stored run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from lab.errors import LabError
from lab.registry import driver_names, make_scenario
from lab.scenario import Paced
from lab.spec import Target

_USUAL_ROUNDS, _USUAL_WARMUP = 10, 1  # as `lab run` has them
_LONG = {"-t": "--targets", "-p": "--param", "-o": "--driver-option"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`lab run SCENARIO …`: `text` as it is typed; what a run of it has at least. `parameters` are the scenario's
    fields that it sets, as the store keeps them; `given` as they are typed."""

    text: str
    scenario: str
    targets: Sequence[str]
    rounds: int
    warmup: int
    parameters: Mapping[str, Any]
    given: Mapping[str, str]
    driver_options: Sequence[str] = ()


def parse(text: str) -> Command:
    """Raises ValueError for what is no such command, in one line."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"'{text}': {error}") from error
    if words[:2] != ["lab", "run"] or len(words) < 3 or words[2].startswith("-"):
        raise ValueError(f"'{text}' does not begin with: lab run SCENARIO")
    options = _options(words[3:])
    targets = [part for given in options.get("--targets", ()) for part in given.split(",") if part]
    if not targets:
        raise ValueError(f"'{text}' names no targets: -t process,docker")
    given = dict(_pair(one) for one in options.get("--param", ()))
    try:
        scenario = make_scenario(words[2], given)
        known = driver_names()
        unknown = [name for name in targets if Target.parse(name).driver not in known]
    except LabError as error:
        raise ValueError(f"'{text}': {error.brief}") from error
    if unknown:
        raise ValueError(f"'{text}': there is no driver for {', '.join(unknown)}")
    usual = (scenario.rounds, scenario.warmup) if isinstance(scenario, Paced) else (_USUAL_ROUNDS, _USUAL_WARMUP)
    fields: Mapping[str, Any] = asdict(scenario) if is_dataclass(scenario) and not isinstance(scenario, type) else {}
    return Command(
        text=text,
        scenario=scenario.name,
        targets=targets,
        rounds=_number(options.get("--rounds"), usual[0]),
        warmup=_number(options.get("--warmup"), usual[1]),
        parameters={key: fields[key] for key in given if key in fields},
        given=given,
        driver_options=options.get("--driver-option", []),
    )


def _options(words: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        name = _LONG.get(name, name)
        if name not in ("--targets", "--rounds", "--warmup", "--param", "--driver-option"):
            raise ValueError(f"a lesson's command has -t, --rounds, --warmup, -p and -o, and not '{word}'")
        found.setdefault(name, []).append(value if equals else next(rest, ""))
    return found


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"-p '{text}': write KEY=VALUE")
    return key, value


def _number(given: Sequence[str] | None, usual: int) -> int:
    if given is None:
        return usual
    if not given[-1].isdigit():
        raise ValueError(f"'{given[-1]}' is no number of rounds")
    return int(given[-1])
