"""One target at one price, by how often it is called; and where a function becomes the dearer one."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.figures.cost.uncertain import Uncertain, known, reckoned


class Kind(enum.StrEnum):
    """What is paid for."""

    FUNCTION = "function"
    CONTAINER = "container"
    VM = "VM"
    CLUSTER = "cluster's share"
    MACHINE = "own machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One target at one price; `reason` says why it has no figures.

    Of a function, `per_call` is what one costs. Of all else, `per_hour` is what the whole costs that it is a share of;
    `held` is the share that an instance holds though nobody calls, `idle` what it uses of the CPUs then, and
    `per_call_used` what each call an hour adds to that; `most_per_hour` is how many calls one instance can take.
    """

    kind: Kind
    target: str
    offer: str
    what: str = ""
    reason: str = ""
    emulated: bool = False
    per_call: Uncertain | None = None
    per_hour: Uncertain | None = None
    held: Uncertain | None = None
    idle: Uncertain | None = None
    per_call_used: Uncertain | None = None
    most_per_hour: Uncertain | None = None
    notes: Sequence[str] = ()

    @property
    def title(self) -> str:
        """As a reader tells it from the others."""
        return f"{self.target}, {self.what}" if self.what else self.target

    @property
    def idle_per_hour(self) -> Uncertain | None:
        """What an hour without a call costs; None without figures."""
        if self.reason:
            return None
        return known(0.0) if self.per_call is not None else self.at(0.0)

    def per_million(self, calls_per_hour: float) -> Uncertain | None:
        """What a million calls cost that come at this rate; None without figures."""
        if self.reason:
            return None
        if self.per_call is not None:
            return reckoned(lambda one: one * 1e6, self.per_call)
        return reckoned(lambda hour: hour / calls_per_hour * 1e6, self.at(calls_per_hour))

    def at(self, calls_per_hour: float) -> Uncertain:
        """What an hour costs with so many calls, of what runs all the time."""
        import numpy as np

        parts = self._parts()

        def formula(price: Any, held: Any, idle: Any, used: Any, most: Any) -> Any:
            instances = np.maximum(1.0, np.ceil(calls_per_hour / most - 1e-9))
            return price * np.maximum(instances * held, instances * idle + calls_per_hour * used)

        return reckoned(formula, *parts)

    def _parts(self) -> tuple[Uncertain, Uncertain, Uncertain, Uncertain, Uncertain]:
        assert self.per_hour and self.held and self.idle and self.per_call_used and self.most_per_hour  # noqa: S101
        return self.per_hour, self.held, self.idle, self.per_call_used, self.most_per_hour


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """From how many calls an hour on the function costs more than what runs all the time; endless where it never does:
    before it would, one instance is no longer enough, and the next costs as much again."""

    function: Line
    other: Line
    calls_per_hour: Uncertain


def break_even(function: Line, other: Line) -> BreakEven:
    """Where the two cost the same. Both have figures."""
    import numpy as np

    assert function.per_call is not None  # noqa: S101  its caller chose it so

    def formula(*of: Any) -> Any:
        call, price, held, idle, used, most = of
        with np.errstate(divide="ignore", invalid="ignore"):
            by_what_it_holds = price * held / call
            room = call - price * used
            by_what_it_uses = np.where(room > 0, price * idle / room, math.inf)
            found = np.maximum(by_what_it_holds, by_what_it_uses)
        return np.where(np.isfinite(found) & (found <= most), found, math.inf)

    return BreakEven(
        function=function, other=other, calls_per_hour=reckoned(formula, function.per_call, *other._parts())
    )
