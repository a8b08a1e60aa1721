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
    dimensions = sorted({name for sample in record.samples for name in sample.dimensions})
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["target", "metric", "value", "unit", "iteration", "warmup", *dimensions])
    for sample in record.samples:
        told = [sample.dimensions.get(name, "") for name in dimensions]
        warmup = str(sample.warmup).lower()
        row = [sample.target, sample.metric, repr(sample.value), sample.unit, sample.iteration, warmup, *told]
        writer.writerow(row)
    return text.getvalue()
