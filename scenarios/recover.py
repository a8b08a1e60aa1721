"""How long until a service serves again after its main process was killed, or its node was lost, if ever?

| metric | start | end | unit |
|---|---|---|---|
| `recover_s` | just before SIGKILL is sent to the main process | the first complete answer of this launch by another process | s |
| `recovered` | SIGKILL was sent | 1: there was such an answer within `censored_at`; 0: none, which is all that 'never' means | share |

With `by=drain` or `by=node` it is the node that is lost: `recover_s` begins just before the node is cordoned and the
instance evicted, as maintenance does, or just before the node is stopped with all that is on it. Both name it in their
dimension `by`, and are of engines with several machines; the node is given back before the next launch. How long a lost
node is waited for is the engine's own (on Kubernetes some 40 s until it is missed, and 300 s, or `-o tolerate=SECONDS`,
until its pods are given up): `within` must be longer.

The main process is the service's on this host, or the VMM's where the service runs in a virtual machine: the first
started of the launch's own processes in that role, held by a pidfd and younger than the launch. Killing what an engine
runs as root takes root. Another process is told by its boot id, pid and start of `main`, on new connections every 20 ms
from before the kill on.

Each target is measured with its `restart`=default and, where its engine has a better policy than that, with
`restart`=best; `policy` is the engine's own name of it. `recover_s` exists only for launches that recovered: its n is read beside
`recovered`, and a median of it says nothing about those that did not.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from lab.driver import Info
from lab.errors import DriverError, MeasurementError
from lab.features import Feature, OnNodes
from lab.host.procs import Process
from lab.launch.census import Census, identity
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service.serving import main_process
from lab.spec import Restart


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover:
    """SIGKILL to the main process, or the loss of its node; 'never' means not `within` so many seconds."""

    by: Literal["kill", "drain", "node"] = "kill"
    within: Annotated[float, Field(gt=0, le=3600)] = 60.0

    name: ClassVar[str] = "recover"
    question: ClassVar[str] = "How long until the service serves again after its main process was killed, if ever?"
    headline: ClassVar[str] = "recover_s"

    @property
    def requires(self) -> frozenset[Feature]:
        return frozenset({Feature.NETWORK, Feature.HOST_PIDS if self.by == "kill" else Feature.NODES})

    @property
    def launches(self) -> int:
        return len(Restart) if self.by == "kill" else 1

    @property
    def at_once(self) -> int:
        return 1

    @property
    def likely_s_per_round(self) -> float:
        return self.within  # by default most engines restart nothing

    def measure(self, bench: Bench) -> None:
        if self.by != "kill":
            with bench.session() as session:
                self._lose_node_and_wait(bench, session)
            return
        for restart in _offered(bench.info):
            with bench.session(restart=restart) as session:
                self._kill_and_wait(bench, session, restart)

    def _kill_and_wait(self, bench: Bench, session: Session, restart: Restart) -> None:
        assert session.instance is not None  # noqa: S101  it was launched
        told = {
            "restart": restart.value,
            "policy": _policy(bench.info, restart),
            "censored_at": f"{self.within:g}s",
        }
        known = frozenset({identity(session.answer)})
        process = main_process(session, bench.clock)
        with Census(session.instance, session.spec, bench.clock, known=known) as census:
            bench.begin_at_random()
            killed_ns = bench.clock.now_ns()
            _kill(process)
            if not process.wait(self.within):
                raise MeasurementError(f"process {process.pid} outlives SIGKILL by {self.within:g} s")
            recovered = census.look(lambda: bool(census.first_ns), timeout_s=self.within)
        self._emit(bench, census, killed_ns, recovered, told)

    def _lose_node_and_wait(self, bench: Bench, session: Session) -> None:
        instance = session.instance
        assert isinstance(instance, OnNodes)  # noqa: S101  its target has the feature
        told = {"by": self.by, "policy": _policy(bench.info, Restart.DEFAULT), "censored_at": f"{self.within:g}s"}
        known = frozenset({identity(session.answer)})
        with Census(session.instance, session.spec, bench.clock, known=known) as census, contextlib.ExitStack() as back:
            bench.begin_at_random()
            lost_ns = bench.clock.now_ns()
            back.callback(instance.drain() if self.by == "drain" else instance.stop_node())
            recovered = census.look(lambda: bool(census.first_ns), timeout_s=self.within)
        self._emit(bench, census, lost_ns, recovered, told)

    def _emit(self, bench: Bench, census: Census, since_ns: int, recovered: bool, told: Mapping[str, str]) -> None:
        if recovered:
            bench.emit("recover_s", (min(census.first_ns.values()) - since_ns) / 1e9, "s", **told)
        bench.emit("recovered", float(recovered), "share", **told)


def _kill(process: Process) -> None:
    try:
        process.send(signal.SIGKILL)
    except PermissionError as error:
        raise DriverError(
            f"process {process.pid}, which serves, is another user's, and so cannot be killed",
            resolution="run the lab with sudo",
        ) from error


def _offered(info: Info) -> list[Restart]:
    """The policies that differ: an engine with only one is not killed twice for the same answer."""
    differs = _policy(info, Restart.BEST) != _policy(info, Restart.DEFAULT)
    return [Restart.DEFAULT, Restart.BEST] if Feature.RESTART in info.features and differs else [Restart.DEFAULT]


def _policy(info: Info, restart: Restart) -> str:
    named = info.facts.get("restart") or {}
    return str(named.get(restart.value, "none"))
