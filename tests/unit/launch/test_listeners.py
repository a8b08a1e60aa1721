"""Who listens where is read from the kernel, and told so that a user knows what to change."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import pytest

from lab.driver import Instance
from lab.features import Role
from lab.launch.listeners import inside, listening, stranger, taken_by_a_forwarder
from lab.spec import Endpoint

IN_A_NETWORK_OF_ITS_OWN = """
import fcntl, socket, struct, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING
    fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 0x41))
kept = []
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.bind((host, int(port)))
    listener.listen()
    kept.append(listener)
print("listens", flush=True)
time.sleep(60)
"""


class Told:
    """An instance whose engine tells its processes."""

    def __init__(self, pids: Mapping[int, Role]) -> None:
        self._pids = pids

    def host_pids(self) -> Mapping[int, Role]:
        return self._pids


@pytest.fixture
def instance() -> Iterator[Callable[[Sequence[str]], Instance]]:
    """Makes an instance that listens at the given places, in a network of its own."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rn", "true"], check=False).returncode:
        pytest.skip("this user may not make a network namespace")
    made: list[subprocess.Popen[str]] = []

    def make(places: Sequence[str]) -> Instance:
        command = ["unshare", "-rn", sys.executable, "-c", IN_A_NETWORK_OF_ITS_OWN, *places]
        made.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert made[-1].stdout is not None and made[-1].stdout.readline() == "listens\n"
        return cast(Instance, Told({made[-1].pid: Role.SERVICE}))

    yield make
    for one in made:
        one.kill()
        one.communicate()


@pytest.mark.parametrize(
    "places,told",
    [
        (["127.0.0.1:8080"], "listens at 127.0.0.1:8080 alone, which nobody outside reaches: have it listen on all"),
        (["::1:8080", "127.0.0.1:8080"], "listens at 127.0.0.1:8080 and [::1]:8080 alone"),
        (["0.0.0.0:6379"], "listens at port 6379: give --port"),
        (["0.0.0.0:80", ":::443"], "listens at ports 80, 443: give --port"),
        (["127.0.0.1:9"], "nothing listens at port 8080"),
        ([], "nothing listens at port 8080"),
    ],
)
def test_why_a_port_does_not_answer(
    instance: Callable[[Sequence[str]], Instance], places: list[str], told: str
) -> None:
    assert told in inside(instance(places), 8080)


@pytest.mark.parametrize("places", [["0.0.0.0:8080"], [":::8080"], ["127.0.0.2:1", "0.0.0.0:8080"]])
def test_a_port_that_is_reached_is_no_reason(instance: Callable[[Sequence[str]], Instance], places: list[str]) -> None:
    assert inside(instance(places), 8080) == ""


@pytest.mark.parametrize("places,taken", [(["0.0.0.0:8080"], False), (["127.0.0.1:8080"], True), ([], True)])
def test_a_connection_that_nobody_inside_has_was_a_forwarders(
    instance: Callable[[Sequence[str]], Instance], places: list[str], taken: bool
) -> None:
    assert taken_by_a_forwarder(instance(places), 8080) is taken


def test_where_nobody_can_look_no_forwarder_is_blamed() -> None:
    assert not taken_by_a_forwarder(cast(Instance, Told({os.getpid(): Role.SERVICE})), 8080)
    assert not taken_by_a_forwarder(None, 8080)


def test_the_hosts_own_network_tells_nothing_of_one_instance() -> None:
    assert inside(cast(Instance, Told({os.getpid(): Role.SERVICE})), 8080) == ""
    assert inside(cast(Instance, Told({2**22: Role.SERVICE})), 8080) == "" == inside(None, 8080)


def test_addresses_of_both_families_are_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as v4, socket.create_server(("::1", 0), family=socket.AF_INET6) as v6:
        found = {(one.host, one.port) for one in listening("self")}
        assert {("127.0.0.1", v4.getsockname()[1]), ("::1", v6.getsockname()[1])} <= found


def test_who_listens_at_a_port_of_this_host_is_known_by_its_sockets() -> None:
    program = (
        "import socket, time; listener = socket.create_server(('127.0.0.1', 0)); "
        "print(listener.getsockname()[1], flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            endpoint = Endpoint("127.0.0.1", int(server.stdout.readline()))
            assert f"process {server.pid}" in stranger(endpoint, [], {})
            assert stranger(endpoint, [server.pid], {}) == ""
            assert stranger(endpoint, [], {server.pid: "daemon"}) == ""
        finally:
            server.kill()


def test_the_lab_itself_and_nobody_are_no_strangers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        endpoint = Endpoint("127.0.0.1", own.getsockname()[1])
        assert stranger(endpoint, [], {}) == ""
    assert stranger(endpoint, [], {}) == "", "what the engine leads on in the kernel has no listener here"
