"""Whether what a Docker engine publishes is reached from here: only then is an answer on this host's port its own.

The lab may stand in a container that has the engine's socket, or in a network namespace of its own; and an engine may
have lost its bridge while it runs. Each launch would then time out, or a stranger on that port would be believed.
"""

from __future__ import annotations

import enum
import http.client
import ipaddress
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from drivers.dockerapi.client import is_podman
from drivers.dockerapi.daemon import listener
from drivers.dockerapi.errors import translated
from lab.errors import DriverUnavailable
from lab.spec import Endpoint

if TYPE_CHECKING:
    from docker import APIClient

ELSEWHERE = "this Docker engine publishes ports in another network namespace than the lab's"
RUN_THERE = "run the lab on the engine's own machine, or its container with `--network host`"
_BRIDGE = "bridge"
_PROBE_S = 10.0
_PAUSE_S = 0.05


class Ports(enum.Enum):
    """Where published ports are."""

    HERE = "this host's"
    UNPROVEN = "not known to be this host's: the run's first step is to try one"


def look(api: APIClient, told: dict[str, Any], *, local: bool, bridged: bool) -> Ports:
    """What can be found out without a launch; `told` is the engine's `info`, `bridged` whether its default bridge is
    needed. Raises DriverUnavailable where ports are proven to be elsewhere, and where the bridge is gone."""
    if is_podman(api):  # whose bridge is there only while a container is on it
        same = _same_network(api)
        if same is False:
            raise DriverUnavailable(ELSEWHERE, resolution=RUN_THERE)
        return Ports.HERE if same else Ports.UNPROVEN
    rootless = any(one == "name=rootless" for one in told.get("SecurityOptions") or ())
    bridge = _bridge(api)
    if bridged and bridge is None:
        raise DriverUnavailable(
            "this Docker engine has no default bridge",
            resolution="start dockerd without `--bridge none`, or use docker:host",
        )
    if rootless:  # its bridge is in a namespace of its own, and its ports are forwarded into the user's
        return Ports.HERE if local else Ports.UNPROVEN
    if bridge is not None and _address_is_here(bridge):
        return Ports.HERE
    same = _same_network(api)
    if same is False:
        raise DriverUnavailable(ELSEWHERE, resolution=RUN_THERE)
    if same and bridged:
        name = (bridge or {}).get("Options", {}).get("com.docker.network.bridge.name", "docker0")
        raise DriverUnavailable(
            f"the bridge {name} of this Docker engine is gone, so that no container with a port can start",
            resolution="restart the engine: sudo systemctl restart docker; or use docker:host",
        )
    return Ports.HERE if same else Ports.UNPROVEN


def require_answer(endpoint: Endpoint, nonce: str) -> None:
    """Return when the lab's own service answers at `endpoint` for the launch of `nonce`. Raises DriverUnavailable
    where within 10 s none does, or another answers."""
    deadline = time.monotonic() + _PROBE_S
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=1.0)
        try:
            connection.request("GET", "/clock", headers={"X-Lab-Nonce": nonce})
            if nonce.encode() in connection.getresponse().read(65_536):
                return
        except (OSError, http.client.HTTPException):
            pass  # nobody is there yet, or somebody else
        finally:
            connection.close()
        time.sleep(_PAUSE_S)
    raise DriverUnavailable(ELSEWHERE, resolution=RUN_THERE)


def _bridge(api: APIClient) -> dict[str, Any] | None:
    with translated("list its networks", DriverUnavailable):
        named = [one for one in api.networks(names=[_BRIDGE]) if one["Name"] == _BRIDGE]
    return named[0] if named else None


def _address_is_here(bridge: dict[str, Any]) -> bool:
    """Whether the bridge's interface, with an address in the bridge's range, is in this namespace: by name alone it
    could be another engine's. An engine that has just begun tells the range, and not yet its own address there."""
    ranges = [ipaddress.ip_network(one["Subnet"]) for one in (bridge.get("IPAM") or {}).get("Config") or ()]
    name = (bridge.get("Options") or {}).get("com.docker.network.bridge.name", "docker0")
    own = [one.address for one in psutil.net_if_addrs().get(name, ()) if one.family is socket.AF_INET]
    return any(ipaddress.ip_address(address) in network for address in own for network in ranges)


def _same_network(api: APIClient) -> bool | None:
    """Whether the engine's daemon is in the lab's network namespace; None where the kernel does not tell this user."""
    pid = listener(api)
    if not pid:  # reached by TCP or SSH, or in another PID namespace
        return None
    try:
        return Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    except OSError:
        return None
