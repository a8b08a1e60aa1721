"""What Podman is asked for, what is concluded from what it tells, and its errors as the lab's."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import podman.errors
import pytest
import requests

from drivers.dockerapi.client import is_podman
from drivers.podman import PodmanDriver, processes, request, service
from drivers.podman.container import Engine
from drivers.podman.errors import refusal, translated
from drivers.podman.processes import Known
from lab.errors import DriverError, DriverUnavailable, LaunchError
from lab.features import Role
from lab.host.procs import Entry, Process
from lab.spec import Endpoint, Restart, Spec

ENDPOINT = Endpoint("127.0.0.1", 8123)
ALL = frozenset({"memory", "cpu", "cpuset", "pids"})
ID = "3e691d610ef4833446e0430dec4e86469dcae0e64b3d74966cf96aa8cd19504d"


def told(**changes: Any) -> dict[str, Any]:
    """As GET /info of Podman 4.3, as far as it is looked at."""
    host = {"cgroupVersion": "v2", "cgroupManager": "systemd", "cgroupControllers": sorted(ALL), "security": {}}
    return {"host": host | changes}


def body(spec: Spec, *, controllers: frozenset[str] = ALL, rootless: bool = False) -> dict[str, Any]:
    return request.body(
        spec,
        "image",
        ENDPOINT,
        controllers=controllers,
        rlimits={"nofile": (1024, 4096), "nproc": (-1, -1)},
        rootless=rootless,
        scratch=request.scratch_mount(spec),
    )


def test_a_spec_becomes_what_podman_makes_of_it() -> None:
    spec = Spec(cpus=0.5, pids=7, cpuset=(1,), labels={"lab.run": "r"}, restart=Restart.BEST).for_launch()
    made = body(spec)
    assert made["labels"] == dict(spec.labels) and made["env"]["LAB_NONCE"] == spec.nonce
    assert made["portmappings"] == [
        {"container_port": 8080, "host_port": 8123, "host_ip": "127.0.0.1", "protocol": "tcp"}
    ]
    limits = made["resource_limits"]
    assert limits["memory"] == {"limit": spec.memory_bytes, "swap": spec.memory_bytes}
    assert limits["cpu"] == {"quota": 50_000, "period": 100_000, "cpus": "1"} and limits["pids"] == {"limit": 7}
    assert made["r_limits"][1] == {"type": "nproc", "soft": 2**64 - 1, "hard": 2**64 - 1}
    assert made["restart_policy"] == "always" and "privileged" not in made
    assert f"size={spec.scratch_bytes}" in made["mounts"][0]["options"]
    assert "command" not in made and body(Spec(command=("ask",)))["command"] == ["ask"]


def test_no_scratch_is_little_and_not_unbounded() -> None:
    assert "size=4096" in request.scratch_mount(Spec(scratch_bytes=0))["options"]


def test_what_this_user_has_no_part_in_is_not_asked_for() -> None:
    assert body(Spec(), controllers=frozenset({"pids"}))["resource_limits"] == {"pids": {"limit": 128}}


def test_the_network_of_a_user_is_podmans_choice_and_that_of_root_never_the_hosts() -> None:
    assert "netns" not in body(Spec(), rootless=True)
    assert body(Spec())["netns"] == {"nsmode": "bridge"}


def test_limits_are_claimed_only_where_podman_sets_them() -> None:
    from drivers import podman as driver

    def limits(info: dict[str, Any]) -> dict[str, str]:
        return driver._limits(info, driver._known(info, {}))

    assert set(limits(told()).values()) == {"set by Podman"}
    user = {"security": {"rootless": True}}
    part = limits(told(**user, cgroupControllers=["memory", "pids"]))
    assert part["memory"] == "set by Podman" and part["cpus"].startswith("not set: ")
    old = told(**user, cgroupVersion="v1")
    assert all(text.startswith("not set: ") for text in limits(old).values())
    assert driver._known(old, {}) == Engine(rootless=True, controllers=frozenset(), freezes=False, rlimits={})


@pytest.mark.parametrize(
    ("host", "rootless", "network"),
    [
        ({"networkBackend": "netavark"}, False, "bridge, by netavark"),
        ({"networkBackend": "cni"}, False, "bridge, by cni"),
        ({}, False, "bridge, by CNI"),
        ({"rootlessNetworkCmd": "pasta"}, True, "pasta"),
        ({"networkBackend": "netavark"}, True, "slirp4netns"),
    ],
)
def test_what_makes_its_network_is_named(host: dict[str, str], rootless: bool, network: str) -> None:
    from drivers import podman as driver

    assert driver._network(host, rootless=rootless) == network


NETNS, MERGED = "/run/user/1000/netns/netns-5fb6", "/home/u/overlay/2feb/merged"
CONMON, SERVICE, CHILD, SLIRP, PORTS, PORTS_CHILD, FUSE, OTHERS, SHELL = range(20, 29)
ARGV: dict[int, list[str]] = {
    CONMON: ["/usr/bin/conmon", "-c", ID],
    SERVICE: ["/service"],
    CHILD: ["/service", "work"],
    SLIRP: ["/usr/bin/slirp4netns", "-c", "--netns-type=path", NETNS, "tap0"],
    PORTS: ["rootlessport"],
    PORTS_CHILD: ["rootlessport-child"],
    FUSE: ["fuse-overlayfs", "-o", "lowerdir=x", MERGED],
    OTHERS: ["/usr/bin/slirp4netns", "/run/user/1000/netns/netns-another", "tap0"],
    SHELL: ["less", NETNS],
}
PARENTS = {SERVICE: CONMON, CHILD: SERVICE, PORTS_CHILD: PORTS}


def entries() -> dict[int, Entry]:
    return {pid: Entry(Process(1, pid), PARENTS.get(pid, 1), pid, "x") for pid in ARGV}


def find(*, beside: bool, pid: int = SERVICE) -> dict[int, Role]:
    known = Known(id=ID, pid=pid, monitor=CONMON, netns=NETNS, merged=MERGED)
    found = processes.find(
        known,
        entries(),
        endpoint=ENDPOINT,
        beside=beside,
        arguments=_argv,
        listeners=lambda _: frozenset({PORTS_CHILD}),
    )
    return {process.pid: role for process, role in found.items()}


def _argv(pid: int) -> Sequence[str]:
    return ARGV[pid]


def test_conmon_is_the_shim_of_what_is_below_it() -> None:
    assert find(beside=False) == {CONMON: Role.SHIM, SERVICE: Role.SERVICE, CHILD: Role.SERVICE}


def test_a_users_container_has_a_network_and_a_file_system_of_its_own_processes() -> None:
    assert find(beside=True) == {
        CONMON: Role.SHIM,
        SERVICE: Role.SERVICE,
        CHILD: Role.SERVICE,
        SLIRP: Role.HELPER,
        PORTS: Role.PROXY,
        PORTS_CHILD: Role.PROXY,
        FUSE: Role.HELPER,
    }


def test_one_that_does_not_run_has_none() -> None:
    assert find(beside=True, pid=0) == {}


def test_what_is_looked_for_is_what_an_inspection_told() -> None:
    known = Known.of(
        {
            "Id": ID,
            "State": {"Pid": 5, "ConmonPid": 4},
            "NetworkSettings": {"SandboxKey": NETNS},
            "GraphDriver": {"Data": {"MergedDir": MERGED}},
        }
    )
    assert known == Known(id=ID, pid=5, monitor=4, netns=NETNS, merged=MERGED)
    assert Known.of({"Id": ID, "GraphDriver": None, "NetworkSettings": {}}).pid == 0


def test_refusals_say_what_mends_them() -> None:
    port = "cannot listen on the TCP port: listen tcp4 127.0.0.1:18080: bind: address already in use"
    assert refusal(port, "start it")[0] == "127.0.0.1:18080 is in use by another program"
    runtime = 'default OCI runtime "youki" not found: invalid argument'
    assert refusal(runtime, "serve")[0] == "Podman finds no OCI runtime 'youki'"
    command = 'runc create failed: exec: "/no": stat /no: no such file'
    assert refusal(command, "start it")[0].startswith('Podman could not start it: exec: "/no"')


def _classes() -> Iterator[type[Exception]]:
    for module in (podman.errors.exceptions, requests.exceptions):
        for _, found in inspect.getmembers(module, inspect.isclass):
            if issubclass(found, Exception) and not issubclass(found, Warning) and found.__module__ == module.__name__:
                yield found


@pytest.mark.parametrize("cls", list(_classes()), ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_exception_of_the_client_is_mapped(cls: type[Exception]) -> None:
    made = cls.__new__(cls)
    Exception.__init__(made, "said")
    for name in ("response", "explanation"):
        if not hasattr(made, name):
            setattr(made, name, None)
    with pytest.raises(DriverError) as raised, translated("make it"):
        raise made
    assert raised.value.brief and "\n" not in raised.value.brief


def test_a_silent_service_is_no_mistake_of_the_launch() -> None:
    with pytest.raises(DriverUnavailable, match="does not answer"), translated("ask"):
        raise ConnectionRefusedError(111, "refused")
    with pytest.raises(LaunchError), translated("start it", LaunchError):
        raise ConnectionRefusedError(111, "refused")


def test_a_missing_program_is_told_with_how_it_is_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DriverUnavailable, match="there is no 'podman'") as raised:
        service.Service(tmp_path, "")
    assert "install podman" in raised.value.resolution and not list(tmp_path.iterdir())


def test_containers_of_other_drivers_on_the_same_podman_are_not_its_own() -> None:
    from drivers import podman as driver

    assert driver._is_ours({"lab.target": "podman:crun"}) and not driver._is_ours({"lab.target": "docker"})
    assert {"", "crun", "runc"} <= set(PodmanDriver.variants()) and "" not in PodmanDriver.apart


@pytest.mark.parametrize(
    ("components", "found"),
    [([{"Name": "Podman Engine"}], True), ([{"Name": "Engine"}, {"Name": "containerd"}], False), ([], False)],
)
def test_podman_behind_dockers_api_is_told_by_its_components(components: list[dict[str, str]], found: bool) -> None:
    class Answers:
        def version(self, *, api_version: bool) -> dict[str, Any]:
            return {"Version": "4.3.1", "Components": components}

    assert is_podman(Answers()) is found  # type: ignore[arg-type]
