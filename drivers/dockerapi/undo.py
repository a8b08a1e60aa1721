"""What is done after a launch that failed half-way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from drivers.dockerapi.streams import Output
from lab.driver import Instance
from lab.errors import DriverError


def undo(output: Output | None, find: Callable[[], Sequence[Instance]]) -> list[str]:
    """Remove what it made, which `find` finds; returns its log and what could not be removed."""
    told: list[str] = []
    if output is not None:
        output.close()
    try:
        for instance in find():
            told.append(instance.logs().decode(errors="replace"))
            instance.delete()
    except DriverError as error:
        told.append(f"not cleaned up: {error}")
    return [text for text in told if text]
