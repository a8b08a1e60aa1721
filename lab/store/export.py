"""A run as text for other programs."""

from __future__ import annotations

import csv
import io
import json

from lab.store.record import RunRecord


def to_json(record: RunRecord) -> str:
    """The whole run as one JSON object: `run`, `host`, `targets`, `samples`, `timelines`."""
    return json.dumps(record.to_json(), indent=2) + "\n"


def to_csv(record: RunRecord) -> str:
    """One sample a row: target, metric, value, unit, iteration, warmup, and a column for each dimension in use."""
    told = {id(sample.dimensions): sample.dimensions for sample in record.samples}  # most samples share theirs
    dimensions = sorted({name for one in told.values() for name in one})
    lines = [_row(["target", "metric", "value", "unit", "iteration", "warmup", *dimensions])]
    # What 100,000 rows have in common is written as CSV once for each kind; of numbers nothing needs quotes.
    kinds: dict[tuple[str, str, str, int], tuple[str, str, str]] = {}
    for sample in record.samples:
        key = (sample.target, sample.metric, sample.unit, id(sample.dimensions))
        parts = kinds.get(key)
        if parts is None:
            rest = ["", *(sample.dimensions.get(name, "") for name in dimensions)]
            begun, unit = _row([sample.target, sample.metric, ""]), _row(["", sample.unit, ""])
            parts = kinds[key] = (begun.rstrip("\r\n"), unit.rstrip("\r\n"), _row(rest) if dimensions else "\r\n")
        warmup = "true" if sample.warmup else "false"
        lines.append(f"{parts[0]}{sample.value!r}{parts[1]}{sample.iteration},{warmup}{parts[2]}")
    return "".join(lines)


def _row(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()
