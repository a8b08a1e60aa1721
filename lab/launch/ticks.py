"""Engines that act on a clock of their own: what is timed begins at a random instant of it (docs/method.md, rule 22).

A launch or a stop that begins at one of the engine's events begins where its clock has just ticked, each time again,
and lasts to one of its next ticks: its interval says how punctual that clock is, and its median is one of the many that
a user would see who asks at any moment.
"""

from __future__ import annotations

from random import Random

from lab.driver import Info
from lab.features import Feature
from lab.timeline import HostClock

TICK = "tick_s"
"""The name in `Info.facts` of the seconds between two ticks of an engine with Feature.TICKS."""


def tick_s(info: Info) -> float:
    """Seconds between two ticks of the engine's; 0 where it acts at once."""
    return float(info.facts[TICK]) if Feature.TICKS in info.features else 0.0


def begin_at_random(info: Info, clock: HostClock, chance: Random) -> float:
    """Wait a random part of one tick, drawn from `chance`; returns the seconds, 0 where the engine does not tick."""
    span_s = tick_s(info)
    wait_s = chance.uniform(0.0, span_s) if span_s else 0.0
    if wait_s:
        clock.sleep(wait_s)
    return wait_s
