"""What the lab's own waiting adds: the time from `listening` to `ready`, and its CPU until then."""

from __future__ import annotations

import random
import threading
import time

from labside import LabSide, Prepared, lab_side
from verdict import UNDER_1_MS, UNDER_2_PERCENT, Verdict, report, say

from lab.errors import LabError
from lab.launch.session import Session
from lab.launch.waiter import Waiter
from lab.timeline import Phase, Source, SystemClock

TARGETS = ("process", "docker", "docker:host")
"""The last for information: it has no docker-proxy, and so shows what of Docker's figure is that forwarder's."""
INFORMATION = "docker:host"
PAUSE_S = 0.02


def waiting(rounds: int, chance: random.Random) -> list[Verdict]:
    """Measure and print. Raises LabError where a launch fails."""
    verdicts: list[Verdict] = []
    with lab_side() as side:
        prepared = _prepare(side, verdicts)
        found: dict[str, list[dict[str, float]]] = {one.target: [] for one in prepared}
        for number in range(rounds + 1):
            chance.shuffle(prepared)
            for one in prepared:
                with one.launched() as session:
                    if number:  # the first warms up
                        found[one.target].append(_figures(session))
    for target in TARGETS:
        if target in found:
            verdicts += _print(target, found[target])
    return verdicts


def _prepare(side: LabSide, verdicts: list[Verdict]) -> list[Prepared]:
    prepared = []
    for target in TARGETS:
        try:
            prepared.append(side.prepare(target))
        except LabError as error:
            say(f"  {target}: not run: {error}")
            verdicts += [Verdict.NOT_RUN] if target != INFORMATION else []
    return prepared


def _figures(session: Session) -> dict[str, float]:
    """Milliseconds of one launch, and of a plain request to what it launched."""
    timeline, answer = session.timeline, session.answer
    assert answer is not None
    listening_ns = timeline.mark(Phase.LISTENING).ns
    heard_ns = next(m.ns for m in timeline if m.phase is Phase.LISTENING and m.source is Source.LOG)
    return {
        "boot": timeline.duration_s(Phase.REQUESTED, Phase.READY) * 1e3,
        "ready": timeline.duration_s(Phase.LISTENING, Phase.READY) * 1e3,
        "heard": (heard_ns - listening_ns) / 1e6,
        "sent": (answer.sent_ns - heard_ns) / 1e6,
        "answered": (answer.received_ns - answer.sent_ns) / 1e6,
        "cpu": answer.wait_cpu_ns / 1e6,
        "request": _plain_request_ms(session),
    }


def _plain_request_ms(session: Session) -> float:
    """The CPU, in ms, of the lab's own request to a service that listens already: a wait that waits for nothing."""
    assert session.instance is not None
    waiter, heard = Waiter(session.spec, SystemClock()), threading.Event()

    def hear() -> None:  # in another thread than the one that launches, as in a launch
        heard.wait()
        waiter.attempt()

    listener = threading.Thread(target=hear)
    listener.start()
    time.sleep(PAUSE_S)  # as long as a short launch takes: the CPU's caches are then no warmer than in one
    try:
        waiter.start(session.instance.endpoint)
        heard.set()
        return waiter.wait(10).wait_cpu_ns / 1e6
    finally:
        heard.set()
        listener.join()
        waiter.cancel()


def _print(target: str, launches: list[dict[str, float]]) -> list[Verdict]:
    def column(name: str) -> list[float]:
        return [one[name] for one in launches]

    judged = target != INFORMATION
    name = target if judged else f"for information, {target}"
    beyond = [(one["cpu"] - one["request"]) / one["boot"] * 100 for one in launches]
    verdicts = [report(f"{name}: ready - listening", column("ready"), "ms", UNDER_1_MS if judged else None)]
    report("  of it: the service's line on its way to the lab", column("heard"), "ms")
    report("  of it: the lab, until its request leaves", column("sent"), "ms")
    report("  of it: until the answer is complete", column("answered"), "ms")
    report(f"{name}: boot", column("boot"), "ms")
    report(f"{name}: the lab's CPU while waiting", column("cpu"), "ms")
    report(f"{name}: CPU of one plain request, after each launch", column("request"), "ms")
    goal = UNDER_2_PERCENT if judged else None
    verdicts.append(report(f"{name}: CPU while waiting beyond one request, of the boot", beyond, "%", goal))
    return [verdict for verdict in verdicts if verdict is not None]
