"""What students write: a time, a size, a ratio, or an interval of them, in the ways in which people write one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_FACTORS: Mapping[str, Mapping[str, float]] = {
    "s": {"ns": 1e-9, "µs": 1e-6, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "sek": 1.0, "min": 60.0},
    "bytes": {
        **{"b": 1.0, "bytes": 1.0, "byte": 1.0, "kib": 1024.0, "mib": 1024.0**2, "gib": 1024.0**3},
        **{"kb": 1e3, "mb": 1e6, "gb": 1e9},
    },
    "x": {"x": 1.0, "times": 1.0, "mal": 1.0, "fold": 1.0},
}
EXAMPLES: Mapping[str, str] = {"s": "50ms", "bytes": "20MiB", "x": "10x", "": "12"}
"""How a value of each unit is written."""

_NUMBER = r"[+]?\d[\d.,]*"
_WORD = r"[a-zµA-Z]*"
_SPAN = re.compile(rf"({_NUMBER})\s*({_WORD})\s*(?:-|\u2013|\u2014|\.\.\.?|\bto\b|\bbis\b)\s*({_NUMBER})\s*({_WORD})")
_ONE = re.compile(rf"({_NUMBER})\s*({_WORD})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What was written: `low` and `high` are the same for a single number. `unit` is that of the factors above, or the
    word itself where it is none of these, and empty where there was none."""

    low: float
    high: float
    unit: str
    single: bool


def parse(text: str) -> Claim:
    """A number or an interval of two, with its unit: `300-375 ms`, `0.3 s to 0.4 s`, `1,5 s bis 2 s`, `16x`. Raises
    ValueError."""
    told = (
        text.strip().replace("\u00d7", "x").replace("\u03bc", "µ").replace("[", "").replace("]", "").replace(";", "-")
    )
    if found := _SPAN.fullmatch(told):
        first, first_unit, last, last_unit = found.groups()
        unit, factor = _unit(last_unit or first_unit)
        other, before = _unit(first_unit or last_unit)
        if other != unit:
            raise ValueError("its two ends have different kinds of unit")
        low, high = _number(first, unit) * before, _number(last, unit) * factor
        if high < low:
            raise ValueError("its first number is the larger one")
        return Claim(low=low, high=high, unit=unit, single=False)
    if found := _ONE.fullmatch(told):
        unit, factor = _unit(found[2])
        value = _number(found[1], unit) * factor
        return Claim(low=value, high=value, unit=unit, single=True)
    raise ValueError("it is no number with a unit")


def _unit(word: str) -> tuple[str, float]:
    for unit, factors in _FACTORS.items():
        if (factor := factors.get(word.lower())) is not None:
            return unit, factor
    return word.lower(), 1.0


def _number(text: str, unit: str) -> float:
    """A comma is a decimal one, but for what tables write of counts: `1,491` of something that is no time or size."""
    told = text.rstrip(".,")
    thousands = re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", told) and (unit not in _FACTORS or "." in told)
    told = told.replace(",", "") if thousands else told.replace(",", ".")
    try:
        return float(told)
    except ValueError as error:
        raise ValueError(f"'{text}' is no number") from error
