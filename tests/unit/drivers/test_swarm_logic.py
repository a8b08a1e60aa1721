"""What the Swarm driver makes of what an engine says, without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drivers.swarm import SwarmDriver
from drivers.swarm.cluster import require_usable, routing_mesh
from drivers.swarm.task import require_hope
from lab.driver import Context
from lab.errors import DriverUnavailable, LaunchError
from lab.spec import Endpoint


def _told(state: str, *, manager: bool = True, live_restore: bool = False) -> dict[str, Any]:
    swarm = {"LocalNodeState": state, "ControlAvailable": manager, "NodeID": "n1", "Error": ""}
    return {"Swarm": swarm, "LiveRestoreEnabled": live_restore}


@pytest.mark.parametrize(
    "told", [{}, _told("inactive", manager=False), _told("active"), _told("active", live_restore=True)]
)
def test_an_engine_that_manages_a_swarm_or_can_begin_one_is_usable(told: dict[str, Any]) -> None:
    require_usable(told)


@pytest.mark.parametrize(
    ("told", "brief", "remedy"),
    [
        (_told("active", manager=False), "worker", "docker node promote n1"),
        (_told("inactive", manager=False, live_restore=True), "live-restore", "daemon.json"),
        (_told("locked", manager=False), "is locked", "docker swarm unlock"),
        (_told("pending", manager=False), "not joined", "docker swarm leave"),
        (_told("error", manager=False), "in error", "docker swarm leave"),
    ],
)
def test_any_other_is_unavailable_with_its_remedy(told: dict[str, Any], brief: str, remedy: str) -> None:
    with pytest.raises(DriverUnavailable, match=brief) as raised:
        require_usable(told)
    assert remedy in raised.value.resolution


@pytest.mark.parametrize(
    ("module", "listed", "words"),
    [(False, False, "no IPVS"), (True, False, "every address"), (False, True, "every address")],
)
def test_the_routing_mesh_is_told_by_what_the_kernel_has(
    tmp_path: Path, module: bool, listed: bool, words: str
) -> None:
    proc, modules = tmp_path / "proc", tmp_path / "modules"
    (proc / "sys/kernel").mkdir(parents=True)
    (proc / "net").mkdir()
    (proc / "sys/kernel/osrelease").write_text("6.1.0-test\n")
    if module:
        place = modules / "6.1.0-test/kernel/net/netfilter/ipvs"
        place.mkdir(parents=True)
        (place / "ip_vs.ko.xz").touch()
    if listed:
        (proc / "net/ip_vs").touch()
    assert words in routing_mesh(modules, proc)


@pytest.mark.parametrize("state", ["failed", "rejected", "complete", "shutdown", "orphaned", "remove"])
def test_a_task_that_ended_gives_the_launch_up_in_swarms_words(state: str) -> None:
    with pytest.raises(LaunchError, match="No such image: x y") as raised:
        require_hope({"State": state, "Err": "No such image:\n x   y"}, 0.1)
    assert "\n" not in raised.value.brief


def test_a_task_without_a_place_is_waited_for_and_then_given_up() -> None:
    status = {"State": "pending", "Err": "no suitable node (1 node not available)"}
    require_hope(status, 1.0)
    with pytest.raises(LaunchError, match="no suitable node"):
        require_hope(status, 11.0)


@pytest.mark.parametrize(
    "state", ["new", "allocated", "pending", "assigned", "accepted", "preparing", "starting", "running"]
)
def test_a_task_on_its_way_is_waited_for(state: str) -> None:
    require_hope({"State": state, "Message": "started"}, 59.0)


def _inspected(ports: dict[str, Any], addresses: dict[str, Any]) -> dict[str, Any]:
    return {"NetworkSettings": {"Ports": ports, "Networks": addresses}, "Config": {"Labels": {"lab.port": "8080"}}}


@pytest.mark.parametrize(
    ("inspected", "endpoint"),
    [
        (_inspected({}, {"bridge": {"IPAddress": "172.17.0.5"}}), Endpoint("172.17.0.5", 8080)),
        (_inspected({}, {"bridge": {"IPAddress": ""}}), None),
        (_inspected({}, {}), None),
        (
            _inspected(
                {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "32768"}]}, {"bridge": {"IPAddress": "172.17.0.5"}}
            ),
            Endpoint("127.0.0.1", 32768),
        ),
        (
            # A port that listens on every address is not what the lab asked for: it is left alone.
            _inspected({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}, {"bridge": {"IPAddress": "172.17.0.5"}}),  # noqa: S104
            Endpoint("172.17.0.5", 8080),
        ),
        ({"NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.5"}}}, "Config": {}}, None),
    ],
)
def test_a_task_answers_at_its_port_on_loopback_or_else_at_its_address(
    tmp_path: Path, inspected: dict[str, Any], endpoint: Endpoint | None
) -> None:
    assert SwarmDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path))._address_of(inspected) == endpoint
