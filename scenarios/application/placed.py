"""What each service is told of the others: the same on every platform, but for what the addresses are there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lab.driver import Driver
from lab.errors import Unsupported
from lab.features import FindsPeers
from lab.spec import Endpoint, Ready, Restart, Spec
from scenarios.application.described import Application, Service, variable_of
from scenarios.application.interpolation import filled

PEERS = "app"
"""The network of an application's services, on platforms that make such."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service is found by the others."""

    host: str
    port: int


def spec_of(service: Service, base: Spec, *, restart: Restart = Restart.DEFAULT) -> Spec:
    """The spec of `service` as it was described, with the labels of `base` and what only that says."""
    spec = replace(
        base,
        image=service.image,
        port=service.port,
        ready=service.ready,
        ready_status=service.ready_status,
        command=service.command,
        environment=service.environment,
        cpus=service.cpus or base.cpus,
        memory_bytes=service.memory_bytes,
        peers=PEERS,
        alias=service.name,
        restart=restart,
    )
    path = service.ready_path or ("/clock" if spec.builtin else "/")
    return replace(spec, ready_path=path if service.ready is Ready.HTTP else base.ready_path)


def placed(
    application: Application, base: Spec, driver: Driver, ports: Mapping[str, int], *, restart: Restart
) -> dict[str, Spec]:
    """The specs as they are launched by `driver`, where each service gets that one of this host's `ports`. Raises
    Unsupported for a driver whose instances cannot be told of one another, or whose names for them a service needs and
    the platform has none; BadInput for a variable that tells of no service."""
    if not isinstance(driver, FindsPeers):
        raise Unsupported(
            f"{driver.name} does not tell its instances where others will be", resolution="leave this target out"
        )
    specs = {name: spec_of(one, base, restart=restart) for name, one in application.services.items()}
    found = {
        name: Address(*driver.peer_address(spec, Endpoint("127.0.0.1", ports[name]))) for name, spec in specs.items()
    }
    return {name: _told(application, specs[name], name, found) for name in specs}


def _told(application: Application, spec: Spec, name: str, found: Mapping[str, Address]) -> Spec:
    others = {other: address for other, address in found.items() if other != name}
    values = {key: value for other, address in others.items() for key, value in _variables(other, address).items()}
    service = application.services[name]
    environment = {key: value for other in service.calls for key, value in _variables(other, others[other]).items()}
    for key, text in service.environment.items():
        where = f"services.{name}.environment.{key}"
        environment[key] = _addressed(filled(text, values, where=where), application, others, where=where)
    command = spec.command
    if command is not None:
        where = f"services.{name}.command"
        command = tuple(
            _addressed(filled(word, values, where=where), application, others, where=where) for word in command
        )
    return replace(spec, environment=environment, command=command)


def _variables(service: str, address: Address) -> dict[str, str]:
    start = variable_of(service)
    return {f"{start}_HOST": address.host, f"{start}_PORT": str(address.port)}


def _addressed(text: str, application: Application, others: Mapping[str, Address], *, where: str) -> str:
    """`text` with the address of each service that it calls by its name and port, where the platform has no names. A
    name that is left alone could not be told: what it means there is the address of this host, at another port."""
    for name, address in others.items():
        if address.host == name:
            continue
        port = application.services[name].port
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}:{port}(?!\d)", f"{address.host}:{address.port}", text)
        if re.fullmatch(rf"(?:.*(?://|@))?{re.escape(name)}(?:[:/].*)?", text, re.DOTALL):
            raise Unsupported(
                f"{where}: '{name}' stands there as a host, and here services have no names for one another",
                resolution=f"write {name}:{port}, or ${{{variable_of(name)}_HOST}} and ${{{variable_of(name)}_PORT}}",
            )
    return text
