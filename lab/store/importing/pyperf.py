"""pyperf's JSON (version 1.0): each benchmark is a target, each of its values a sample; warm-up values are kept too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from lab.errors import BadInput
from lab.store.importing.foreign import UNKNOWN_TIME, foreign_run, measured, numbers, words
from lab.store.record import RunRecord, TargetRecord
from lab.store.sample import Sample

ORIGIN = "pyperf"
_VERSION = "1.0"
_METRICS = {"second": ("value_s", "s"), "byte": ("value_bytes", "bytes"), "integer": ("value", "")}
_DEFAULT_UNIT = "second"
_FACTS = ("python_version", "python_implementation", "platform", "loops", "inner_loops", "timer")


def read(document: Any) -> RunRecord | None:
    """The run; None for what is no document of pyperf's. Its dates have no time zone, and are taken for UTC. Raises
    BadInput for a broken one, and for one of a version that is not known here."""
    if not isinstance(document, Mapping) or not isinstance(document.get("benchmarks"), list):
        return None
    if not all(isinstance(one, Mapping) and isinstance(one.get("runs"), list) for one in document["benchmarks"]):
        return None
    if document.get("version") != _VERSION:
        raise BadInput(
            f"this is pyperf's format {document.get('version')}, and the lab knows {_VERSION}",
            resolution="python3 -m pyperf convert FILE -o NEW writes that",
        )
    common = _object(document.get("metadata"))
    targets: dict[str, TargetRecord] = {}
    samples: list[Sample] = []
    dates: list[str] = []
    for place, benchmark in enumerate(document["benchmarks"], 1):
        about = {**common, **_object(benchmark.get("metadata"))}
        runs = [one for one in benchmark["runs"] if isinstance(one, Mapping)]
        told = {**about, **(_object(runs[0].get("metadata")) if runs else {})}
        name = words(told.get("name") or f"benchmark {place}", f"the name of benchmark {place}")
        if name in targets:
            raise BadInput(f"two benchmarks are called '{name}'", resolution="import the file as pyperf wrote it")
        targets[name] = measured(name, {"engine": ORIGIN, "facts": {key: told[key] for key in _FACTS if key in told}})
        unit = told.get("unit", _DEFAULT_UNIT)
        if unit not in _METRICS:
            raise BadInput(f"'{name}' is in '{unit}', a unit that pyperf does not have")
        samples += _samples(name, *_METRICS[unit], runs)
        dates += [str(at) for one in runs if (at := {**told, **_object(one.get("metadata"))}.get("date"))]
    model, version = common.get("cpu_model_name"), str(common.get("perf_version", ""))
    return foreign_run(
        ORIGIN,
        document,
        targets=list(targets.values()),
        samples=samples,
        started_at=min(map(_utc, dates), default=UNKNOWN_TIME),
        host={"cpu": {"model": model}} if model else {},
        host_name=str(common.get("hostname", "")),
        version=version,
    )


def _samples(name: str, metric: str, unit: str, runs: list[Mapping[str, Any]]) -> Iterator[Sample]:
    """In the order in which they were measured; a run's warm-up comes first, and one that calibrates has no values."""
    iteration = 0
    for run in runs:
        warmups = [pair[-1:] for pair in run.get("warmups") or [] if isinstance(pair, list)]
        values = [(value, True) for pair in warmups for value in numbers(pair, f"a warm-up of '{name}'")]
        values += [(value, False) for value in numbers(run.get("values") or [], f"'values' of '{name}'")]
        for value, warmup in values:
            yield Sample(target=name, metric=metric, value=value, unit=unit, iteration=iteration, warmup=warmup)
            iteration += 1


def _object(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _utc(date: str) -> str:
    try:
        return datetime.fromisoformat(date).replace(tzinfo=None).isoformat(timespec="seconds") + "+00:00"
    except ValueError:
        return UNKNOWN_TIME
