"""Nights made up for tests of what judges them: figures as they are wanted, with little around them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from lab.figures.nights.night import Figure, Night


def figure(
    target: str, value: float | None, *, metric: str = "boot_s", unit: str = "s", can_alarm: bool = True
) -> Figure:
    """A night's figure of `value`, None where it has no logarithm."""
    return Figure(
        target=target,
        label=target,
        metric=metric,
        name=metric,
        unit=unit,
        dimensions={},
        n=10,
        log=None if value is None else math.log(value),
        error=0.02,
        can_alarm=can_alarm,
    )


def night(place: int, values: Mapping[str, float | None], *, accepted: bool = False, **about: object) -> Night:
    """The night of run `r<place>`."""
    figures = {(target, "boot_s", ()): figure(target, value) for target, value in values.items()}
    told: dict[str, Mapping[str, str]] = {key: value for key, value in about.items() if isinstance(value, dict)}
    return Night(run=f"r{place}", at=f"2026-01-01T00:00:{place:04d}", figures=figures, accepted=accepted, **told)


def quiet(
    count: int,
    *,
    seed: int = 1,
    targets: Sequence[str] = ("process", "docker", "swarm"),
    common: float = 0.1,
    own: float = 0.02,
    first: int = 0,
    times: Mapping[str, float] | None = None,
) -> list[Night]:
    """Nights of which a part is common to all targets; each target's figures are multiplied by its `times`."""
    chance = random.Random(f"{seed} {first}")
    found = []
    for place in range(first, first + count):
        shared = chance.gauss(0, common)
        values: dict[str, float | None] = {
            target: (times or {}).get(target, 1.0) * math.exp(shared + chance.gauss(0, own)) for target in targets
        }
        found.append(night(place, values))
    return found
