"""How long until a whole application answers again after the main process of one of its services was killed?

| metric | start | end | unit |
|---|---|---|---|
| `app_recover_s` (`killed`) | just before SIGKILL is sent to the main process of the service `killed` | the first complete answer of the entry service that counts, to a request that left after that process had ended, another process of that service being there | s |
| `app_recovered` (`killed`) | SIGKILL was sent | 1: there was such an answer within `censored_at`; 0: none | share |

The main process is the service's on this host, or the VMM's of its guest, as in `recover`. Each service is launched with
the best policy of restarting that its engine has (`policy`); what restarts nothing never recovers, and says so by a 0.
Each of the services in `kill`, all of them where none is named, is killed in a launch of its own.

Whoever waits is one patient client, as for `ready`. Where the whole answers though the killed service is not back, the
request does not pass through it, and there is no figure but the reason.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from lab.driver import Instance
from lab.errors import DriverError, MeasurementError, ReadyTimeout
from lab.features import Feature
from lab.figures.series import ABSENT
from lab.host.procs import Process
from lab.launch.census import addresses_of
from lab.launch.session import Session
from lab.launch.waiter import Answer, Waiter
from lab.scenario import Bench
from lab.service.serving import main_process
from lab.spec import Restart
from scenarios.application.applied import Applied
from scenarios.application.launched import launched

_FOLLOW_S = 0.1


@dataclass(frozen=True, kw_only=True)
class AppRecover(Applied):
    """SIGKILL to one service's main process; 'never' means not `within` so many seconds."""

    kill: Annotated[str, Field(pattern=r"^([a-z][a-z0-9-]*(,[a-z][a-z0-9-]*)*)?$")] = ""
    within: Annotated[float, Field(gt=0, le=3600)] = 20.0

    restart: ClassVar[Restart] = Restart.BEST

    name: ClassVar[str] = "app-recover"
    question: ClassVar[str] = "How long until a whole application answers again after one of its services was killed?"
    headline: ClassVar[str] = "app_recover_s"
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.NETWORK, Feature.PEERS, Feature.HOST_PIDS})

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.kill and (self.file or self.compose):
            for name in self.killed:
                if name not in self.application.services:
                    raise ValueError(f"kill: there is no service '{name}'")
        return self

    @property
    def killed(self) -> Sequence[str]:
        return self.kill.split(",") if self.kill else list(self.application.services)

    @property
    def launches(self) -> int:
        return len(self.application.services) * len(self.killed)

    @property
    def likely_s_per_round(self) -> float:
        return 2.0 * len(self.killed)

    def measure(self, bench: Bench) -> None:
        names = list(self.killed)
        bench.random().shuffle(names)
        for name in names:
            with launched(bench, self) as running:
                self._kill_and_wait(bench, name, running.sessions[name], running.entry)

    def _kill_and_wait(self, bench: Bench, name: str, victim: Session, entry: Session) -> None:
        told = {
            "killed": name,
            "restart": self.restart.value,
            "policy": str((bench.info.facts.get("restart") or {}).get(self.restart.value, "none")),
            "censored_at": f"{self.within:g}s",
        }
        process = main_process(victim, bench.clock)
        bench.begin_at_random()
        killed_ns = bench.clock.now_ns()
        _kill(process)
        if not process.wait(self.within):
            raise MeasurementError(f"process {process.pid} outlives SIGKILL by {self.within:g} s")
        answer = self._await_answer(bench, entry)
        if answer is not None and not _is_back(victim, process, bench):
            why = f"the whole answers without {name}: the request does not pass through it"
            bench.emit(ABSENT, 1, "", of=f"app_recover_s killed={name}", why=why)
            return
        if answer is not None:
            bench.emit("app_recover_s", (answer.received_ns - killed_ns) / 1e9, "s", **told)
        bench.emit("app_recovered", float(answer is not None), "share", **told)

    def _await_answer(self, bench: Bench, entry: Session) -> Answer | None:
        """The first that counts, wherever the entry's instance then answers; None where none came."""
        assert entry.instance is not None  # noqa: S101  it was launched
        waiter = Waiter(entry.spec, bench.clock)
        over = threading.Event()
        follower = threading.Thread(target=_follow, args=(entry.instance, waiter, over), daemon=True)
        waiter.start(entry.instance.endpoint)
        waiter.attempt()
        follower.start()
        try:
            return waiter.wait(self.within)
        except ReadyTimeout:
            return None
        finally:
            over.set()
            follower.join()
            waiter.cancel()


def _follow(instance: Instance, waiter: Waiter, over: threading.Event) -> None:
    """Have `waiter` ask where the instance answers now, as its engine may have given it another address."""
    asked = instance.endpoint
    while not over.wait(_FOLLOW_S):
        try:
            found = addresses_of(instance)
        except DriverError:
            continue  # its engine is between two of them
        if found and asked not in found and not over.is_set():
            asked = found[0]
            waiter.set_endpoint(asked)


def _is_back(victim: Session, killed: Process, bench: Bench) -> bool:
    """Whether another process serves in the killed one's place."""
    try:
        return main_process(victim, bench.clock) != killed
    except (DriverError, MeasurementError):
        return False


def _kill(process: Process) -> None:
    try:
        process.send(signal.SIGKILL)
    except PermissionError as error:
        raise DriverError(
            f"process {process.pid}, which serves, is another user's, and so cannot be killed",
            resolution="run the lab with sudo",
        ) from error
