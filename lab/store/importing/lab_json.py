"""The lab's own `lab export --format json`, of this lab or an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lab.errors import BadInput
from lab.store.database import LAST
from lab.store.migration import host_id_of_owner
from lab.store.record import (
    EXPORT_FORMAT,
    EXPORT_VERSION,
    LaunchRecord,
    Outcome,
    Run,
    RunRecord,
    RunStatus,
    TargetRecord,
)
from lab.store.rows import text_of
from lab.store.sample import Sample, maker
from lab.timeline import Clock, MarkRecord, Phase, Source, Timeline

_ID = r"^[0-9A-Za-z][0-9A-Za-z._-]{0,127}$"
_FIRST_WRONG = 3
"""So many of a broken file's faults are told."""


def read(document: Any, *, only: Callable[[str], bool] | None = None) -> RunRecord | None:
    """The run; None for what is no export of the lab's. With `only`, as far as figures need it: the samples of those
    metrics, and of the launches those that failed. Raises BadInput for a broken one, one of a later lab, and one that
    was made before its run had ended."""
    if not isinstance(document, Mapping) or not {"run", "host", "targets", "samples", "timelines"} <= set(document):
        return None
    if document.get("format", EXPORT_FORMAT) != EXPORT_FORMAT:
        return None
    version = document.get("version", 1)
    if not isinstance(version, int) or not 1 <= version <= EXPORT_VERSION:
        raise BadInput(
            f"the export is of version {version!r}, and this lab reads 1 to {EXPORT_VERSION}",
            resolution="import it with the lab that wrote it, or a later one",
        )
    told = {key: value for key, value in document.items() if key not in _ABOUT}
    try:
        read_as = _Export.model_validate(told if only is None else _trimmed(told, only))
    except ValidationError as error:
        raise BadInput(
            f"the export is broken: {_told(error)}", resolution="import the file as `lab export` wrote it"
        ) from error
    return read_as.record()


_ABOUT = frozenset({"format", "version"})


def _trimmed(told: dict[str, Any], only: Callable[[str], bool]) -> dict[str, Any]:
    """What is of another kind than it should be stays, and is refused."""
    samples, launches = told["samples"], told["timelines"]
    if isinstance(samples, list):
        told["samples"] = [one for one in samples if not isinstance(_in(one, "metric"), str) or only(one["metric"])]
    if isinstance(launches, list):
        told["timelines"] = [one for one in launches if _in(one, "outcome") != Outcome.OK.value]
    return told


def _in(part: Any, key: str) -> Any:
    return part.get(key) if isinstance(part, Mapping) else None


def _named(value: str) -> str:
    if text_of(value) != value:
        raise ValueError("a name with a NUL or half a character")
    return value


def _lasting(run_id: str) -> str:
    if run_id == LAST:
        raise ValueError(f"'{LAST}' means another run each time")
    return run_id


def _ended(status: RunStatus) -> RunStatus:
    if status is RunStatus.RUNNING:
        raise ValueError("the run had not ended when it was exported")
    return status


def _utc(value: str) -> str:
    if datetime.fromisoformat(value).utcoffset() != timedelta(0):
        raise ValueError("not a time in UTC by ISO 8601")
    return value


Name = Annotated[str, AfterValidator(_named)]
Told = Annotated[str, AfterValidator(text_of)]
Time = Annotated[str, AfterValidator(_utc)]
Count = Annotated[int, Field(ge=0, lt=2**31)]


class _Part(BaseModel):
    """Nothing is coerced, and nothing that this lab would lose is taken."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Run(_Part):
    id: Annotated[str, Field(pattern=_ID), AfterValidator(_lasting)]
    scenario: Annotated[Name, Field(min_length=1)]
    started_at: Time
    ended_at: Time | None
    status: Annotated[RunStatus, Field(strict=False), AfterValidator(_ended)]
    owner: Name
    lab_version: Name
    parameters: dict[str, Any] = {}
    order: list[list[Name]] = []
    host_id: Name | None = None
    host_name: Name = ""
    origin: Name = ""
    accepted_at: Time | None = None
    accepted_note: Told = ""
    notes: list[Annotated[list[Told], Field(min_length=2, max_length=2)]] = []

    def run(self) -> Run:
        """Of an earlier lab's run the owner tells the host."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        fields["host_id"] = host_id_of_owner(self.owner) if self.host_id is None else self.host_id
        fields["notes"] = [(at, text) for at, text in self.notes]
        return Run(**fields)


class _Target(_Part):
    target: Name
    outcome: Annotated[Outcome, Field(strict=False)]
    reason: Told
    remedy: Told
    info: dict[str, Any]


class _Sample(_Part):
    target: Name
    metric: Name
    value: Annotated[float, Field(allow_inf_nan=False)]
    unit: Name
    iteration: Count
    warmup: bool
    dimensions: dict[str, str]


class _Mark(_Part):
    phase: Annotated[Phase, Field(strict=False)]
    ns: int
    clock: Annotated[Clock, Field(strict=False)]
    source: Annotated[Source, Field(strict=False)]
    resolution_ns: int


class _Launch(_Part):
    target: Name
    iteration: Count
    warmup: bool
    outcome: Annotated[Outcome, Field(strict=False)]
    error: Told
    logs: Told
    facts: dict[str, Any]
    marks: list[_Mark]


class _Export(_Part):
    run: _Run
    host: dict[str, Any]
    targets: list[_Target]
    samples: list[_Sample]
    timelines: list[_Launch]

    def record(self) -> RunRecord:
        """Raises BadInput where a target is told twice."""
        names = [one.target for one in self.targets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BadInput(
                f"the export is broken: it tells twice of {', '.join(twice)}",
                resolution="import the file as `lab export` wrote it",
            )
        return RunRecord(
            run=self.run.run(),
            host=self.host,
            targets=[TargetRecord(**dict(one)) for one in self.targets],
            samples=self._samples(),
            launches=[
                LaunchRecord(
                    **{name: getattr(one, name) for name in type(one).model_fields if name != "marks"},
                    timeline=Timeline(MarkRecord(**dict(mark)) for mark in one.marks),
                )
                for one in self.timelines
            ],
        )

    def _samples(self) -> list[Sample]:
        makers: dict[Any, Any] = {}
        found = []
        for one in self.samples:
            kind = (one.target, one.metric, one.unit, tuple(sorted(one.dimensions.items())))
            make = makers.get(kind)
            if make is None:
                make = makers[kind] = maker(one.target, one.metric, one.unit, one.dimensions)
            found.append(make(one.value, one.iteration, one.warmup))
        return found


def _told(error: ValidationError) -> str:
    parts = [
        f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors(include_url=False, include_context=False)
    ]
    more = f", and {len(parts) - _FIRST_WRONG} more" if len(parts) > _FIRST_WRONG else ""
    return "; ".join(parts[:_FIRST_WRONG]) + more
