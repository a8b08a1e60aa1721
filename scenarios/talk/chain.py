"""A request through several services, one behind the other, against as many steps in one process."""

from __future__ import annotations

import contextlib
import itertools

from lab.errors import MeasurementError
from lab.features import Peers, Place
from lab.figures.series import ABSENT
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service import ask
from lab.service.calls import Calls, next_in_chain, punctual_call
from scenarios.talk.pair import emit_quantiles
from scenarios.talk.sharing import own_port

SERVICES, ONE_PROCESS = "services", "one process"


def measure(bench: Bench, caller: Session, last: Session, *, depth: int, rate: int, calls: int, peers: str) -> None:
    """`depth` services, of which the caller is the first and `last` the last; by the first path that is open."""
    with contextlib.ExitStack() as stack:
        between = [stack.enter_context(bench.session(peers=peers)) for _ in range(depth - 2)]
        chain = [caller, *between, last]
        for one, following in itertools.pairwise(chain):
            place = _open(one, following)
            if place is None:
                why = "there is no path from one service to the next"
                bench.emit(ABSENT, 1, "", of="chain_p50_s", why=why)
                return
            next_in_chain(one, place, nonce=following.spec.nonce)
        told = ask.get(caller, "/chain").get("depth")
        if told != depth:
            raise MeasurementError(f"a chain of {depth} services told of {told}")
        _emit(bench, _called(caller, "/chain", rate, calls), depth, SERVICES)
        _emit(bench, _called(caller, f"/chain?within={depth}", rate, calls), depth, ONE_PROCESS)


def _called(caller: Session, path: str, rate: int, calls: int) -> Calls:
    place = Place(path="own loopback", network="", host="127.0.0.1", port=own_port(caller, caller.spec.port))
    return punctual_call(caller, place, nonce=caller.spec.nonce, rate=rate, count=calls, path=path)


def _emit(bench: Bench, found: Calls, depth: int, through: str) -> None:
    about = {"depth": str(depth), "through": through}
    if found.late:
        why = f"the caller's own client was late for {found.late_share:.0%} of them"
        bench.emit(ABSENT, 1, "", of="chain_p50_s", why=why, **about)
    else:
        emit_quantiles(bench, found, "chain", about)


def _open(caller: Session, callee: Session) -> Place | None:
    assert isinstance(caller.instance, Peers) and isinstance(callee.instance, Peers)  # noqa: S101  its target is so
    for place in callee.instance.places():
        reached = caller.instance.reach(place)
        if isinstance(reached, Place):
            return reached
    return None
