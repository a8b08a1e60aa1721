"""A function's cold and warm calls by the lab against a separate program: the same function of the same emulator, in
turns, each pair in a random order; warm ones call by call on the same worker."""

from __future__ import annotations

import contextlib
import json
import random
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labside import lab_side
from programs import ProgramFailed, run_program
from verdict import SAME, UNDER_1_MS, Goal, Verdict, report, say

from lab.errors import MeasurementError, Unsupported
from lab.features import Invoked
from lab.figures import stats
from lab.launch.attempt import Attempt, Place, request_of
from lab.launch.session import Session
from lab.timeline import HostClock, SystemClock

PAIRS = 40
WARM = 2
"""Calls after each cold one by hand, by whose numbers the worker is known to be the same."""
BATCHES, BATCH = 6, 40
"""Warm pairs: so many workers, with so many each, which their log does not slow down much."""
TIMEOUT_S = 60.0


def functions(pairs: int, chance: random.Random) -> list[Verdict]:
    """Measure and print. Raises LabError, ProgramFailed."""
    if shutil.which("docker") is None:
        raise Unsupported("the separate program tells containers by the docker command, and there is none")
    cold: dict[str, list[float]] = {"lab": [], "hand": []}
    warm: dict[str, list[float]] = {"lab": [], "hand": []}
    with lab_side() as side, side.prepare("lambda").launched() as session:
        turns: dict[str, Callable[[], float]] = {"lab": lambda: cold_by_lab(session), "hand": lambda: by_hand(session)}
        for pair in range(pairs + 1):
            for way in chance.sample(list(turns), len(turns)):
                took_s = turns[way]()
                if pair:  # the first warms up
                    cold[way].append(took_s * 1e3)
        with calling_by_hand(session) as hand:
            calls: dict[str, Callable[[], float]] = {"lab": lambda: _call(session, SystemClock()), "hand": hand}
            for _ in range(BATCHES):
                cold_by_lab(session)
                for _ in range(BATCH):
                    for way in chance.sample(list(calls), len(calls)):
                        warm[way].append(calls[way]() * 1e3)
    return [*_print("cold", cold), *_print("warm", warm), *_own_part(warm)]


def cold_by_lab(session: Session) -> float:
    """One cold call, proven, in seconds."""
    function = session.instance
    assert isinstance(function, Invoked)
    before = set(function.workers())
    function.force_cold(timeout_s=TIMEOUT_S)
    cold_s = _call(session, SystemClock())
    workers = set(function.workers())
    if len(workers) != 1 or workers & before:
        raise MeasurementError("the lab's call was not cold: its worker had been there before")
    return cold_s


def by_hand(session: Session) -> float:
    """The same by the separate program."""
    found = run_program("function_by_hand.py", _given(session, each=False), timeout_s=2 * TIMEOUT_S)
    if len(set(found["workers"])) != 1 or found["calls"] != list(range(1, WARM + 2)):
        raise MeasurementError(f"the call by hand was not cold: {found}")
    return float(found["cold_s"])


@contextlib.contextmanager
def calling_by_hand(session: Session) -> Iterator[Callable[[], float]]:
    """The separate program, kept: a call each time it is asked to, in seconds."""
    argv = [sys.executable, "-I", str(Path(__file__).with_name("function_by_hand.py"))]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None and child.stdout is not None
    given, answers = child.stdin, child.stdout

    def call() -> float:
        given.write("\n")
        given.flush()
        line = answers.readline()
        if not line:
            raise ProgramFailed("function_by_hand.py ended")
        return float(json.loads(line)["took_s"])

    try:
        given.write(json.dumps(_given(session, each=True)) + "\n")
        yield call
    finally:
        child.kill()
        child.communicate(timeout=TIMEOUT_S)


def _given(session: Session, *, each: bool) -> dict[str, Any]:
    function: Any = session.instance
    endpoint = function.endpoint
    return {
        "host": endpoint.host,
        "port": endpoint.port,
        "name": function.id,
        "authority": endpoint.authority,
        "nonce": session.spec.nonce,
        "environment": dict(function.environment),
        "label": f"lab.run={session.spec.labels['lab.run']}",
        "warm": WARM,
        "each": each,
    }


def _call(session: Session, clock: HostClock) -> float:
    """One request as the lab's scenarios make one: from just before its connection to its complete answer."""
    assert session.instance is not None and session.instance.endpoint is not None
    place = Place.of(session.instance.endpoint)
    attempt = Attempt.prepare(place, session.spec, request_of(place, session.spec)).warm()
    deadline = time.monotonic() + TIMEOUT_S
    with attempt.connection, selectors.DefaultSelector() as selector:
        begun_ns = clock.now_ns()
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
    more = [lab - hand for lab, hand in zip(warm["lab"], warm["hand"], strict=True)]
    verdict = report("warm, what the lab adds within each pair of calls", more, "ms", UNDER_1_MS)
    return [verdict] if verdict else []


def _judged(name: str, value: float, low: float | None, high: float | None, unit: str, goal: Goal) -> Verdict:
    verdict = goal.judge(low, high)
    between = "too few for an interval" if low is None or high is None else f"95 % interval {low:.4g} to {high:.4g}"
    say(f"  {name}: {value:.4g}{unit and ' ' + unit} ({between}); goal {goal.text} -> {verdict}")
    return verdict
