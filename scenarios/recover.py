"""How long until a service serves again after its main process was killed, if ever?

| metric | start | end | unit |
|---|---|---|---|
| `recover_s` | just before SIGKILL is sent to the main process | the first complete answer of this launch by another process | s |
| `recovered` | SIGKILL was sent | 1: there was such an answer within `censored_at`; 0: none, which is all that 'never' means | share |

The main process is the service's on this host, or the VMM's where the service runs in a virtual machine: the first
started of the launch's own processes in that role, held by a pidfd and younger than the launch. Killing what an engine
runs as root takes root. Another process is told by its boot id, pid and start of `main`, on new connections every 20 ms
from before the kill on.

Each target is measured with its `restart`=default and, where its engine has a better policy than that, with
`restart`=best; `policy` is the engine's own name of it. `recover_s` exists only for launches that recovered: its n is read beside
`recovered`, and a median of it says nothing about those that did not.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import signal
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from lab.driver import Info
from lab.errors import DriverError, MeasurementError
from lab.features import Feature
from lab.host.procs import Process
from lab.launch.census import Census, identity
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service.serving import main_process
from lab.spec import Restart


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover:
    """SIGKILL to the main process; 'never' means not `within` so many seconds."""

    within: Annotated[float, Field(gt=0, le=3600)] = 60.0

    name: ClassVar[str] = "recover"
    question: ClassVar[str] = "How long until the service serves again after its main process was killed, if ever?"
    headline: ClassVar[str] = "recover_s"
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.NETWORK, Feature.HOST_PIDS})

    @property
    def launches(self) -> int:
        return len(Restart)

    @property
    def at_once(self) -> int:
        return 1

    @property
    def likely_s_per_round(self) -> float:
        return self.within  # by default most engines restart nothing

    def measure(self, bench: Bench) -> None:
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
        if recovered:
            bench.emit("recover_s", (min(census.first_ns.values()) - killed_ns) / 1e9, "s", **told)
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
