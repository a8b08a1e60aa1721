"""What stands beside figures of cost, and how they are written, on a terminal and on a page alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lab import units
from lab.figures.cost.lines import BreakEven, Kind, Line
from lab.figures.cost.measured import CALL, IDLE_CPUS, IDLE_MEMORY, INIT, WARM, Basis
from lab.figures.cost.prices import HOURS_PER_MONTH, Price, Prices
from lab.figures.cost.reckoning import Costs
from lab.figures.cost.uncertain import Uncertain, mean
from lab.figures.notes import TCG
from lab.units import MIB

NONE = "none: never dearer"
_NO_END = "no end"
_UNITS = {IDLE_MEMORY: "bytes", IDLE_CPUS: "", CALL: "s", INIT: "s", WARM: "s"}
_WHAT = {
    IDLE_MEMORY: "memory held while nobody calls",
    IDLE_CPUS: "CPUs used while nobody calls",
    CALL: "a call",
    INIT: "initialization of a cold call",
    WARM: "a warm call of the function",
}


def headline(basis: Basis, prices: Prices) -> str:
    """All of it in one line: which runs, which currency, of when the prices are."""
    cpu = (basis.host.get("cpu") or {}).get("model") or "a host"
    return f"cost in {prices.currency}, {dates(prices)}; measured on {cpu}: {', '.join(basis.runs)}"


def dates(prices: Prices) -> str:
    """Of when the prices are."""
    found = prices.dates()
    if found is None:
        return "prices without a date"
    first, last = (day.isoformat() for day in found)
    return f"prices of {first}" if first == last else f"prices of {first} to {last}"


def notes(basis: Basis, prices: Prices, costs: Costs) -> list[str]:
    """All that a reader must know, a sentence or two each."""
    return list(dict.fromkeys(_notes(basis, prices, costs)))


def _notes(basis: Basis, prices: Prices, costs: Costs) -> Iterator[str]:
    yield (
        "No figure here is what a cloud would do: how long calls take and what instances hold was measured on this "
        "machine, and only the prices are a provider's."
    )
    yield (
        f"{prices.place + ': l' if prices.place else 'L'}ist prices in {prices.currency}, {dates(prices)}. Free tiers, "
        f"tax, discounts, traffic, disks, addresses and people are not counted. A month is {HOURS_PER_MONTH} h."
    )
    yield (
        "Figures are means, since a bill is a sum, with 95 % intervals by resampling the rounds of what was measured; "
        "with fewer than 6 rounds there is none, and what is a price alone has none."
    )
    if any(line.per_call is not None for line in costs.lines):
        steps = sorted({offer.billed_step_ms for offer in prices.functions})
        told = " or ".join(f"{step:g} ms" for step in steps)
        yield (
            f"Each call of a function is billed for memory times time, rounded up to {told}, and for the request; "
            "cold, its initialization is billed as well (of every function since 2025-08), its making is not. A call "
            "is timed by its client here, and what leads to the function is within it."
        )
    if any(line.per_hour is not None for line in costs.lines):
        yield (
            "What runs all the time is taken to serve one call at a time on each CPU, as long as a call took here; for "
            f"more calls there are more instances. The runs declared {basis.cpus:g} CPU and "
            f"{basis.memory_bytes / MIB:,.0f} MiB, and sizes are the smallest that have them."
        )
    if any(line.kind in (Kind.CLUSTER, Kind.MACHINE) and line.per_hour is not None for line in costs.lines):
        yield (
            "A share is of the memory held or of the CPUs used, whichever is larger: it is the cost only where the "
            "rest of the machine or cluster is put to use."
        )
    for line in costs.lines:
        if not line.reason:
            yield from line.notes
    if any(line.emulated and not line.reason for line in costs.lines):
        yield TCG


def money(found: Uncertain) -> str:
    """An amount with its interval, where what it depends on was measured: `1.23 (1.20-1.27)`."""
    return _with_interval(found, units.digits(found.figure))


def rate(found: BreakEven) -> str:
    """A break-even with its interval."""
    calls = found.calls_per_hour
    if math.isinf(calls.figure):
        return NONE if calls.interval is None or math.isinf(calls.interval[0]) else f"{NONE} ({_between(calls)})"
    return _with_interval(calls, units.digits(calls.figure))


def _with_interval(found: Uncertain, written: str) -> str:
    if found.n is None:
        return written
    if found.interval is None:
        return f"{written} (n < 6)"
    low, high = found.interval
    return written if low == high else f"{written} ({_between(found)})"


def _between(found: Uncertain) -> str:
    low, high = found.interval or (math.nan, math.nan)
    return units.between(low, high) if math.isfinite(high) else f"{units.digits(low)} to {_NO_END}"


def measured(basis: Basis) -> list[list[str]]:
    """What was measured, of which all follows: target, what, mean, interval, n."""
    rows = []
    for target in basis.targets:
        found = dict(target.means)
        for name, by_round in target.times_s.items():
            rounds = [sum(calls) / len(calls) for calls in by_round.values()]
            found[name] = mean(rounds, name=f"{target.label} {name} as measured")
        for name, value in found.items():
            interval = "n < 6"
            if value.interval is not None:
                interval = units.span(*value.interval, _UNITS[name], like=value.figure)
            rows.append(
                [target.label, _WHAT[name], units.quantity(value.figure, _UNITS[name]), interval, str(value.n or "")]
            )
    return rows


def used_prices(prices: Prices, lines: Sequence[Line]) -> list[tuple[str, Price]]:
    """Those numbers of the table that some line with figures was reckoned from."""
    offers = {line.offer for line in lines if not line.reason}
    own = any(line.kind is Kind.MACHINE and not line.reason for line in lines)
    return [
        (name, price)
        for name, price in prices.each()
        if any(name.startswith(f"{offer}, ") for offer in offers) or (own and name.startswith("electricity"))
    ]


def amount(price: Price) -> str:
    """A price as it stands in the table."""
    return f"{price.amount:.10f}".rstrip("0").rstrip(".") or "0"
