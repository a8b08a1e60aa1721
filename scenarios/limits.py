"""Which limits does a function's platform promise, and which of them hold here?

| metric | what it is | unit |
|---|---|---|
| `limit_held` (`limit`) | 1: what was tried met the limit as the contract says; 0: it did not | share |
| `limit_met_s` (`limit`=`timeout`) | from just before the call, which begins with a new worker, to its end: it would take twenty times the timeout | s |
| `limit_met_bytes` (`limit`=`request`, `response`, `/tmp`) | what got through of that which was more than the limit: bytes of the event, of the answer, or on /tmp | bytes |

Each limit is tried for real on one function of its own: a call that takes longer than its timeout, an event of the
largest size and one beyond, an answer beyond, more memory than declared, two calls at a time where one is reserved, and
more on /tmp than there is. What happened is told in words beside what the contract promises. Where the emulator's size
of /tmp is another than the contract's, it is the declared one that is tried.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from lab.errors import Unsupported
from lab.features import Called, Feature, Invoked, Limited
from lab.figures.evidence import Meaning, Seen, tell
from lab.image.process import TMP
from lab.launch.session import Session
from lab.scenario import Bench
from lab.units import MIB

_MOST_BYTES = 6_291_556
_TIMEOUT_S = 1
_TAKES_S = 20
_OVERLAP_MS = 1500
_COLD_S = 30.0
_PAGE = "https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Each limit once a round."""

    name: ClassVar[str] = "limits"
    question: ClassVar[str] = "Which limits does a function's platform promise, and which of them hold here?"
    headline: ClassVar[str] = "limit_held"
    own_service: ClassVar[bool] = True
    rounds: ClassVar[int] = 1
    warmup: ClassVar[int] = 0
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.FUNCTION, Feature.NETWORK})
    claim: ClassVar[str] = (
        "Serverless functions come with pre-defined restrictions on size, memory usage and the set time in which they "
        "must end."
    )
    caveats: ClassVar[Sequence[str]] = (
        "What the contract says is AWS's documentation of Lambda; what is tried is this platform, which the row names, "
        "and no other.",
        "An emulator may accept what the contract refuses, so that code that runs here fails there, or the other way.",
    )
    done: ClassVar[Sequence[str]] = (
        "One function was launched for each limit, with the declared memory and /tmp, and one call made that goes "
        "beyond that limit; of events also one of exactly the largest size.",
    )
    meanings: ClassVar[Mapping[str, Meaning]] = {
        "timeout": Meaning(
            "A call that would take twenty times its timeout.", "A worker that hangs would be paid for.", _PAGE
        ),
        "request": Meaning(
            "An event of the largest size, and one of 4 KiB more.",
            "What is cut short and said to be well is data lost; what is refused can be sent in another way.",
            _PAGE,
        ),
        "response": Meaning("An answer larger than may be.", "The caller must learn that there was one.", _PAGE),
        "memory": Meaning(
            "A call that takes as much memory as is declared, beside what runs already.",
            "Who is killed, the service or the whole worker, decides what the next call finds.",
            _PAGE,
        ),
        "concurrency": Meaning(
            "Two calls at a time where one is reserved.", "Callers must be told to come again, and not queue.", _PAGE
        ),
        TMP: Meaning("A file larger than /tmp.", "Without a size it is the host's disk or memory that fills.", _PAGE),
    }

    @property
    def launches(self) -> int:
        return len(self.meanings)

    @property
    def at_once(self) -> int:
        return 1

    @property
    def likely_s_per_round(self) -> float:
        return 12.0

    def measure(self, bench: Bench) -> None:
        tried: Mapping[str, Callable[[Bench, Limited], tuple[bool, str]]] = {
            "timeout": _timeout,
            "request": _request,
            "response": _response,
            "memory": _memory,
            "concurrency": _concurrency,
            TMP: _tmp,
        }
        for limit, attempt in tried.items():
            with bench.session() as session:
                function = _function(session)
                held, here = attempt(bench, function)
                bench.emit("limit_held", float(held), "share", limit=limit)
                tell(bench, Seen.OUTSIDE, f"{limit}: the contract", function.promises().get(limit, "nothing"))
                tell(bench, Seen.OUTSIDE, f"{limit}: here", here)


def _function(session: Session) -> Limited:
    if not isinstance(session.instance, Limited):
        raise Unsupported("this platform has no limits that its contract names", resolution="leave this target out")
    return session.instance


