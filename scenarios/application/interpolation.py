"""`${NAME}` in values: of Compose's, from this process's environment; of both files', where a service is found.

Source: https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from lab.errors import BadInput

_COMPOSE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<bare>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<how>:?[-?+])(?P<word>[^{}$]*))?\}|(?P<wrong>))"
)
_PLACES = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[^{}]*)\})")


def interpolated(text: str, environment: Mapping[str, str], *, kept: Collection[str], where: str) -> str:
    """`text` with what `environment` has for its variables, by Compose's rules; those in `kept` stay `${NAME}`, and
    each dollar that is none of these is doubled, for `filled`. Raises BadInput, also for a variable that is not set and
    has no default."""

    def put(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$$"
        name = found["bare"] or found["name"]
        if not name:
            said = f"'{_around(text, found.start())}' is no variable"
            raise BadInput(f"{where}: {said}", resolution="write $$ for a dollar")
        if name in kept:
            return f"${{{name}}}"
        return _value(name, found["how"] or "", found["word"] or "", environment, where).replace("$", "$$")

    return _COMPOSE.sub(put, text)


def filled(text: str, values: Mapping[str, str], *, where: str) -> str:
    """`text` with `values` for its `${NAME}`, and a dollar for `$$`. Raises BadInput for a name without a value."""

    def put(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        if found["name"] not in values:
            raise BadInput(
                f"{where}: ${{{found['name']}}} is the _HOST or _PORT of no other service",
                resolution="write $$ for a dollar",
            )
        return values[found["name"]]

    return _PLACES.sub(put, text)


def _value(name: str, how: str, word: str, environment: Mapping[str, str], where: str) -> str:
    value = environment.get(name)
    is_there = value is not None and (value != "" or not how.startswith(":"))
    if how.endswith("+"):
        return word if is_there else ""
    if is_there and value is not None:
        return value
    if how.endswith("-"):
        return word
    raise BadInput(
        f"{where}: ${{{name}}} is not set{f': {word}' if word else ''}",
        resolution=f"set it here, or write ${{{name}:-DEFAULT}}",
    )


def _around(text: str, place: int) -> str:
    return text[place : place + 20]
