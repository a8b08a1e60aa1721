"""Pairs of values made up by a seed, for which an earlier lab's figures are kept (tests/data/earlier/figures.json)."""

from __future__ import annotations

import random

_SIZES = (6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 60, 80, 120, 160)


def pair(seed: int) -> tuple[list[float], list[float]]:
    """Two groups of 6 to 160 times in seconds, a third of the pairs of different sizes and a third in coarse ticks;
    half of the pairs differ, by up to some standard errors."""
    chance = random.Random(seed)
    n = _SIZES[seed % len(_SIZES)]
    m = chance.choice(_SIZES) if seed % 3 == 0 else n
    tick = chance.choice((0.02, 0.1)) if chance.random() < 1 / 3 else 0.0
    slower = 1 + (chance.uniform(0, 4) * 0.2 / n**0.5 if seed % 2 else 0.0)

    def value(factor: float) -> float:
        one = factor * chance.lognormvariate(0, 0.2) * (chance.uniform(1.5, 4) if chance.random() < 0.05 else 1.0)
        return round(max(tick, round(one / tick) * tick), 9) if tick else one

    return [value(1.0) for _ in range(n)], [value(slower) for _ in range(m)]
