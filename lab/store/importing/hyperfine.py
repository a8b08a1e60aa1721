"""hyperfine's `--export-json`: each command is a target, and each of its times a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.errors import BadInput
from lab.store.importing.foreign import foreign_run, measured, numbers, words
from lab.store.record import RunRecord, TargetRecord
from lab.store.sample import Sample

ORIGIN = "hyperfine"
METRIC = "wall_s"
_MEMORY = "memory_usage_byte"


def read(document: Any) -> RunRecord | None:
    """The run; None for what is no document of hyperfine's. It tells neither when it was made nor where, of CPU time
    the means alone (which are kept as facts). Raises BadInput for a broken one."""
    if not isinstance(document, Mapping) or not isinstance(document.get("results"), list):
        return None
    results = document["results"]
    if not results or not all(isinstance(one, Mapping) and "command" in one and "times" in one for one in results):
        return None
    targets: dict[str, TargetRecord] = {}
    samples: list[Sample] = []
    for place, one in enumerate(results, 1):
        command = words(one["command"], f"the command of result {place}")
        targets.setdefault(command, measured(command, {"engine": ORIGIN, "facts": _facts(one)}))
        dimensions = _parameters(one, place)
        for metric, unit, values in (
            (METRIC, "s", numbers(one["times"], f"'times' of result {place}")),
            ("peak_rss_bytes", "bytes", numbers(one.get(_MEMORY) or [], f"'{_MEMORY}' of result {place}")),
        ):
            samples += [
                Sample(target=command, metric=metric, value=value, unit=unit, iteration=round_, dimensions=dimensions)
                for round_, value in enumerate(values)
            ]
    return foreign_run(ORIGIN, document, targets=list(targets.values()), samples=samples)


def _parameters(result: Mapping[str, Any], place: int) -> dict[str, str]:
    told = result.get("parameters") or {}
    if not isinstance(told, Mapping):
        raise BadInput(f"'parameters' of result {place} is no object", resolution="import what hyperfine wrote")
    return {words(name, f"a parameter's name in result {place}"): str(value) for name, value in told.items()}


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    codes = result.get("exit_codes")
    failed = [code for code in codes if code != 0] if isinstance(codes, list) else []
    means = {f"mean_{key}_s": result[key] for key in ("user", "system") if isinstance(result.get(key), int | float)}
    return {**means, **({"failed_exit_codes": failed} if failed else {})}
