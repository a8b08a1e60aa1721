"""The file of a nightly job (`lab nightly -c nightly.toml`), with a line for each thing that is wrong in it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lab.cli.options import RunOptions, Seconds, Share, resolve_environment
from lab.errors import BadInput, LabError
from lab.figures.nights.levels import LEAST
from lab.registry import driver_class, make_scenario
from lab.run.gate import HIGH_PRESSURE, Limits
from lab.scenario import Scenario
from lab.show.formats import FORMATS, format_of
from lab.units import parse_share

_DEFAULT_FILES = ("junit", "markdown", "openmetrics", "prometheus", "bencher", "pyperf", "json", "csv")
_LEAST = "least"
_PARQUET = "parquet"


def _known_formats(files: dict[str, str]) -> dict[str, str]:
    for name in files:
        try:
            format_of(name)
        except BadInput as error:
            raise ValueError(str(error)) from error
    if _PARQUET in files and find_spec("pyarrow") is None:
        raise ValueError(f"{_PARQUET} needs pyarrow (pip install 'stratalab[parquet]')")
    return files


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_WholeShare = Annotated[float, BeforeValidator(parse_share), Field(gt=0, le=1)]


class GateOptions(_Strict):
    """How calm this machine must be, and how long that is waited for; a limit of 100 % is none."""

    wait: Annotated[Seconds, Field(ge=0, le=86_400)] = 1800.0
    window: Annotated[Seconds, Field(ge=0.1, le=600)] = 10.0
    load_per_core: Annotated[float, Field(gt=0)] = Limits().load_per_core
    steal: _WholeShare = Limits().steal
    pressure: _WholeShare = HIGH_PRESSURE

    def limits(self) -> Limits:
        """For `lab.run.gate`."""
        return Limits(load_per_core=self.load_per_core, steal=self.steal, pressure=self.pressure)


class _Job(_Strict):
    scenarios: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    run: dict[str, Any] = Field(default_factory=dict)
    least: Share = LEAST
    budget: Annotated[Seconds, Field(gt=0)] | None = None
    folder: Annotated[str, Field(min_length=1)] = "nightly"
    files: Annotated[dict[str, str], AfterValidator(_known_formats)] = Field(
        default_factory=lambda: {name: FORMATS[name].file for name in _DEFAULT_FILES}
    )
    against: str = ""
    store: Annotated[str, Field(min_length=1)] | None = None
    forward: Annotated[str, Field(min_length=1)] | None = None
    gate: GateOptions = Field(default_factory=GateOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One scenario of the job: what is run, and the least change that matters; `given` are the options as they stand
    in the file."""

    scenario: Scenario
    options: RunOptions
    least: float
    given: Mapping[str, Any]

    def paced(self, *, rounds: int, warmup: int, max_s: float | None, image: str = "") -> Wanted:
        """The same with so many rounds, no longer than `max_s`, and another image where one is named."""
        changes = {"rounds": rounds, "warmup": warmup, "max_time": max_s, "until_ci": None}
        return replace(self, options=self.options.model_copy(update={**changes, **({"image": image} if image else {})}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A nightly job. `budget_s` bounds the whole of it; `files` are paths by format; `against` is "" or an accepted
    build: a version, a wheel or an image."""

    wanted: Sequence[Wanted]
    budget_s: float | None
    files: Mapping[str, Path]
    against: str
    store: str | None
    forward: str | None
    gate: GateOptions


def read_job(path: Path, *, folder: Path | None = None) -> Job:
    """The job that the file describes; paths in it are relative to it, or for what is written to `folder`. Raises
    BadInput, with a line for each mistake."""
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path} cannot be read as TOML: {error}", resolution="see docs/nightly.md") from error
    wrong: list[str] = []
    job = _read(values, wrong)
    scenarios = values.get("scenarios")
    asked = scenarios if isinstance(scenarios, Mapping) else {}
    wanted = [found for name, own in asked.items() if (found := _wanted(name, own, values, wrong)) is not None]
    if wrong or job is None:
        count = "a mistake" if len(wrong) == 1 else f"{len(wrong)} mistakes"
        raise BadInput("\n     ".join([f"{path} has {count}:", *wrong]), resolution="see docs/nightly.md")
    into = folder if folder is not None else path.parent / job.folder
    return Job(
        wanted=wanted,
        budget_s=job.budget,
        files={name: into / file for name, file in job.files.items()},
        against=job.against,
        store=_store(job.store, path.parent),
        forward=_store(job.forward, path.parent),
        gate=job.gate,
    )


def _store(given: str | None, folder: Path) -> str | None:
    return given if given is None or "://" in given else str(folder / Path(given).expanduser())


def _read(values: Mapping[str, Any], wrong: list[str]) -> _Job | None:
    try:
        return _Job.model_validate(values)
    except ValidationError as error:
        wrong += _lines(error, "", _Job)
        return None


def _wanted(name: str, own: Any, values: Mapping[str, Any], wrong: list[str]) -> Wanted | None:
    """One table below `scenarios`, over what `run` has for all."""
    common = values.get("run")
    if not isinstance(own, Mapping) or (common is not None and not isinstance(common, Mapping)):
        return None  # told already
    where = f"scenarios.{name}."
    given = {**(common or {}), **own}
    raw = {key: value for key, value in given.items() if key != _LEAST}
    least = given.pop(_LEAST, values.get(_LEAST, LEAST))
    found: list[str] = []
    try:
        resolve_environment(given)
        options = RunOptions.model_validate(given)
    except ValidationError as error:
        found += _lines(error, where, RunOptions)
        options = None
    except BadInput as error:
        found.append(f"{where}env: {error}")
        options = None
    try:
        parsed = _Least.model_validate({_LEAST: least}).least
    except ValidationError as error:
        found += _lines(error, where, _Least) if _LEAST in own else []
        parsed = LEAST
    scenario = None
    try:
        scenario = make_scenario(name, options.scenario_param if options is not None else None)
        for target in options.parsed_targets() if options is not None else ():
            driver_class(target.driver)
    except LabError as error:
        found.append(f"scenarios.{name}: {error}")
    wrong += found
    return (
        None
        if found or options is None or scenario is None
        else Wanted(scenario=scenario, options=options, least=parsed, given=raw)
    )


class _Least(_Strict):
    least: Share


def _lines(error: ValidationError, prefix: str, model: type[BaseModel]) -> Iterator[str]:
    for problem in error.errors():
        place = [str(part) for part in problem["loc"]]
        if problem["type"] == "extra_forbidden":
            yield f"{prefix}{'.'.join(place)}: there is no such key{_near(place, model)}"
            continue
        text = problem["msg"].removeprefix("Value error, ")
        yield f"{prefix}{'.'.join(place)}: {text}" if place else f"{prefix.rstrip('.')}: {text}"


def _near(place: Sequence[str], model: type[BaseModel]) -> str:
    known: list[str] = list(model.model_fields)
    if len(place) > 1 and place[0] == "gate":
        known = list(GateOptions.model_fields)
    if model is RunOptions:
        known += [_LEAST, "env_file"]
    near = difflib.get_close_matches(place[-1], known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join(known)}"
