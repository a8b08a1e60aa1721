"""Raw samples of one or several runs as a table: CSV always, Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from lab.errors import Unsupported
from lab.show.formats.told import Told, records
from lab.store.export import to_csv, to_json
from lab.store.record import RunRecord
from lab.store.sample import Sample

_PLACE = ("run", "scenario", "started_at")
_VALUE = ("target", "metric", "value", "unit", "iteration", "warmup")


def json_document(told: Sequence[Told]) -> str:
    """Everything of one run, as `lab import` takes it back; of several, an array of them."""
    texts = [to_json(record) for record in records(told)]
    return texts[0] if len(texts) == 1 else "[\n" + ",\n".join(text.rstrip("\n") for text in texts) + "\n]\n"


def csv_table(told: Sequence[Told]) -> str:
    """A row a sample, and a column for each dimension in use; of several runs, which run it is of comes first."""
    runs = records(told)
    if len(runs) == 1:
        return to_csv(runs[0])
    names = _dimensions(told)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*_PLACE, *_VALUE, *names])
    for record, sample in _samples(told):
        run = record.run
        kept = [sample.target, sample.metric, repr(sample.value), sample.unit, sample.iteration]
        dimensions = [sample.dimensions.get(name, "") for name in names]
        writer.writerow([run.id, run.scenario, run.started_at, *kept, str(sample.warmup).lower(), *dimensions])
    return text.getvalue()


def parquet(told: Sequence[Told]) -> bytes:
    """The same with types, a column `dim_NAME` for each dimension in use, null where a sample has none. Raises
    Unsupported without pyarrow."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet as file_format
    except ImportError as error:
        raise Unsupported("Parquet needs pyarrow", resolution="pip install 'stratalab[parquet]'") from error
    names = _dimensions(told)
    rows = list(_samples(told))
    text = arrow.dictionary(arrow.int32(), arrow.string())
    columns = {
        "run": arrow.array([record.run.id for record, _ in rows], text),
        "scenario": arrow.array([record.run.scenario for record, _ in rows], text),
        "started_at": arrow.array([record.run.started_at for record, _ in rows], text),
        "target": arrow.array([sample.target for _, sample in rows], text),
        "metric": arrow.array([sample.metric for _, sample in rows], text),
        "value": arrow.array([float(sample.value) for _, sample in rows], arrow.float64()),
        "unit": arrow.array([sample.unit for _, sample in rows], text),
        "iteration": arrow.array([sample.iteration for _, sample in rows], arrow.int64()),
        "warmup": arrow.array([sample.warmup for _, sample in rows], arrow.bool_()),
        **{
            f"dim_{name}": arrow.array([_utf8(sample.dimensions.get(name)) for _, sample in rows], text)
            for name in names
        },
    }
    written = io.BytesIO()
    file_format.write_table(arrow.table(columns), written)
    return written.getvalue()


def _utf8(text: str | None) -> bytes | None:
    """Arrow's strings are UTF-8, which has no lone surrogates."""
    return None if text is None else text.encode("utf-8", "replace")


def _samples(told: Sequence[Told]) -> Iterator[tuple[RunRecord, Sample]]:
    return ((record, sample) for record in records(told) for sample in record.samples)


def _dimensions(told: Sequence[Told]) -> list[str]:
    kinds = {id(sample.dimensions): sample.dimensions for _, sample in _samples(told)}  # most samples share theirs
    return sorted({name for one in kinds.values() for name in one})
