"""How long does a whole application take until it answers, and which of its services waits for whom?

| metric | start | end | unit |
|---|---|---|---|
| `app_boot_s` | just before the first engine call of the first service's launch | the client holds the first complete answer of the entry service that counts, to a request that passes through all services | s |
| `at_s` (`service`, `phase`, `after`) | the same start | the instant at which that service of the application was at that phase; `after` tells of `requested` whose being ready or started it came after, the last of those that it waits for | s |

The phases are those of docs/method.md, rule 1, of each service: all on one timeline, which begins with the first of them. A
service without a `depends_on` is asked for at once, beside the others. One that waits for `service_started` comes after
the engine's word that the other one runs, one that waits for `service_healthy` after the other one's `ready`: by HTTP
its first complete answer that counts, by TCP a connection that stood for 250 ms (`ready` is when it stood, so that the
wait of 250 ms is in the time of whoever waits).

The lab itself keeps that order, alike on every platform: no engine is asked for it, and Swarm and Kubernetes know none.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from lab.features import Feature
from lab.scenario import Bench
from lab.timeline import Clock, Phase
from scenarios.application.applied import Applied
from scenarios.application.launched import AFTER, SERVICE, Running, launched


@dataclass(frozen=True, kw_only=True)
class AppBoot(Applied):
    """From the first request to an engine to the first answer of the whole."""

    name: ClassVar[str] = "app-boot"
    question: ClassVar[str] = "How long until a whole application answers, and which service waits for whom?"
    headline: ClassVar[str] = "app_boot_s"
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.NETWORK, Feature.PEERS})

    def measure(self, bench: Bench) -> None:
        with launched(bench, self) as running:
            emit_boot(bench, running)


def emit_boot(bench: Bench, running: Running) -> None:
    """The whole's time, and each service's instants."""
    bench.emit("app_boot_s", running.ready_s(), "s")
    for name, session in running.sessions.items():
        for phase in Phase:
            if phase not in session.timeline or session.timeline.mark(phase).clock is Clock.GUEST:
                continue
            told = {SERVICE: name, "phase": phase.value}
            if phase is Phase.REQUESTED:
                told[AFTER] = running.after[name]
            bench.emit("at_s", running.at_s(session, phase), "s", **told)
