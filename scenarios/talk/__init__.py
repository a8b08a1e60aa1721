"""What does it cost when one service calls another, and by which path?

Two instances of the lab's own service on one platform; with `across`, also one on each of two. The first, the caller,
calls the second, the callee, as services do: by its own client, so that all is measured from inside the caller.

| metric | start | end | unit |
|---|---|---|---|
| `call_p50_s`, `call_p99_s` (`path`, `callee`, `rate`) | the instant at which a call was to leave the caller, whether or not it could | its complete answer, on a connection that was there before and is kept; no payload, `rate` calls a second | s |
| `highest_rate` (`path`, `callee`) | none | the highest of the declared `rates` up to which each had all calls served and a p99 of at most 10 ms; 0 where the lowest had not | calls/s |
| `variant_p50_s`, `variant_p99_s` (`path`, `connection`, `payload`) | as `call_p50_s` | its complete answer, with a payload in the request, and on a kept connection or a new one for each call | s |
| `curve_p50_s`, `curve_p99_s`, `curve_p99_9_s` (`path`, `rate`) | as `call_p50_s` | its complete answer, at that rate | s |
| `first_call_s` (`path`, `callee`) | the instant of the pair's first call by that path | its complete answer: with a new connection, and what addresses had to be found (ARP), but not the name's resolution | s |
| `resolve_s` (`path`, `callee`) | before the caller asks its resolver for the callee's name | the resolver's answer, before that first call | s |
| `cpu_per_1000_s` (`path`, `callee`, `side`) | before the calls of `call_p50_s` | after them: CPU time of the caller, the callee, the helpers of both and the engine, over calls served, times 1,000 | s |
| `chain_p50_s`, `chain_p99_s` (`depth`, `through`) | as `call_p50_s` | the complete answer of a request that went on through `depth` services, one behind the other, or through as many steps in one process | s |
| `control_p50_s`, `control_p99_s` | as `call_p50_s` | the answer of the caller itself, by its own loopback | s |
| `caller_late_share` (`path`, `callee`) | none | calls during which the caller's client was itself late, of all | share |
| `unserved_calls` (`path`, `callee`) | none | calls of `call_p50_s` that were missed by the client, refused, broken, too late or answered with an error | calls |

The load is open-loop, and each call's latency is kept raw (`request_s`): a call that waits because the one before it was
slow counts its waiting (docs/method.md, rule 19). A quantile is of one pair's calls in one round, and where rounds come
together, they are a sample of quantiles: p99s are never averaged, nor pooled. It has no value where calls are too few
for its interval (p99: 368; p99.9: 3,688), or where it would be endless.

- The caller proves itself first, in each round: it calls itself by its own loopback. Where its client was late for more
  than 5 % of the calls, in the control or in a cell, nothing was found out, and the calls are made again, three times in
  all; a cell that was late each time has no figure (docs/method.md, rule 18).
- Where its client cannot keep up with `rate`, late for half of its calls of itself, as in an emulated guest, all but the
  curve is measured at `slow_rate`, and its figures say so by their `rate`.
- Payloads travel in the request: the callee reads all of it and answers a few bytes.
- CPU time is the host's account: of bare processes and containers that of the services' processes, and of what the
  caller's client took by its own word; of guests that of their QEMU, in which user-mode networking (slirp) works as
  well. Helpers are the host's other processes of both instances (docker-proxy, shims) and QEMU's vhost threads. What the
  kernel does for a packet in nobody's name (softirq) is in whoever's time it interrupts, and partly in nobody's.
- The engine is its daemons, whatever they did meanwhile; a name server of Docker's is in it.
- A path that cannot be has its reason in place of figures.
- What the pair shares, by the probes of `surface`, stands beside the latency as a fact.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from lab.features import Feature, Peers, Place
from lab.figures.series import ABSENT
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service.calls import MOST_BYTES, MOST_CALLS, MOST_RATE, punctual_call
from scenarios.talk import chain, sharing
from scenarios.talk.pair import Cell, Pair, emit_quantiles

PEERS = "talk"
_KIB = 1024
_NUMBERS = r"^\d{1,6}(,\d{1,6})*$"
_P99_CALLS = 368
_CURVE_S = 0.5
_CANNOT = 0.5
"""A caller that was late for so large a share of its calls of itself cannot keep up with their rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """One pair by each of its paths: `calls` calls at `rate` a second in each cell, and the curve's `rates`."""

    rate: Annotated[int, Field(ge=1, le=5000)] = 250
    slow_rate: Annotated[int, Field(ge=1, le=5000)] = 20
    calls: Annotated[int, Field(ge=10, le=MOST_CALLS)] = 400
    payloads: Annotated[str, Field(pattern=_NUMBERS, max_length=40)] = "0,1,64"
    rates: Annotated[str, Field(pattern=r"^(\d{1,6}(,\d{1,6})*)?$", max_length=60)] = "500,1000,2000,4000,8000"
    depth: Annotated[int, Field(ge=0, le=8)] = 0
    across: bool = False

    name: ClassVar[str] = "talk"
    question: ClassVar[str] = "What does it cost when one service calls another, and by which path?"
    headline: ClassVar[str] = "call_p50_s"
    own_service: ClassVar[bool] = True
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.NETWORK, Feature.PEERS})

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if any(size * _KIB > MOST_BYTES for size in _numbers(self.payloads)) or len(_numbers(self.payloads)) > 6:
            raise ValueError(f"payloads are at most 6 numbers of KiB up to {MOST_BYTES // _KIB}, such as 0,1,64")
        if any(not 1 <= rate <= MOST_RATE for rate in _numbers(self.rates)) or len(_numbers(self.rates)) > 10:
            raise ValueError(f"rates are at most 10 numbers from 1 to {MOST_RATE}, such as 500,2000")
        if self.calls / min(self.rate, self.slow_rate) > 40:
            raise ValueError("calls over rate, and over slow_rate, are at most 40 s")
        if self.depth == 1:
            raise ValueError("a chain has a depth of at least 2; 0 is none")
        return self

    @property
    def launches(self) -> int:
        return max(2, self.depth)

    @property
    def at_once(self) -> int:
        return max(2, self.depth, 3 * self.across)  # a callee of another target's beside both

    @property
    def likely_s_per_round(self) -> float:
        cells = 2 * len(_numbers(self.payloads))
        curve_s = sum(max(_P99_CALLS / rate, _CURVE_S) for rate in _numbers(self.rates))
        return 2 * (cells * self.calls / self.rate + curve_s) + self.calls / self.rate  # by two paths, and the control

    def measure(self, bench: Bench) -> None:
        with bench.session(peers=PEERS) as callee, bench.session(peers=PEERS) as caller:
            rate = self._control(bench, caller)
            if rate is None:
                return
            sharing.tell_shared(bench, caller, callee, "")
            for place in _places(callee):
                self._by(bench, Pair(bench, caller, callee, place=place, rate=rate, slow=rate != self.rate), whole=True)
            if self.depth:
                chain.measure(bench, caller, callee, depth=self.depth, rate=rate, calls=self.calls, peers=PEERS)
            if self.across:
                for other in bench.others():
                    self._across(bench, caller, other, rate)

    def _across(self, bench: Bench, caller: Session, other: Bench, rate: int) -> None:
        """The caller, and a callee of another target's."""
        named = other.spec.labels.get("lab.target", "")
        with other.session(peers=PEERS) as callee:
            sharing.tell_shared(bench, caller, callee, named)
            for place in _places(callee):
                pair = Pair(
                    bench, caller, callee, place=place, rate=rate, slow=rate != self.rate, named=named, other=other
                )
                self._by(bench, pair, whole=False)

    def _control(self, bench: Bench, caller: Session) -> int | None:
        """The rate at which the caller's own client is to be believed in this round, which calls itself by its own
        loopback: `rate`, else `slow_rate`; None where it is at neither."""
        port = sharing.own_port(caller, bench.spec.port)
        place = Place(path="own loopback", network="", host="127.0.0.1", port=port)
        for rate in dict.fromkeys((self.rate, min(self.rate, self.slow_rate))):
            found = punctual_call(caller, place, nonce=caller.spec.nonce, rate=rate, count=self.calls)
            about = {"rate": str(rate)} if rate != self.rate else {}
            bench.emit("caller_late_share", found.late_share, "", path=place.path, **about)
            if not found.late:
                emit_quantiles(bench, found, "control", about)
                return rate
            if found.late_share < _CANNOT:
                break  # others held it up, and a slower rate would be another figure
        why = f"the caller's own client was late for {found.late_share:.0%} of its calls of itself"
        bench.emit(ABSENT, 1, "", of="call_p50_s", why=why)
        return None

    def _by(self, bench: Bench, pair: Pair, *, whole: bool) -> None:
        """One path: its first call, its cells in an order by chance, and its curve, unless it is shut."""
        if not pair.open():
            return
        pair.base(self.calls)
        if whole:
            cells = [
                Cell(fresh=fresh, payload_bytes=size * _KIB)
                for size in _numbers(self.payloads)
                for fresh in (False, True)
                if size or fresh
            ]
            bench.random().shuffle(cells)
            for cell in cells:
                pair.variant(cell, self.calls)
        if self.rates and whole:
            pair.curve([(rate, max(_P99_CALLS, round(rate * _CURVE_S))) for rate in sorted(_numbers(self.rates))])


def _places(callee: Session) -> Sequence[Place]:
    assert isinstance(callee.instance, Peers)  # noqa: S101  its target has the feature
    return callee.instance.places()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]
