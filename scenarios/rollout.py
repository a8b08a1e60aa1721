"""What do users notice while version 1 is replaced by version 2?

| metric | start | end | unit |
|---|---|---|---|
| `rollout_s` | just before the engine is asked for version 2 (`way`=restart: to stop version 1) | the first answer of version 2 after the last answer of version 1 | s |
| `rolled_out` | asked | 1: that was within the window `rollout`; 0: it was not | share |
| `requests_sent` | none | requests that left, or tried to, by their intended instants | requests |
| `requests_failed` | none | of those, without a complete successful answer within 1 s | requests |
| `missed_sends` | none | requests that the client itself could not send at their instants | requests |
| `worst_latency_s` | intended instant of a request | its complete answer; the worst of the answered | s |

The load is open-loop, `rate` requests a second, each on a new connection, so that no replica is missed because one
connection stays with another. It lasts for two windows of `seconds` each: `window`=quiet before the change is asked
for, and `window`=rollout from then on, with what was under way. A load whose client was itself late for more than 5 %
of the requests is a failed launch, and no figure. With R replicas, `rollout_s` is good to about R requests of the load,
since that often the last of the old ones is asked.

`way`=engine: the engine's own rolling update of `replicas` replicas. `way`=restart: version 1 is stopped and removed,
and version 2 launched at the same address, as a user would do where nothing else is on offer; where the engine chooses
the address of each launch there is no such way, and the target fails. `order`, `readiness`, `grace` and `pre_stop` are
how each goes about it, in the engine's words; all four are beside `rolled_out`.

`address`=own is the engine's or the service's. `address`=spread is the lab's, where the engine has none in front of its
replicas: it hands each new connection to one of theirs, in turn. It asks the engine for them again every 100 ms, and so
may try one that has just ended, as users' own balancers do; such a request is a failed one, and delays the next ones by
200 ms at most.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from lab.errors import DriverError, LaunchError, Unsupported
from lab.features import Feature, Replicates
from lab.launch.census import Census, identity, replicating
from lab.launch.session import Session
from lab.launch.spread import Spreader
from lab.scenario import Bench
from lab.service.load import LoadResult, start_watch
from lab.spec import Endpoint

OLD, NEW = "1", "2"
GRACE_S = 10.0

_READY_WITHIN_S = 120.0
_BY_HAND = {"order": "stop-first", "readiness": "none", "grace": f"{GRACE_S:g}s", "pre_stop": "none"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Replace version 1 by 2 under `rate` requests a second, `seconds` before and `seconds` after it is asked for."""

    rate: Annotated[int, Field(ge=1, le=200)] = 50
    seconds: Annotated[float, Field(ge=1, le=300)] = 20.0
    replicas: Annotated[int, Field(ge=2, le=64)] = 2

    name: ClassVar[str] = "rollout"
    question: ClassVar[str] = "What do users notice while version 1 is replaced by version 2?"
    headline: ClassVar[str] = "rollout_s"
    own_service: ClassVar[bool] = True
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.NETWORK})

    @property
    def launches(self) -> int:
        return max(2, self.replicas)

    @property
    def at_once(self) -> int:
        return self.replicas + 1

    @property
    def likely_s_per_round(self) -> float:
        return 2 * self.seconds

    @property
    def _interval_s(self) -> float:
        return round(1000 / self.rate) / 1000  # whole milliseconds are what the client takes

    def measure(self, bench: Bench) -> None:
        with bench.session(environment=_environment(bench, OLD)) as old:
            replicates = replicating(bench.info, old.instance)
            if replicates is not None:
                self._by_engine(bench, old, replicates)
            else:
                self._by_hand(bench, old)

    def _by_engine(self, bench: Bench, session: Session, instance: Replicates) -> None:
        self._scale(bench, session, instance)
        with contextlib.ExitStack() as stack:
            addresses = instance.endpoints()
            spread = len(addresses) > 1  # several replicas behind one address: the engine spreads
            front = stack.enter_context(Spreader(instance.endpoints)).endpoint if spread else addresses[0]
            with self._load(front) as load:
                bench.begin_at_random()
                load.asked_ns = bench.clock.now_ns()
                instance.update(replace(session.spec, environment=_environment(bench, NEW)))
        told = {"way": "engine", "replicas": str(self.replicas), "address": "spread" if spread else "own"}
        self._emit(bench, load, {**told, **instance.update_policy()})

    def _by_hand(self, bench: Bench, old: Session) -> None:
        endpoint = old.instance.endpoint if old.instance is not None else None
        if endpoint is None:
            raise LaunchError("the engine gave the instance no address to answer at")
        if endpoint != old.asked_at:
            raise Unsupported(
                "the engine chooses the address, so that version 2 cannot take over that of version 1",
                resolution="use a target whose engine rolls out by itself, such as kubernetes:deployment",
            )
        with contextlib.ExitStack() as stack:
            with self._load(endpoint) as load:
                bench.begin_at_random()
                load.asked_ns = bench.clock.now_ns()
                old.stop(timeout_s=GRACE_S, at_once=True)
                old.delete()
                environment = _environment(bench, NEW)
                stack.enter_context(bench.session(port=endpoint.port, at_once=True, environment=environment))
            self._emit(bench, load, {"way": "restart", "replicas": "1", "address": "own", **_BY_HAND})

    def _scale(self, bench: Bench, session: Session, instance: Replicates) -> None:
        assert session.instance is not None  # noqa: S101  it is `instance`
        known = frozenset({identity(session.answer)})
        with Census(session.instance, session.spec, bench.clock, known=known) as census:
            instance.scale(self.replicas)
            if not census.look(lambda: len(census.first_ns) >= self.replicas - 1, timeout_s=_READY_WITHIN_S):
                raise DriverError(
                    f"{1 + len(census.first_ns)} of {self.replicas} replicas serve after {_READY_WITHIN_S:g} s"
                )

    @contextlib.contextmanager
    def _load(self, endpoint: Endpoint) -> Iterator[_Load]:
        """Load `endpoint`; the context begins once the quiet window is over, and its end waits for the load's."""
        load = _Load()
        with start_watch(endpoint, seconds=2 * self.seconds, interval_s=self._interval_s) as client:
            time.sleep(self.seconds)
            yield load
            load.result = client.result()
        load.result.require_punctual()

    def _emit(self, bench: Bench, load: _Load, told: Mapping[str, str]) -> None:
        quiet, changing = load.result.split(load.asked_ns)
        done_ns = rolled_out_ns(changing)
        rate = {"rate": f"{1 / self._interval_s:.3g}/s"}
        bench.emit("rolled_out", float(done_ns is not None), "share", **told, **rate)
        brief = {key: told[key] for key in ("way", "order", "replicas", "address")}
        if done_ns is not None:
            bench.emit("rollout_s", (done_ns - load.asked_ns) / 1e9, "s", **brief, **rate)
        for name, window in (("quiet", quiet), ("rollout", changing)):
            short = {"window": name, "way": told["way"], **rate}
            bench.emit("requests_sent", window.sent, "requests", **short)
            bench.emit("requests_failed", window.failed, "requests", **short)
            bench.emit("missed_sends", window.missed, "requests", **short)
            if window.worst_latency_s is not None:
                bench.emit("worst_latency_s", window.worst_latency_s, "s", **short)


class _Load:
    """A load under way: when the change was asked for, and, once it is over, what became of the requests."""

    asked_ns: int
    result: LoadResult


def rolled_out_ns(result: LoadResult) -> int | None:
    """The arrival of the first answer of the new version after the last one of the old; None when there is none."""
    answers = [(one.done_ns, one.version) for one in result.requests if one.served and one.done_ns is not None]
    last_old_ns = max((ns for ns, version in answers if version == OLD), default=0)
    return min((ns for ns, version in answers if version == NEW and ns > last_old_ns), default=None)


def _environment(bench: Bench, version: str) -> dict[str, str]:
    return {**bench.spec.environment, "LAB_VERSION": version}
