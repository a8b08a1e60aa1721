"""Calls that one instance of the lab's own service makes of another, measured from inside the caller.

They are open-loop: each has its intended instant, whatever became of those before it, and its latency counts from there
(docs/method.md, rule 19). The caller's own lateness is told with them (docs/method.md, rule 18).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from lab.errors import DriverError, MeasurementError
from lab.features import Place
from lab.launch.session import Session
from lab.service import ask
from lab.service.load import LATE_SHARE

MOST_CALLS = 5000
"""Of one request for calls, as the service bounds them (lab/service/src/talk/call.c)."""
MOST_RATE = 20_000
MOST_BYTES = 65_536
TIMEOUT_S = 1.0
ATTEMPTS = 3
"""How often calls are begun whose client was late: what others do on this machine passes, and the path's own latency
has no part in it."""

_OVER_S = 60.0  # a guest's own clock may be slow on a busy host, and engines take long there to make a process


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """What became of calls: each one's seconds from its intended instant to its whole answer, infinite where none of
    2xx came. `took_s` is from the first one's instant to the last one's end, `cpu_s` the calling process's own CPU
    time, by the caller's clock; `resolve_s` what asking for the callee's name took, 0 where it has an address.
    `waits_s`, where it was asked for, is how long after its intended instant each call's first byte left."""

    latencies_s: Sequence[float]
    outcomes: Mapping[str, int]
    late_share: float
    took_s: float
    cpu_s: float
    resolve_s: float
    waits_s: Sequence[float] = ()

    @property
    def unserved(self) -> int:
        return sum(math.isinf(latency_s) for latency_s in self.latencies_s)

    @property
    def late(self) -> bool:
        """Whether the caller was itself late too often for its word to count (docs/method.md, rule 18)."""
        return self.late_share > LATE_SHARE


def call(
    caller: Session,
    place: Place,
    *,
    nonce: str,
    rate: int,
    count: int,
    fresh: bool = False,
    payload_bytes: int = 0,
    path: str = "/healthz",
    waits: bool = False,
) -> Calls:
    """Have the service of `caller` make `count` calls of who is at `place`, `rate` a second; each with `payload_bytes`
    of its own, and with `fresh` on a new connection. `nonce` is the callee's launch's. Raises DriverError, Unsupported;
    MeasurementError where the caller cannot call, with what it says, or where its account is not whole."""
    where = {"host": place.host, "name": place.name, "unix": place.unix, "port": place.port or ""}
    where |= {"vsock": place.vsock or ""}
    asked = {**where, "nonce": nonce, "rate": rate, "count": count, "fresh": int(fresh), "bytes": payload_bytes}
    asked |= {"waits": 1} if waits else {}
    # The service takes a query as it stands, without percent signs: none of these has a character that needs any.
    query = urlencode({key: value for key, value in asked.items() if value != ""}, safe="/?=:")
    if path != "/healthz":
        query += f"&path={path}"
    try:
        told = ask.get(caller, f"/call?{query}", timeout_s=count / rate + TIMEOUT_S + _OVER_S)
    except ask.Refused as error:
        raise MeasurementError(f"the caller cannot call: {_said(error)}") from error
    except DriverError as error:  # whose words have the query, and with it the callee's nonce
        raise DriverError(error.brief.replace(f"?{query}", ""), details=error.details) from error
    return parse(told)


def punctual_call(caller: Session, place: Place, **how: Any) -> Calls:
    """`call`, and where the caller was itself late, so that nothing was found out, again: `ATTEMPTS` times in all."""
    found = call(caller, place, **how)
    for _ in range(ATTEMPTS - 1):
        if not found.late:
            break
        found = call(caller, place, **how)
    return found


def parse(told: Mapping[str, Any]) -> Calls:
    """The service's account of calls. Raises MeasurementError where it is not whole."""
    try:
        latencies = [math.inf if one is None else int(one) / 1e9 for one in told["latency_ns"]]
        outcomes = {str(name): int(count) for name, count in told["outcomes"].items()}
        found = Calls(
            latencies_s=latencies,
            outcomes={name: count for name, count in outcomes.items() if count},
            late_share=int(told["late"]) / len(latencies),
            took_s=int(told["took_ns"]) / 1e9,
            cpu_s=int(told["cpu_ns"]) / 1e9,
            resolve_s=int(told["resolve_ns"]) / 1e9,
            waits_s=[int(one) / 1e9 for one in told.get("wait_ns", ())],
        )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise MeasurementError("what the caller told of its calls is not whole", details=repr(error)) from error
    if len(latencies) != told.get("planned") or sum(outcomes.values()) != found.unserved or min(latencies) < 0:
        raise MeasurementError("what the caller told of its calls contradicts itself", details=str(outcomes))
    return found


def next_in_chain(session: Session, place: Place, *, nonce: str) -> None:
    """Have the service of `session` hand on each request of /chain to who is at `place`. Raises DriverError."""
    where = {"host": place.host, "name": place.name, "unix": place.unix, "port": place.port or ""}
    where |= {"vsock": place.vsock or ""}
    query = urlencode({key: value for key, value in {**where, "nonce": nonce}.items() if value != ""}, safe=":")
    ask.post(session, f"/chain/next?{query}")


def _said(error: DriverError) -> str:
    try:
        return str(json.loads(error.details)["error"])
    except (ValueError, KeyError, TypeError):
        return error.brief
