"""An application as its file describes it: services, who calls whom, and who is started before whom."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from lab.errors import BadInput
from lab.spec import Ready
from lab.units import MIB

MOST_SERVICES = 20
MOST_BYTES = 256 * 1024
"""Of a file that describes an application."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")  # a DNS label that Kubernetes takes for a Service (RFC 1035)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Condition(enum.StrEnum):
    """What a service waits for in another one, in Compose's words: that its engine says that it runs, or that it
    answers."""

    STARTED = "service_started"
    HEALTHY = "service_healthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service. Of the values of `environment`, and of the words of `command`, `${NAME_HOST}` and `${NAME_PORT}` are
    where the service NAME is found, and `$$` is a dollar. `calls` are told by variables of these names as well.

    `ready_path` is None where nobody said."""

    name: str
    image: str
    port: int
    memory_bytes: int = 128 * MIB
    cpus: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    command: tuple[str, ...] | None = None
    depends_on: Mapping[str, Condition] = field(default_factory=dict)
    calls: tuple[str, ...] = ()
    ready: Ready = Ready.HTTP
    ready_path: str | None = None
    ready_status: tuple[tuple[int, int], ...] = ((200, 200),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """Services by name, in an order in which each comes after those that it waits for. The first answer of `entry` that
    counts is the whole's; `left_out` says what of the file is not honoured, a line each."""

    name: str
    entry: str
    services: Mapping[str, Service]
    left_out: Sequence[str] = ()


def application(
    where: str, *, name: str, entry: str, services: Sequence[Service], left_out: Sequence[str] = ()
) -> Application:
    """Of what was read at `where`. Raises BadInput for what does not fit together, on one line."""
    by_name = {one.name: one for one in services}
    if not by_name:
        raise BadInput(f"{where} has no services", resolution="see docs/app.md")
    if len(by_name) > MOST_SERVICES:
        raise BadInput(f"{where} has {len(by_name)} services, and {MOST_SERVICES} are the most")
    for one in services:
        _require_named(where, one.name)
        for variable in one.environment:
            if not _VARIABLE.fullmatch(variable):
                raise BadInput(f"{where}: services.{one.name}.environment: '{variable}' is no variable's name")
        for what, others in (("depends_on", tuple(one.depends_on)), ("calls", one.calls)):
            for other in others:
                if other not in by_name:
                    raise BadInput(f"{where}: services.{one.name}.{what}: there is no service '{other}'")
                if other == one.name:
                    raise BadInput(f"{where}: services.{one.name}.{what}: it names itself")
    if entry not in by_name:
        raise BadInput(f"{where}: entry: there is no service '{entry}'", resolution=f"name one of {', '.join(by_name)}")
    if by_name[entry].ready is not Ready.HTTP:
        raise BadInput(
            f"{where}: services.{entry}.ready: the whole application is ready by an answer of this service, by HTTP"
        )
    _require_reached(where, entry, by_name)
    try:
        order = tuple(TopologicalSorter({name: one.depends_on for name, one in by_name.items()}).static_order())
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise BadInput(f"{where}: depends_on goes in a circle: {circle}", resolution="leave one of them out") from error
    return Application(
        name=name, entry=entry, services={name: by_name[name] for name in order}, left_out=tuple(left_out)
    )


def variable_of(service: str) -> str:
    """What the variables that tell of `service` begin with."""
    return service.upper().replace("-", "_")


def _require_named(where: str, name: str) -> None:
    if not _NAME.fullmatch(name) or name == "localhost":
        raise BadInput(
            f"{where}: services: '{name}' is no name by which every platform's DNS would know a service",
            resolution="take small letters, digits and '-', a letter first, at most 40",
        )


def _require_reached(where: str, entry: str, services: Mapping[str, Service]) -> None:
    """Where it is said who calls whom, an answer of the entry's must be able to pass through every service."""
    if not any(one.calls for one in services.values()):
        return
    reached, further = {entry}, [entry]
    while further:
        new = [other for other in services[further.pop()].calls if other not in reached]
        reached.update(new)
        further += new
    if left := [name for name in services if name not in reached]:
        raise BadInput(
            f"{where}: calls: no answer of {entry} passes through {', '.join(left)}",
            resolution="say who calls it, or leave it out",
        )
