"""One caller, one callee, one path between them: its first call, its cells, its curve, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lab.errors import MeasurementError
from lab.features import Peers, Place
from lab.figures import series
from lab.figures.latency import quantile_s
from lab.figures.series import ABSENT, HIGHEST_RATE
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service.calls import MOST_CALLS, Calls, punctual_call
from scenarios.talk import cost

LIMIT_S = 0.010
"""The p99 up to which a rate counts as borne."""

_QUANTILES = {"p50_s": 0.5, "p99_s": 0.99}
_LONG = {**_QUANTILES, "p99_9_s": 0.999}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """How calls differ within one path: on a new connection each, and with so many bytes in the request."""

    fresh: bool
    payload_bytes: int

    @property
    def told(self) -> dict[str, str]:
        return {"connection": "new" if self.fresh else "kept", "payload": f"{self.payload_bytes // 1024} KiB"}


class Pair:
    """`caller` calls `callee`, which is of the target `named` and of the bench `other` where that is another than the
    caller's, by `place`, one of its places, at `rate` calls a second, which with `slow` is not the declared one."""

    def __init__(
        self,
        bench: Bench,
        caller: Session,
        callee: Session,
        *,
        place: Place,
        rate: int,
        slow: bool,
        named: str = "",
        other: Bench | None = None,
    ) -> None:
        self._bench = bench
        self._caller = caller
        self._callee = callee
        self._asked = place
        self._rate = rate
        self._slow = {"rate": str(rate)} if slow else {}
        self._other = other or bench
        self._about = {"path": place.path, **({"callee": named} if named else {})}

    def open(self) -> bool:
        """Make the first call; whether that was answered. Where the path is shut, its reason is kept."""
        place = self._place
        if isinstance(place, str):
            self._absent("call_p50_s", place)
            return False
        try:
            first = self._call(rate=self._rate, count=1)
        except MeasurementError as error:
            self._absent("call_p50_s", error.brief)
            return False
        if first.unserved:
            self._absent("call_p50_s", f"its first call was not answered: {_outcomes(first)}")
            return False
        self._bench.emit("first_call_s", first.latencies_s[0], "s", **self._about)
        if place.name:
            self._bench.emit("resolve_s", first.resolve_s, "s", **self._about)
        return True

    def base(self, calls: int) -> None:
        """The cell that stands for the path, with what it costs."""
        meter = cost.Meter(self._bench, self._caller, self._other, self._callee)
        found = self._call(rate=self._rate, count=calls)
        taken = meter.taken(found)
        self._bench.emit("caller_late_share", found.late_share, "", **self._about)
        self._bench.emit("unserved_calls", found.unserved, "calls", **self._about)
        if not self._told("call", found, self._about | self._slow):
            return
        for latency_s in filter(math.isfinite, found.latencies_s):
            self._bench.emit("request_s", latency_s, "s", **self._about, **self._slow)
        for side, cpu_s in taken.items():
            self._bench.emit("cpu_per_1000_s", cpu_s, "s", side=side, **self._about)

    def variant(self, cell: Cell, calls: int) -> None:
        """One cell beside that."""
        found = self._call(rate=self._rate, count=calls, fresh=cell.fresh, payload_bytes=cell.payload_bytes)
        self._told("variant", found, {**self._about, **self._slow, **cell.told})

    def curve(self, steps: Sequence[tuple[int, int]]) -> None:
        """So many calls at each rate, from the lowest on, up to the first that is not borne."""
        highest = 0
        for rate, count in steps:
            found = self._call(rate=rate, count=min(count, MOST_CALLS))
            about = {**self._about, "rate": str(rate)}
            if not self._told("curve", found, about, long=True):
                # Not what the path bears, but what the caller could find out.
                why = f"at {rate} calls a second the caller's own client was late"
                self._absent(HIGHEST_RATE, why)
                return
            p99_s = quantile_s(found.latencies_s, 0.99)
            if found.unserved or isinstance(p99_s, str) or p99_s > LIMIT_S:
                break
            highest = rate
        self._bench.emit(HIGHEST_RATE, highest, "calls/s", **self._about)

    @cached_property
    def _place(self) -> Place | str:
        assert isinstance(self._caller.instance, Peers)  # noqa: S101  its target has the feature
        return self._caller.instance.reach(self._asked)

    def _call(self, *, rate: int, count: int, fresh: bool = False, payload_bytes: int = 0) -> Calls:
        assert isinstance(self._place, Place)  # noqa: S101  it is open
        return punctual_call(
            self._caller,
            self._place,
            nonce=self._callee.spec.nonce,
            rate=rate,
            count=count,
            fresh=fresh,
            payload_bytes=payload_bytes,
        )

    def _told(self, family: str, found: Calls, about: Mapping[str, str], *, long: bool = False) -> bool:
        if found.late:
            why = f"the caller's own client was late for {found.late_share:.0%} of them"
            self._absent(f"{family}_p50_s", why)
            return False
        emit_quantiles(self._bench, found, family, about, long=long)
        return True

    def _absent(self, metric: str, why: str) -> None:
        self._bench.emit(ABSENT, 1, "", of=f"{metric} {series.by_path(self._about)}", why=why, **self._about)


def emit_quantiles(bench: Bench, found: Calls, family: str, about: Mapping[str, str], *, long: bool = False) -> None:
    """Each quantile, or why there is none; p99.9 only with `long`, and where calls are enough for it."""
    for suffix, q in (_LONG if long else _QUANTILES).items():
        quantile = quantile_s(found.latencies_s, q)
        if not isinstance(quantile, str):
            bench.emit(f"{family}_{suffix}", quantile, "s", **about)
        elif suffix in _QUANTILES:
            where = series.by_path(about)
            bench.emit(ABSENT, 1, "", of=f"{family}_{suffix} {where}".rstrip(), why=quantile, **about)


def _outcomes(found: Calls) -> str:
    return ", ".join(f"{count} {name}" for name, count in found.outcomes.items())
