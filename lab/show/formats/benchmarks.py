"""What services and tools that follow benchmarks read: Bencher, github-action-benchmark, pyperf. Each has the totals of
the runs, by names that stay the same from night to night."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lab.show.formats.told import Told, Total, each_total
from lab.store.record import RunRecord
from lab.units import span

_PYPERF_UNITS = {"s": "second", "bytes": "byte"}
_PYPERF_VERSION = "1.0"


def bencher(told: Sequence[Told]) -> str:
    """Bencher Metric Format: benchmark by measure by value and bounds, which are the median and its interval."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for _, name, total in each_total(told):
        bounds = {"lower_value": total.estimate.low, "upper_value": total.estimate.high}
        metric = {"value": total.estimate.median, **{key: at for key, at in bounds.items() if at is not None}}
        found.setdefault(name, {})[total.row.metric] = metric
    return _json(found)


def github_action_benchmark(told: Sequence[Told]) -> str:
    """`customSmallerIsBetter` of github-action-benchmark. Totals of which more is better, or of which nobody can say,
    are left out: the tool would alarm the wrong way round."""
    return _json(
        [
            {
                "name": name,
                "unit": total.row.unit,
                "value": total.estimate.median,
                "range": _interval(total),
                "extra": f"n = {total.estimate.n}",
            }
            for _, name, total in each_total(told)
            if total.smaller_is_better
        ]
    )


def pyperf(told: Sequence[Told]) -> str:
    """pyperf's JSON, a benchmark a total and a run a value, for `pyperf compare_to`. It has no way to write a value of
    0 or below, nor other units than seconds and bytes here: totals that need one are left out."""
    benchmarks: list[dict[str, Any]] = [
        {
            "metadata": {"name": name, "unit": _PYPERF_UNITS[total.row.unit], **_conditions(one.record)},
            "runs": [{"values": [value]} for value in total.row.values],
        }
        for one, name, total in each_total(told)
        if total.row.unit in _PYPERF_UNITS and min(total.row.values) > 0
    ]
    return _json({"version": _PYPERF_VERSION, "benchmarks": benchmarks})


def _conditions(record: RunRecord | None) -> Mapping[str, Any]:
    """By pyperf's own names, in which runs of one benchmark may not differ."""
    if record is None:
        return {}
    model = (record.host.get("cpu") or {}).get("model")
    date = record.run.started_at.replace("T", " ")[:19]
    return {"date": date, "lab_run": record.run.id, **({"cpu_model_name": str(model)} if model else {})}


def _interval(total: Total) -> str:
    low, high, unit = total.estimate.low, total.estimate.high, total.row.unit
    return "" if low is None or high is None else span(low, high, unit, like=total.estimate.median)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
