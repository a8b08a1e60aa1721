"""The service's own load while bursts come and go: one open-loop client throughout, and windows cut out of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lab.figures.latency import latencies_s, quantile_s
from lab.figures.series import ABSENT
from lab.scenario import Bench
from lab.service.load import LATE_SHARE, LoadResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The requests that were to be sent from `begun_ns` on and before `ended_ns`; `told` are their dimensions."""

    begun_ns: int
    ended_ns: int
    told: dict[str, str]


def emit(bench: Bench, load: LoadResult, windows: Sequence[Window]) -> None:
    """What each window's requests had: their p99, or why there is none, and in any case the worst."""
    for window in windows:
        found = within(load, window)
        if found.requests:
            _emit_window(bench, found, window.told)
        else:
            bench.emit(ABSENT, 1, "", of=_p99_of(window.told), why="no request was due in that window")


def within(load: LoadResult, window: Window) -> LoadResult:
    """Those of the load whose instants lie in the window, and that the client came to."""
    begun, ended = window.begun_ns, window.ended_ns
    return LoadResult(
        requests=[one for one in load.requests if begun <= one.intended_ns < ended and one.status != "unsent"]
    )


def _emit_window(bench: Bench, found: LoadResult, told: dict[str, str]) -> None:
    bench.emit("late_share", found.late_share, "", **told)
    bench.emit("unserved_requests", sum(not one.served for one in found.requests), "requests", **told)
    if found.late_share > LATE_SHARE:
        why = f"the load's client was itself late for more than {LATE_SHARE:.0%} of them"
        bench.emit(ABSENT, 1, "", of=_p99_of(told), why=why)
        return
    latencies = latencies_s(found)
    worst = max(latencies)
    if math.isfinite(worst):
        bench.emit("steady_worst_s", worst, "s", **told)
    p99 = quantile_s(latencies, 0.99)
    if isinstance(p99, str):
        bench.emit(ABSENT, 1, "", of=_p99_of(told), why=p99)
    else:
        bench.emit("steady_p99_s", p99, "s", **told)


def _p99_of(told: dict[str, str]) -> str:
    return " ".join(["steady_p99_s", *(f"{key}={value}" for key, value in told.items())])
