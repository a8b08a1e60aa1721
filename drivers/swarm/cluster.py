"""The swarm that services run in: found, or made by the lab and then taken back by it.

Here an `api` is docker.APIClient, untyped because its published types leave out what concerns services.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drivers.dockerapi.errors import translated
from lab.driver import bears
from lab.errors import CleanupError, DriverError, DriverUnavailable

GATEWAY = "docker_gwbridge"
"""The bridge that every engine in a swarm has (docs.docker.com, 'Customize the docker_gwbridge'); it stays when the
engine leaves, so the lab makes it itself where there is none, with its labels."""

_INGRESS = "ingress"
_LISTEN = "127.0.0.1:2377"
_READY_TIMEOUT_S = 30.0
_BINDING = "com.docker.network.bridge.host_binding_ipv4"
_STATES = {
    "locked": ("is locked", "docker swarm unlock"),
    "pending": ("has not joined yet", "look at `docker info`, and `docker swarm leave --force` if it never does"),
    "error": ("is in error", "look at `docker info`, and `docker swarm leave --force` to be rid of it"),
}


def require_usable(told: Mapping[str, Any]) -> None:
    """Refuse an engine, of what it `told` of itself, that neither manages a swarm nor can begin one. Raises
    DriverUnavailable with the remedy."""
    swarm = told.get("Swarm") or {}
    state = swarm.get("LocalNodeState", "inactive")
    if state in _STATES:
        what, remedy = _STATES[state]
        raise DriverUnavailable(f"this engine's swarm {what}", details=swarm.get("Error", ""), resolution=remedy)
    if state == "active" and not swarm.get("ControlAvailable"):
        raise DriverUnavailable(
            "this engine is a worker in a swarm, and services are made by managers only",
            resolution=f"on a manager: docker node promote {swarm.get('NodeID', 'NODE')}",
        )
    if state == "inactive" and told.get("LiveRestoreEnabled"):
        raise DriverUnavailable(
            "this engine keeps containers alive while it restarts (live-restore), which a swarm forbids",
            resolution='set "live-restore": false in /etc/docker/daemon.json, then: sudo kill -HUP $(pidof dockerd)',
        )


def is_active(api: Any) -> bool:
    """Whether the engine manages a swarm now. Raises DriverError."""
    with translated("ask the engine what it is"):
        swarm = api.info().get("Swarm") or {}
    return swarm.get("LocalNodeState") == "active" and bool(swarm.get("ControlAvailable"))


def provide(api: Any, labels: Mapping[str, str]) -> None:
    """Begin a swarm of one node that bears `labels`, unless the engine is in one. It speaks on 127.0.0.1 only.
    Raises DriverError."""
    import docker.types

    if is_active(api):
        return
    with translated("begin a swarm"):
        if not api.networks(names=[GATEWAY]):
            options = {
                "com.docker.network.bridge.name": GATEWAY,
                "com.docker.network.bridge.enable_icc": "false",
                "com.docker.network.bridge.enable_ip_masquerade": "true",
            }
            api.create_network(GATEWAY, driver="bridge", options=options, labels=dict(labels))
        api.init_swarm(
            advertise_addr="127.0.0.1",
            data_path_addr="127.0.0.1",
            listen_addr=_LISTEN,
            swarm_spec=docker.types.SwarmSpec(api._version, labels=dict(labels)),
        )
        _await_ready(api)


def node_id(api: Any) -> str:
    """This engine's node in its swarm. Raises DriverError."""
    with translated("ask the engine what it is"):
        return str((api.info().get("Swarm") or {}).get("NodeID", ""))


def binding_address(api: Any) -> str:
    """Where the engine publishes a port for which no address is asked: `dockerd --ip`, as its default bridge tells.
    Raises DriverUnavailable where it has no such bridge."""
    import docker.errors

    with translated("inspect the default bridge", DriverUnavailable):
        try:
            options = api.inspect_network("bridge").get("Options") or {}
        except docker.errors.NotFound:
            raise DriverUnavailable(
                "this Docker engine has no default bridge, by which this host would reach a task",
                resolution='take "bridge": "none" out of /etc/docker/daemon.json, and restart dockerd',
            ) from None
    return str(options.get(_BINDING) or "0.0.0.0")  # noqa: S104  the engine's own default, told and not bound here


