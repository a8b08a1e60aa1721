"""Gauges for Prometheus, in both of its text formats: OpenMetrics 1.0, and the older one that node_exporter's textfile
collector reads. The older one knows neither `# EOF` nor units nor the type `info`, and what it does not know it takes
for untyped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lab.figures import series
from lab.show.formats.told import Standing, Told, Total, records
from lab.store.record import Outcome

_UNITS = {"s": "seconds", "bytes": "bytes", "share": "ratio", "x": "ratio", "bytes/s": "bytes_per_second"}
_NAME = re.compile("[^a-zA-Z0-9_]")
_PREFIX = "stratalab"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """One metric with its samples; `info` has no value but its labels."""

    name: str
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]]
    unit: str = ""
    info: bool = False


def openmetrics(told: Sequence[Told]) -> str:
    """OpenMetrics' text (prometheus.io/docs/specs/om/open_metrics_spec): each name ends with its unit."""
    lines = []
    for family in _families(told):
        lines.append(f"# TYPE {family.name} {'info' if family.info else 'gauge'}")
        lines += [f"# UNIT {family.name} {family.unit}"] if family.unit else []
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        name = f"{family.name}_info" if family.info else family.name
        lines += [_sample(name, labels, value) for labels, value in family.samples]
    return "\n".join([*lines, "# EOF"]) + "\n"


def prometheus(told: Sequence[Told]) -> str:
    """Prometheus' older text, for a file `NAME.prom` in node_exporter's --collector.textfile.directory."""
    lines = []
    for family in _families(told):
        name = f"{family.name}_info" if family.info else family.name
        help_text = family.help.replace("\\", "\\\\").replace("\n", "\\n")  # where quotes are not escaped
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
        lines += [_sample(name, labels, value) for labels, value in family.samples]
    return "\n".join(lines) + "\n"


def _families(told: Sequence[Told]) -> Iterator[_Family]:
    yield _Family(
        name=f"{_PREFIX}_run",
        help="The runs that these figures are of.",
        samples=[
            ({"scenario": run.scenario, "run": run.id, "lab_version": run.lab_version}, 1.0)
            for run in (record.run for record in records(told))
        ],
        info=True,
    )
    yield _Family(
        name=f"{_PREFIX}_run_started_timestamp_seconds",
        help="When each run began, since 1970.",
        unit="seconds",
        samples=[
            ({"scenario": run.scenario}, datetime.fromisoformat(run.started_at).timestamp())
            for run in (record.run for record in records(told))
        ],
    )
    yield _Family(
        name=f"{_PREFIX}_failed_launches",
        help="Launches that failed, warm-up left out.",
        samples=[
            (
                {"scenario": record.run.scenario, "target": series.label(target)},
                float(len(series.failures(record, target.target))),
            )
            for record in records(told)
            for target in record.targets
            if target.outcome is not Outcome.SKIPPED
        ],
    )
    yield from _figures(told)
    yield _Family(
        name=f"{_PREFIX}_standing",
        help="What was judged of each total or target: 1 for the standing that it has.",
        samples=[
            (
                {
                    "scenario": one.scenario,
                    "target": case.target,
                    "total": case.metric,
                    "standing": str(standing),
                },
                float(case.standing is standing),
            )
            for one in told
            for case in one.cases
            for standing in Standing
        ],
    )


def _figures(told: Sequence[Told]) -> Iterator[_Family]:
    """Of each metric its median, the ends of its interval, and the number of values."""
    found: dict[tuple[str, str], list[tuple[Mapping[str, str], Total]]] = {}
    for one in told:
        for total in one.totals:
            labels = {"scenario": one.scenario, "target": total.row.label}
            labels |= {f"dim_{_NAME.sub('_', key)}": value for key, value in total.row.dimensions.items()}
            found.setdefault((total.row.metric, total.row.unit), []).append((labels, total))
    for (metric, unit), rows in found.items():
        suffix = _UNITS.get(unit, "")
        base = f"{_PREFIX}_{_NAME.sub('_', _without_unit(metric, unit))}"
        for part, words, samples in (
            ("median", "median", [(labels, total.estimate.median) for labels, total in rows]),
            ("low", "lower end of the median's 95 % interval", _bounds(rows, "low")),
            ("high", "upper end of the median's 95 % interval", _bounds(rows, "high")),
        ):
            if samples:
                name = "_".join(filter(None, [base, part, suffix]))
                yield _Family(name=name, help=f"{metric}: {words}.", unit=suffix, samples=samples)
        counts = [(labels, float(total.estimate.n)) for labels, total in rows]
        yield _Family(name=f"{base}_values", help=f"{metric}: number of values.", samples=counts)


def _bounds(rows: Sequence[tuple[Mapping[str, str], Total]], end: str) -> list[tuple[Mapping[str, str], float]]:
    return [(labels, value) for labels, total in rows if (value := getattr(total.estimate, end)) is not None]


def _without_unit(metric: str, unit: str) -> str:
    """`boot` of `boot_s`, whose unit the name ends with in these formats' own words."""
    ending = {"s": "_s", "bytes": "_bytes", "share": "_share"}.get(unit, "")
    return metric.removesuffix(ending) if ending else metric


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{told}}} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
