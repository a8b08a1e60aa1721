"""What does a whole application cost this machine's memory?

Each metric is a size in bytes as the host finds it `settle` seconds after the whole answered for the first time.

| metric | what it is |
|---|---|
| `app_pss_bytes` | PSS summed over all host processes that exist because of any of the services, each process once |
| `service_pss_bytes` (`service`) | the part of that which is one service's: its processes, their shims, VMMs and proxies |
| `app_role_pss_bytes` (`role`) | the part of that by role, of all services |
| `app_uss_bytes` | the same processes' USS |
| `app_netns_count` | network namespaces that are not the host's own |

PSS splits what processes share: services on one engine share its shim's and proxy's program, so that the whole is less
than the sum of what each would cost alone. What the engine itself costs is `engine_pss_bytes` of `memory`.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from lab.errors import DriverError
from lab.features import Feature, OnThisHost, Role
from lab.host.memory import account, refresh_counters
from lab.scenario import Bench
from lab.units import parse_seconds
from scenarios.application.applied import Applied
from scenarios.application.launched import SERVICE, Running, launched

Seconds = Annotated[float, BeforeValidator(parse_seconds)]


@dataclass(frozen=True, kw_only=True)
class AppMemory(Applied):
    """All services looked at from the host at once."""

    settle: Annotated[Seconds, Field(ge=0, le=600)] = 1.0

    name: ClassVar[str] = "app-memory"
    question: ClassVar[str] = "What does a whole application cost this machine's memory?"
    headline: ClassVar[str] = "app_pss_bytes"
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.NETWORK, Feature.PEERS, Feature.HOST_PIDS})

    def measure(self, bench: Bench) -> None:
        with launched(bench, self) as running:
            time.sleep(self.settle)
            _emit(bench, running)


def _emit(bench: Bench, running: Running) -> None:
    whose: dict[int, str] = {}

    def all_pids() -> Mapping[int, Role]:
        found: dict[int, Role] = {}
        for name, session in running.sessions.items():
            if not isinstance(session.instance, OnThisHost):
                raise DriverError("the engine says that it tells its instances' processes, and this instance does not")
            own = session.instance.host_pids()
            whose.update(dict.fromkeys(own, name))
            found |= own
        return found

    refresh_counters()
    found = account(all_pids, emulated=bench.info.qualifiers.get("accel") == "tcg")
    bench.emit("app_pss_bytes", found.pss_bytes, "bytes")
    for name in running.sessions:
        mine = sum(holding.pss_bytes for pid, (_, holding) in found.by_pid.items() if whose.get(pid) == name)
        bench.emit("service_pss_bytes", mine, "bytes", **{SERVICE: name})
    for role, value in found.pss_by_role().items():
        bench.emit("app_role_pss_bytes", value, "bytes", role=role)
    bench.emit("app_uss_bytes", found.uss_bytes, "bytes")
    bench.emit("app_netns_count", found.netns, "")
