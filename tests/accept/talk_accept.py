"""Calls between instances by the lab's own client against wrk and sockperf, over the same paths: paired, by chance.

wrk's latency is from the first write of a request, so that it is compared with what the lab's client saw from its own
first write on; what that was late is not in it. Both send a request some 1/RATE after the one before, on a connection
that stands, so that the CPUs sleep as long in between. On a bridge wrk runs in the caller's network namespace. sockperf
has a server of its own, which reads no HTTP: its ping-pong is what the round trip takes without the service.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from functools import partial

from labside import LabSide, Prepared, lab_side
from outside_tools import missing, sockperf, wrk
from verdict import SAME, Verdict, report, say

from lab.errors import DriverUnavailable, MeasurementError
from lab.features import OnThisHost, Peers, Place, Role
from lab.launch.session import Session
from lab.launch.waiter import reserve_port
from lab.service.calls import call

TARGETS = {"process": ("loopback",), "docker": ("bridge",), "docker:host": ("loopback",), "oci": ("loopback",)}
RATE = 200
SECONDS = 2
MESSAGE_BYTES = 128
PAYLOAD_BYTES = 65_536
ROUNDS = 12


def talk(rounds: int, chance: random.Random) -> list[Verdict]:
    """Measure and print. Raises LabError, ProgramFailed."""
    if why := missing(["wrk", "sockperf", "nsenter"]):
        raise DriverUnavailable(why)
    verdicts: list[Verdict] = []
    values: dict[str, list[tuple[float, float]]] = {}
    with lab_side() as side:
        prepared = _prepare(side, verdicts)
        for number in range(rounds + 1):
            chance.shuffle(prepared)
            for one in prepared:
                for name, pair in _round(side, one, chance).items():
                    if number:  # the first warms up
                        values.setdefault(name, []).append(pair)
    for name, pairs in values.items():
        report(f"{name}: a call, by the lab's client", [ours * 1e6 for ours, _ in pairs], "us")
        report(f"{name}: by the separate program", [theirs * 1e6 for _, theirs in pairs], "us")
        verdict = report(f"{name}: the lab's over the other's", [ours / theirs for ours, theirs in pairs], "", SAME)
        verdicts += [verdict] if verdict else []
    return verdicts


def _prepare(side: LabSide, verdicts: list[Verdict]) -> list[Prepared]:
    found = []
    for target in TARGETS:
        try:
            found.append(side.prepare(target, peers="accept"))
        except DriverUnavailable as error:
            say(f"  {target}: not run: {error}")
            verdicts.append(Verdict.NOT_RUN)
    return found


def _round(side: LabSide, one: Prepared, chance: random.Random) -> dict[str, tuple[float, float]]:
    """One pair of instances, and each comparison of it once; those with calls that were not served are left out."""
    found = {}
    with one.launched() as callee, one.launched() as caller:
        assert isinstance(callee.instance, Peers) and isinstance(caller.instance, Peers)
        for place in callee.instance.places():
            reached = caller.instance.reach(place)
            if place.path not in TARGETS[one.target] or isinstance(reached, str):
                continue
            inside = _network_of(caller) if place.path == "bridge" else None
            url = f"http://{reached.host}:{reached.port}"
            script = side.context.run_dir / "paced.lua"
            by_wrk = partial(wrk, rate=RATE, seconds=SECONDS, script=script, within=inside, nonce=callee.spec.nonce)
            others: dict[str, tuple[int, Callable[[], float]]] = {
                f"{one.target} {place.path}, wrk": (0, partial(by_wrk, f"{url}/healthz")),
                f"{one.target} {place.path}, {PAYLOAD_BYTES // 1024} KiB, wrk": (
                    PAYLOAD_BYTES,
                    partial(by_wrk, f"{url}/payload", body_bytes=PAYLOAD_BYTES),
                ),
            }
            if one.target == "process":
                others["process loopback, sockperf"] = (0, _by_sockperf)
            for name, (payload_bytes, other) in others.items():
                try:
                    ours = partial(_ours, caller, callee, reached, payload_bytes)
                    found[name] = _paired(chance, ours, other)
                except MeasurementError as error:
                    say(f"  {name}: a round left out: {error.brief}")
    return found


def _paired(chance: random.Random, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    if chance.random() < 0.5:
        first = ours()
        return first, theirs()
    second = theirs()
    return ours(), second


def _ours(caller: Session, callee: Session, place: Place, payload_bytes: int) -> float:
    found = call(
        caller,
        place,
        nonce=callee.spec.nonce,
        rate=RATE,
        count=RATE * SECONDS,
        payload_bytes=payload_bytes,
        waits=True,
    )
    if found.unserved:
        raise MeasurementError(f"{found.unserved} calls were not served")
    return statistics.median(b - a for a, b in zip(found.waits_s, found.latencies_s, strict=True))


def _by_sockperf() -> float:
    return sockperf(reserve_port(None), rate=RATE, seconds=SECONDS, message_bytes=MESSAGE_BYTES)


def _network_of(session: Session) -> int:
    assert isinstance(session.instance, OnThisHost)
    return min(pid for pid, role in session.instance.host_pids().items() if role is Role.SERVICE)
