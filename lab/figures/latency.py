"""Quantiles of a load's latency: of all its requests, an unserved one counting as endless."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lab.figures import stats
from lab.service.load import LoadResult


def latencies_s(found: LoadResult) -> list[float]:
    """What each request took from its intended instant on, in their order; infinity where it was not served."""
    served = (one.latency_s if one.served else None for one in found.requests)
    return [math.inf if latency_s is None else latency_s for latency_s in served]


def quantile_s(latencies: Sequence[float], q: float) -> float | str:
    """The `q` quantile of `latencies_s`, or why there is none: too few for its interval (docs/method.md, rule 8), or it
    would be endless."""
    found = stats.quantile(latencies, q)
    if found is None:
        return f"{len(latencies)} requests are too few"
    return found.value if math.isfinite(found.value) else "too many requests were not served"
