"""Sets of names in words that are equal where the sets are."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBERED = re.compile(r"(.*?)(\d+)")


def listed(names: Iterable[str]) -> str:
    """The names, sorted; `none` where there is none."""
    return ", ".join(sorted(names)) or "none"


def collapsed(names: Iterable[str]) -> str:
    """The names, sorted, of which those that differ in their last number only are told as one: `tty0-63`."""
    plain: set[str] = set()
    numbers: dict[str, list[int]] = {}
    for name in names:
        numbered = _NUMBERED.fullmatch(name)
        if name.startswith("pts/") and numbered:
            plain.add("pts/*")
        elif numbered:
            numbers.setdefault(numbered[1], []).append(int(numbered[2]))
        else:
            plain.add(name)
    for stem, found in numbers.items():
        few = {f"{stem}{number}" for number in found}
        plain |= few if len(few) < 3 else {f"{stem}{min(found)}-{max(found)}"}
    return listed(plain)