def _timeout(bench: Bench, function: Limited) -> tuple[bool, str]:
    function.limit(timeout_s=_TIMEOUT_S)
    before_ns = bench.clock.now_ns()
    called = function.call("/function/sleep", query=f"ms={_TAKES_S * 1000}")
    took_s = (bench.clock.now_ns() - before_ns) / 1e9
    bench.emit("limit_met_s", took_s, "s", limit="timeout")
    held = bool(called.error) and _TIMEOUT_S - 0.1 <= took_s < _TAKES_S / 2
    return held, f"a timeout of {_TIMEOUT_S} s: with a new worker's start, after {took_s:.1f} s {_said(called)}"


def _request(bench: Bench, function: Limited) -> tuple[bool, str]:
    whole = function.call("/function/event", pad_to=_MOST_BYTES)
    arrived = _told(whole).get("event_bytes", 0)
    largest = f"{_MOST_BYTES:,} bytes arrived whole" if arrived == _MOST_BYTES else f"{_MOST_BYTES:,}: {_said(whole)}"
    beyond = function.call("/function/event", pad_to=_MOST_BYTES + 4096, beyond=True)
    through = int(_told(beyond).get("event_bytes", 0))
    bench.emit("limit_met_bytes", through, "bytes", limit="request")
    cut = beyond.said.startswith("Lab.NoFunctionUrlEvent")  # which is what a JSON text without its end is
    more = "taken, and cut short without a word" if cut else _said(beyond)
    return arrived == _MOST_BYTES and beyond.status == 413, f"{largest}; 4,096 more: {more}"


def _response(bench: Bench, function: Limited) -> tuple[bool, str]:
    called = function.call("/function/answer", query=f"bytes={_MOST_BYTES + 4096}")
    bench.emit("limit_met_bytes", 0 if called.error else len(called.payload), "bytes", limit="response")
    return bool(called.error), f"an answer of {_MOST_BYTES + 4096:,} bytes: {_said(called)}"


def _memory(bench: Bench, function: Limited) -> tuple[bool, str]:
    mib = bench.spec.memory_bytes // MIB
    function.call("/function/event")
    before = set(function.workers()) if isinstance(function, Invoked) else set()
    called = function.call("/alloc", query=f"mib={mib}", method="POST")
    refused = bool(called.error) or _told(called, key="statusCode") not in (0, 200)
    after = function.call("/function/event")
    same = bool(before) and isinstance(function, Invoked) and before & set(function.workers())
    next_call = f"the next call is number {_told(after).get('call', 0)} of {'the same' if same else 'another'} worker"
    return (
        refused,
        f"{mib} MiB more, of {mib} MiB declared: {_said(called)}; {next_call if not after.error else _said(after)}",
    )


def _concurrency(_bench: Bench, function: Limited) -> tuple[bool, str]:
    function.limit(concurrency=1)
    found: list[Called] = []

    def call() -> None:
        found.append(function.call("/function/sleep", query=f"ms={_OVERLAP_MS}"))

    threads = [threading.Thread(target=call, name=f"call {number}") for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [one for one in found if one.status == 429]
    served = [one for one in found if not one.error]
    return len(refused) == len(served) == 1, " · ".join(sorted(_said(one) for one in found))


def _tmp(bench: Bench, function: Limited) -> tuple[bool, str]:
    mib = bench.spec.scratch_bytes // MIB + 8
    called = function.call("/function/tmp", query=f"mib={mib}")
    told = _told(called)
    written, error = int(told.get("written_bytes", 0)), int(told.get("errno", 0))
    bench.emit("limit_met_bytes", written, "bytes", limit=TMP)
    met = os.strerror(error) if error else "no end was met"
    held = bool(error) and written <= bench.spec.scratch_bytes
    return held, f"{mib} MiB where {bench.spec.scratch_bytes // MIB} are declared: {written:,} bytes, {met}"


def _said(called: Called) -> str:
    """What came of a call, in a few words."""
    if called.error:
        return ": ".join(filter(None, [f"{called.status} {called.error}", called.said[:160]]))
    status = _told(called, key="statusCode")
    return f"answered with {status or called.status}"


def _told(called: Called, *, key: str = "") -> Any:
    """What the function answered: a field of its response, or the object in its body; 0, or nothing, for none such."""
    try:
        response = json.loads(called.payload)
        return response.get(key, 0) if key else dict(json.loads(response.get("body") or "{}"))
    except (ValueError, TypeError, AttributeError):
        return 0 if key else {}
