"""How long does a platform take from one replica to N that serve, and back to one?

| metric | start | end | unit |
|---|---|---|---|
| `kth_ready_s` (`k`=1) | `requested` of the first replica, asked for alone | its first complete answer | s |
| `kth_ready_s` (`k`=2..N) | one replica serves, and just before the engine is asked for the others | first complete answer of the k-th replica that serves | s |
| `scale_up_s` | as `kth_ready_s` of 2..N | as that of N; absent where a replica failed | s |
| `replicas_on_node` (`on_node`) | none | replicas of the N that this machine has, once all serve; on engines with several | replicas |
| `failed_replicas` | none | replicas asked for that gave no answer in time | replicas |
| `scale_down_s` | just before the engine is asked to go back to one | only one is left, as `seen_by` tells; absent where a replica failed | s |

`way` says who keeps the replicas. `engine`: the engine is asked once for N, and replicas are told apart by boot id, pid
and start of `main`, as new connections at `rate` to each of the engine's addresses find them; behind one address that
spreads, a replica is found when it is hit, so that a time may be late by some of these attempts. `launches`: N-1
launches are asked for in a row, `parallel` at a time and without waiting for `ready` in between, each with a waiter of
its own; for scaling down they are stopped and removed in the same manner.

`seen_by`: `removal` (the engine says that the others are removed, and a look at the host confirms it), `host-pids` (no
more service processes on this host than before, looked at every 50 ms) or `answers` (the last answer of any other
replica, after which the one left answered alone for 2 s; absent where no other is heard before the engine is asked).
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from lab.driver import Instance
from lab.errors import MeasurementError
from lab.features import Feature, OnNodes, OnThisHost, Replicates, Role
from lab.launch.census import RATE, Census, identity, replicating
from lab.launch.session import Session
from lab.scenario import Bench
from lab.timeline import Phase

ON_NODE = "on_node"
_LOOK_S = 0.050
_ALONE_NS = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """From one replica to `replicas` and back; launches go `parallel` at a time, an engine has `within` seconds."""

    replicas: Annotated[int, Field(ge=2, le=1000)] = 4
    parallel: Annotated[int, Field(ge=1, le=32)] = 1
    within: Annotated[float, Field(gt=0, le=3600)] = 120.0

    name: ClassVar[str] = "scale"
    question: ClassVar[str] = "How long from one replica to N that serve, and back?"
    headline: ClassVar[str] = "scale_up_s"
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.NETWORK})

    @property
    def launches(self) -> int:
        return self.replicas

    @property
    def at_once(self) -> int:
        return self.replicas

    def measure(self, bench: Bench) -> None:
        with bench.session() as first:
            replicates = replicating(bench.info, first.instance)
            if replicates is not None:
                self._by_engine(bench, first, replicates)
            else:
                self._by_launches(bench, first)

    def _by_launches(self, bench: Bench, first: Session) -> None:
        told = {"way": "launches", "replicas": str(self.replicas), "parallel": str(self.parallel)}
        with bench.sessions(self.replicas - 1, parallel=self.parallel) as others:
            ready = sorted(one.timeline.mark(Phase.READY).ns for one in others.sessions)
            self._emit_nodes(bench, [first, *others.sessions], told)
            up = _Up(requested_ns=others.requested_ns, ready_ns=ready, failed=others.failed)
            self._emit_up(bench, first, up, {**told, "wait_method": first.wait_method})
            if up.failed:
                return
            bench.begin_at_random()
            asked_ns = bench.clock.now_ns()
            with ThreadPoolExecutor(self.parallel, thread_name_prefix="lab-remove") as pool:
                list(pool.map(_remove, others.sessions))
            bench.emit("scale_down_s", (bench.clock.now_ns() - asked_ns) / 1e9, "s", **told, seen_by="removal")

    def _by_engine(self, bench: Bench, first: Session, instance: Replicates) -> None:
        assert first.instance is not None  # noqa: S101  it is `instance`
        told = {"way": "engine", "replicas": str(self.replicas)}
        known = frozenset({identity(first.answer)})
        wanted = self.replicas - 1
        processes = _services(first.instance)
        with Census(first.instance, first.spec, bench.clock, known=known) as census:
            bench.begin_at_random()
            requested_ns = bench.clock.now_ns()
            instance.scale(self.replicas)
            census.look(lambda: len(census.first_ns) >= wanted, timeout_s=self.within)
            ready = sorted(census.first_ns.values())[:wanted]
        self._emit_nodes(bench, [first], told)
        up = _Up(requested_ns=requested_ns, ready_ns=ready, failed=wanted - len(ready))
        self._emit_up(bench, first, up, {**told, "rate": RATE})
        if up.failed:
            return
        down_s: float | None
        if 0 < processes < _services(first.instance):
            down_s, seen_by = self._until_processes(bench, first.instance, instance, processes), "host-pids"
        else:
            down_s, seen_by = self._until_alone(bench, first, instance), "answers"
        if down_s is not None:
            bench.emit("scale_down_s", down_s, "s", **told, seen_by=seen_by)

    def _emit_nodes(self, bench: Bench, sessions: Sequence[Session], told: Mapping[str, str]) -> None:
        """Where they are; nothing where they are all on this host."""
        if Feature.NODES not in bench.info.features:
            return
        found: Counter[str] = Counter()
        for session in sessions:
            if isinstance(session.instance, OnNodes):
                found.update(session.instance.on_nodes())
        for node, count in sorted(found.items()):
            bench.emit("replicas_on_node", count, "replicas", **{**told, ON_NODE: node})

    def _emit_up(self, bench: Bench, first: Session, up: _Up, told: dict[str, str]) -> None:
        bench.emit("kth_ready_s", first.timeline.duration_s(Phase.REQUESTED, Phase.READY), "s", k="1", **told)
        for k, ready_ns in enumerate(up.ready_ns, start=2):
            bench.emit("kth_ready_s", (ready_ns - up.requested_ns) / 1e9, "s", k=str(k), **told)
        if not up.failed:
            bench.emit("scale_up_s", (up.ready_ns[-1] - up.requested_ns) / 1e9, "s", **told)
        bench.emit("failed_replicas", up.failed, "replicas", **told)

    def _until_processes(self, bench: Bench, instance: Instance, replicates: Replicates, processes: int) -> float:
        bench.begin_at_random()
        asked_ns = bench.clock.now_ns()
        replicates.scale(1)
        deadline = time.monotonic() + self.within
        while _services(instance) > processes:
            if time.monotonic() > deadline:
                raise MeasurementError(f"more than one replica is still there {self.within:g} s after scaling down")
            time.sleep(_LOOK_S)
        return (bench.clock.now_ns() - asked_ns) / 1e9

    def _until_alone(self, bench: Bench, first: Session, instance: Replicates) -> float | None:
        """None where no second replica was heard, so that nobody could tell when it was gone."""
        assert first.instance is not None  # noqa: S101  it is `instance`

        def alone() -> bool:
            recent = [ns for ns in census.last_ns.values() if ns > bench.clock.now_ns() - _ALONE_NS]
            return len(recent) == 1 and bench.clock.now_ns() - asked_ns > _ALONE_NS

        with Census(first.instance, first.spec, bench.clock, known=frozenset(), everyone=True) as census:
            if not census.look(lambda: len(census.last_ns) > 1, timeout_s=self.within):
                return None
            bench.begin_at_random()
            asked_ns = bench.clock.now_ns()
            instance.scale(1)
            if not census.look(alone, timeout_s=self.within):
                raise MeasurementError(f"more than one replica still answers {self.within:g} s after scaling down")
        *_, last_but_one_ns, _ = sorted(census.last_ns.values())
        return max(0, last_but_one_ns - asked_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Up:
    requested_ns: int
    ready_ns: list[int]
    failed: int


def _remove(session: Session) -> None:
    session.stop(at_once=True)
    session.delete()


def _services(instance: Instance) -> int:
    """How many processes of this host serve for `instance`; 0 where they are not this host's."""
    if not isinstance(instance, OnThisHost):
        return 0
    roles = list(instance.host_pids().values())
    return roles.count(Role.SERVICE) or roles.count(Role.VMM)
