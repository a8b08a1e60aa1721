"""A function's cold and warm calls by the lab against a separate program: the same function of the same emulator, in
turns, each pair in a random order."""

from __future__ import annotations

import random
import selectors
import shutil
import statistics
import time
from collections.abc import Callable
from typing import Any

from labside import lab_side
from programs import run_program
from verdict import SAME, UNDER_1_MS, Goal, Verdict, report, say

from lab.errors import MeasurementError, Unsupported
from lab.features import Invoked
from lab.figures import stats
from lab.launch.attempt import Attempt, Place, request_of
from lab.launch.session import Session
from lab.timeline import HostClock, SystemClock

PAIRS = 40
WARM = 15
"""Calls after each cold one; the middle one is that turn's figure."""
TIMEOUT_S = 60.0


def functions(pairs: int, chance: random.Random) -> list[Verdict]:
    """Measure and print. Raises LabError, ProgramFailed."""
    if shutil.which("docker") is None:
        raise Unsupported("the separate program tells containers by the docker command, and there is none")
    cold: dict[str, list[float]] = {"lab": [], "hand": []}
    warm: dict[str, list[float]] = {"lab": [], "hand": []}
    with lab_side() as side:
        prepared = side.prepare("lambda")
        with prepared.launched() as session:
            ways: dict[str, Callable[[], tuple[float, list[float]]]] = {
                "lab": lambda: by_lab(session),
                "hand": lambda: by_hand(session),
            }
            for pair in range(pairs + 1):
                for way in chance.sample(list(ways), len(ways)):
                    cold_s, warm_s = ways[way]()
                    if pair:  # the first warms up
                        cold[way].append(cold_s * 1e3)
                        warm[way].append(statistics.median(warm_s) * 1e3)
    return [*_print("cold", cold), *_print("warm", warm), *_own_part(warm)]


def by_lab(session: Session) -> tuple[float, list[float]]:
    """One cold call, proven, and the warm ones after it, in seconds."""
    function = session.instance
    assert isinstance(function, Invoked)
    before = set(function.workers())
    function.force_cold(timeout_s=TIMEOUT_S)
    clock = SystemClock()
    cold_s = _call(session, clock)
    workers = set(function.workers())
    if len(workers) != 1 or workers & before:
        raise MeasurementError("the lab's call was not cold: its worker had been there before")
    return cold_s, [_call(session, clock) for _ in range(WARM)]


def by_hand(session: Session) -> tuple[float, list[float]]:
    """The same by the separate program."""
    function: Any = session.instance
    endpoint = function.endpoint
    given = {
        "host": endpoint.host,
        "port": endpoint.port,
        "name": function.id,
        "authority": endpoint.authority,
        "nonce": session.spec.nonce,
        "environment": function.environment,
        "label": f"lab.run={session.spec.labels['lab.run']}",
        "warm": WARM,
    }
    found = run_program("function_by_hand.py", given, timeout_s=2 * TIMEOUT_S)
    if len(set(found["workers"])) != 1 or found["calls"] != list(range(1, WARM + 2)):
        raise MeasurementError(f"the call by hand was not cold: {found}")
    return float(found["cold_s"]), [float(one) for one in found["warm_s"]]


def _call(session: Session, clock: HostClock) -> float:
    """One request as the lab's scenarios make one: from just before its connection to its complete answer."""
    assert session.instance is not None and session.instance.endpoint is not None
    place = Place.of(session.instance.endpoint)
    attempt = Attempt.prepare(place, session.spec, request_of(place, session.spec)).warm()
    deadline = time.monotonic() + TIMEOUT_S
    begun_ns = clock.now_ns()
    with attempt.connection, selectors.DefaultSelector() as selector:
        attempt.begin(clock)
        if not attempt.over:
            selector.register(attempt.connection, attempt.awaits, attempt.connection)
        while not attempt.over and time.monotonic() < deadline:
            if selector.select(1.0):
                attempt.advance(selector, clock)
    if not attempt.complete:
        raise MeasurementError(f"a call was not answered: {attempt.outcome}")
    return (attempt.received_ns - begun_ns) / 1e9


def _print(what: str, times: dict[str, list[float]]) -> list[Verdict]:
    report(f"{what}, by the lab", times["lab"], "ms")
    report(f"{what}, by hand", times["hand"], "ms")
    found = stats.ratio(times["hand"], times["lab"])
    return [_judged(f"{what}, ratio of the medians, lab / by hand", found.value, found.low, found.high, "", SAME)]


def _own_part(warm: dict[str, list[float]]) -> list[Verdict]:
    found = stats.difference(warm["hand"], warm["lab"])
    name = "warm, what the lab adds: its median less that by hand"
    return [_judged(name, found.value, found.low, found.high, "ms", UNDER_1_MS)]


def _judged(name: str, value: float, low: float | None, high: float | None, unit: str, goal: Goal) -> Verdict:
    verdict = goal.judge(low, high)
    between = "too few for an interval" if low is None or high is None else f"95 % interval {low:.4g} to {high:.4g}"
    say(f"  {name}: {value:.4g}{unit and ' ' + unit} ({between}); goal {goal.text} -> {verdict}")
    return verdict
