"""Quantities as a reader takes them in, and as a user writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MIB = 1024 * 1024
RATIO = "x"
"""The unit of metrics that say how many times as much something is."""

_ROUNDS_UP = 0.9995
"""999.5 µs would be written as 1,000 µs: it is 1.00 ms."""
_BYTES = ((float(1 << 30), "GiB"), (float(1 << 20), "MiB"), (float(1 << 10), "KiB"), (1.0, "B"))
_SCALES: Mapping[str, Sequence[tuple[float, str]]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "bytes": _BYTES,
    "bytes/s": tuple((factor, f"{name}/s") for factor, name in _BYTES),
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?")
_SIZES = {"": 1, "K": 1024, "M": MIB, "G": 1024 * MIB}
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, None: 1.0}


def quantity(value: float, unit: str) -> str:
    """`value` with three digits and a unit that suits it: `2.35 ms`, `128 MiB`, and counts as whole as they are. Only
    seconds and bytes are scaled."""
    factor, name = scale(value, unit)
    return f"{_written(value / factor, unit)} {name}".rstrip()


def duration(seconds: float) -> str:
    """How long one waits, no more exactly than one wants to know: `45 s`, `2 min 10 s`, `1 h 5 min`; `1 s` at least."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, rest = divmod(round(whole / 60), 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def span(low: float, high: float, unit: str, *, like: float) -> str:
    """Two values in the unit that `quantity(like, unit)` has, which is not repeated: `2.31-2.40`."""
    factor, _ = scale(like, unit)
    written = [_written(value / factor, unit) for value in (low, high)]
    return "-".join(written) if low >= 0 else " to ".join(written)


def scale(value: float, unit: str) -> tuple[float, str]:
    """What to divide `value` by so that a reader can take it in, and the unit that it then has."""
    scales = _SCALES.get(unit, ((1.0, unit),))
    plain = next(found for found in scales if found[0] == 1)  # of nothing
    return next((found for found in scales if abs(value) >= found[0] * _ROUNDS_UP), scales[-1] if value else plain)


def digits(value: float) -> str:
    """Three significant digits, and never fewer than the whole part has."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:#.3g}"


def between(low: float, high: float) -> str:
    """Two numbers with `digits` each: `88.4-95.0`, and `-1.20 to 3.40` where one is negative."""
    return f"{digits(low)}-{digits(high)}" if low >= 0 else f"{digits(low)} to {digits(high)}"


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent: `62%`, and `<1%` for what is there and small."""
    if whole <= 0:
        return ""
    return "<1%" if 0 < part / whole < 0.01 else f"{part / whole:.0%}"


def parse_bytes(value: Any) -> int:
    """A size as a user writes it, `128M` or `1G`, in bytes. Raises ValueError."""
    found = _SIZE.fullmatch(str(value).strip())
    if not found:
        raise ValueError("write a size such as 128M or 1G")
    return round(float(found[1]) * _SIZES[found[2].upper()])


def parse_seconds(value: Any) -> float:
    """A time as a user writes it, `90s` or `5m`, in seconds. Raises ValueError."""
    found = _TIME.fullmatch(str(value).strip())
    if not found:
        raise ValueError("write a time such as 90s, 5m or 1h")
    return float(found[1]) * _SECONDS[found[2]]


def parse_share(value: Any) -> float:
    """A share as a user writes it, `5%` or `0.05`. Raises ValueError."""
    text = str(value).strip()
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError as error:
        raise ValueError("write a share such as 5%") from error


def _written(value: float, unit: str) -> str:
    counted = unit not in _SCALES and unit not in (RATIO, "share")
    return f"{value:,.0f}" if counted and value == int(value) else digits(value)


def parse_statuses(value: Any) -> tuple[tuple[int, int], ...]:
    """Ranges of HTTP statuses, both ends counting, from `200-399` or `200,204,301-302`, or a list of such. Raises
    ValueError."""
    if isinstance(value, tuple):
        return value
    ranges = []
    items = value if isinstance(value, list) else [value]
    for text in (part.strip() for item in items for part in str(item).split(",") if part.strip()):
        low, dash, high = text.partition("-")
        if not (low.isdigit() and (high.isdigit() or not dash)):
            raise ValueError(f"'{text}' is neither a status nor a range of them: write 200-399, or 200,204")
        first, last = int(low), int(high or low)
        if not 200 <= first <= last <= 599:
            raise ValueError(f"'{text}' is no range of statuses: they go from 200 to 599, the lower first")
        ranges.append((first, last))
    if not ranges:
        raise ValueError("write 200-399, or 200,204")
    return tuple(ranges)
