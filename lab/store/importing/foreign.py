"""What other tools measured, as a run of their own origin: shown, and never set beside the lab's."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lab.errors import BadInput
from lab.store.record import Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample

UNKNOWN_TIME = "1970-01-01T00:00:00+00:00"
"""Of a document that does not say when it was measured."""
_ID_HEX = 12


def foreign_run(
    origin: str,
    document: Any,
    *,
    targets: Sequence[TargetRecord],
    samples: Sequence[Sample],
    started_at: str = UNKNOWN_TIME,
    host: Mapping[str, Any] | None = None,
    host_name: str = "",
    version: str = "",
) -> RunRecord:
    """The run that `document` tells of. Its id is of the document's content, so that it is the same run each time."""
    content = json.dumps(document, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return RunRecord(
        run=Run(
            id=f"{origin}-{hashlib.sha256(content).hexdigest()[:_ID_HEX]}",
            scenario=origin,
            started_at=started_at,
            ended_at=started_at,
            status=RunStatus.DONE,
            owner="",
            lab_version="",
            parameters={"version": version} if version else {},
            host_name=host_name,
            origin=origin,
        ),
        host=host or {},
        targets=targets,
        samples=samples,
        launches=[],
    )


def measured(name: str, info: Mapping[str, Any]) -> TargetRecord:
    """A target of a foreign run: the command or the benchmark."""
    return TargetRecord(target=name, outcome=Outcome.OK, info=info)


def numbers(values: Any, what: str) -> list[float]:
    """`values` as a list of finite numbers. Raises BadInput."""
    if not isinstance(values, list) or not all(_is_number(value) for value in values):
        raise BadInput(f"{what} is no list of numbers", resolution="import the file as the tool wrote it")
    return [float(value) for value in values]


def words(text: Any, what: str) -> str:
    """`text` as any store can hold it. Raises BadInput."""
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{what} is no text", resolution="import the file as the tool wrote it")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