def routing_mesh(modules: Path = Path("/lib/modules"), proc: Path = Path("/proc")) -> str:
    """Whether this kernel could route a port of the mesh, in words; IPVS is what it needs."""
    release = (proc / "sys/kernel/osrelease").read_text().strip()
    loadable = any((modules / release).glob("kernel/net/netfilter/ipvs/ip_vs.ko*"))
    if (proc / "net/ip_vs").exists() or loadable:
        return "not used: its ports listen on every address of this host"
    return "not possible: this kernel has no IPVS"


def beyond_loopback(api: Any) -> str:
    """What a swarm that was found has listening on every address of this host, in words. Raises DriverError."""
    with translated("list networks"):
        overlays = api.networks(filters={"driver": "overlay"})
    return "udp 4789, by its overlay networks" if overlays else "nothing"


class Swarm:
    """The swarm that the lab began; `id` is its own."""

    kind = "swarm"

    def __init__(self, api: Any, identity: str, labels: Mapping[str, str]) -> None:
        self.id = identity
        self.labels = labels
        self._api = api

    def delete(self) -> None:
        """Leave it, which ends it. Raises CleanupError where somebody else uses it by now."""
        with translated("leave the swarm", CleanupError):
            if not is_active(self._api) or self._api.inspect_swarm()["ID"] != self.id:
                return
            others = _of_others(self._api, self.labels.get("lab.run"))
            nodes = len(self._api.nodes())
            if others or nodes > 1:
                raise CleanupError(
                    f"the swarm that the lab began has {nodes} nodes and what is not its own: {', '.join(others)}",
                    resolution="docker swarm leave --force, once nobody needs it",
                )
            self._api.leave_swarm(force=True)
            _until(lambda: not is_active(self._api), "the engine does not leave its swarm", CleanupError)


def found(api: Any, labels: Mapping[str, str]) -> Sequence[Swarm]:
    """The swarm, if the lab began it and it bears `labels`. Raises DriverError."""
    if not is_active(api):
        return ()
    with translated("inspect the swarm"):
        told = api.inspect_swarm()
    own = told["Spec"].get("Labels") or {}
    return [Swarm(api, told["ID"], own)] if bears(own, labels) else ()


def _of_others(api: Any, run: str | None) -> list[str]:
    """What would end with the swarm and is not the run's: services, secrets, configs and overlay networks."""
    listed = [
        *(("service", one["Spec"]) for one in api.services()),
        *(("secret", one["Spec"]) for one in api.secrets()),
        *(("config", one["Spec"]) for one in api.configs()),
        *(("network", one) for one in api.networks(filters={"driver": "overlay"}) if not one.get("Ingress")),
    ]
    return [f"{kind} {one['Name']}" for kind, one in listed if (one.get("Labels") or {}).get("lab.run") != run]


def _await_ready(api: Any) -> None:
    """Until the node takes tasks, and the mesh's network is gone: with it goes the one socket (udp 4789) that would
    listen on every address of this host, and nothing here uses the mesh."""
    import docker.errors

    removed = False

    def ready() -> bool:
        nonlocal removed
        listed = bool(api.networks(names=[_INGRESS]))
        if listed and not removed:
            try:
                api.remove_network(_INGRESS)
                removed = True
            except docker.errors.APIError as error:
                if error.status_code is None or error.status_code >= 500:  # the engine is still making it
                    return False
                raise
        nodes = api.nodes()
        return removed and not listed and bool(nodes) and nodes[0]["Status"]["State"] == "ready"

    _until(ready, "the swarm that the lab began does not get ready", DriverError)


def _until(holds: Any, brief: str, kind: type[DriverError]) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not holds():
        if time.monotonic() > deadline:
            raise kind(f"{brief} within {_READY_TIMEOUT_S:g} s", resolution="look at its log: journalctl -u docker")
        time.sleep(0.05)
