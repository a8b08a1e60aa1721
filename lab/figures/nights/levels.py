"""How sure a night's judge is: the levels that it holds, and what they cost.

`SUSPECTS_PER_YEAR` is what a year of nights without any change gives at most, over all series together: each costs one
confirmation, and of them at most `CONFIRMED` are confirmed by chance. Each night's share of that is parted equally
among the series that can alarm (Bonferroni), and each window of a series takes `OF_A_WINDOW` of its part. That factor
is no guess: by simulation 0.45 would do for normal figures (tests/accept/nights_levels.py, with its seed), and 0.2
holds real launches, which are skewed, near what is stated (tests/accept/nights_accept.py; docs/nights.md has the
numbers).
"""

from __future__ import annotations

import math
from functools import lru_cache

NIGHTS_PER_YEAR = 365
SUSPECTS_PER_YEAR = 12.0
CONFIRMED = 0.05
"""The level of the confirmation's own test."""
FALSE_ALARMS_PER_YEAR = SUSPECTS_PER_YEAR * CONFIRMED
OF_A_WINDOW = 0.2
VOIDED_PER_YEAR = 1.0
"""So many nights without a disturbance are void by chance in a year, at most, over all series of the control."""

WINDOWS = (1, 3, 7)
"""So many of the last nights are looked at together: a small step shows only in several."""
LEAST_NIGHTS = 8
"""With fewer nights before the window nothing is judged."""
LEAST = 0.05
"""The least change that matters, where a user names no other."""
CONFIDENCE = 0.95
POWER = 0.95
LOCATION_EFFICIENCY = 3 / math.pi
"""Of the location that the judge takes against a mean, on normal values (Hodges and Lehmann)."""


def level_of(family: int) -> float:
    """The chance, one-sided, that one window of one series of `family` may speak by chance in one night."""
    return OF_A_WINDOW * SUSPECTS_PER_YEAR / NIGHTS_PER_YEAR / max(1, family)


def void_level(family: int) -> float:
    """The chance, one-sided, that one of the control's `family` series may void a night by chance."""
    return VOIDED_PER_YEAR / NIGHTS_PER_YEAR / 2 / max(1, family)


@lru_cache(maxsize=4096)
def quantile(probability: float, freedom: int) -> float:
    """Student's t beyond which lies `probability`, on one side."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - probability))


def beyond(t: float, freedom: int) -> float:
    """The probability of more than `t`, on one side, of Student's t."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -t)) if math.isfinite(t) else (0.0 if t > 0 else 1.0)
