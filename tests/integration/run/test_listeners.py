"""During a run nothing of the lab's listens beyond loopback."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.engine("process"), pytest.mark.engine("docker"), pytest.mark.engine("libvirt")]

RUNS = [
    pytest.param("boot", "docker,docker:host,docker:none,libvirt:microvm,libvirt:q35", 4, id="engines"),
    pytest.param("memory", "process", 1, id="process"),
]
"""Each with how many ports must be seen: docker:none listens in a network of its own, and a process that boots and is
stopped at once listens for less than two looks are apart."""


_STATE = {"tcp": "0A", "udp": "07"}
"""Listening, and unconnected (include/net/tcp_states.h)."""


def _listening() -> set[tuple[str, int]]:
    """Every listening TCP and unconnected UDP socket of this network namespace (proc_net(5)), read in a millisecond:
    a look through every process's files would miss those that live for less."""
    found = set()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            local, state = (line.split()[at] for at in (1, 3))
            if state == _STATE[name[:3]]:
                address, port = local.split(":")
                words = [
                    bytes.fromhex(address[at : at + 8])[:: -1 if sys.byteorder == "little" else 1]
                    for at in range(0, len(address), 8)
                ]
                found.add((str(ipaddress.ip_address(b"".join(words))), int(port, 16)))
    return found


def test_a_listener_is_seen_with_its_address() -> None:
    with socket.socket() as one, socket.socket(socket.AF_INET6) as six, socket.socket(type=socket.SOCK_DGRAM) as udp:
        one.bind(("127.0.0.1", 0))
        six.bind(("::1", 0))
        udp.bind(("127.0.0.1", 0))
        one.listen()
        six.listen()
        assert {each.getsockname()[:2] for each in (one, six, udp)} <= _listening()


@pytest.mark.parametrize(("scenario", "targets", "least"), RUNS)
def test_all_listeners_of_a_run_are_on_loopback(scenario: str, targets: str, least: int, tmp_path: Path) -> None:
    before = _listening()
    command = [
        sys.executable,
        "-c",
        "import lab.cli.main; lab.cli.main.main()",
        "run",
        scenario,
        "-t",
        targets,
        "--rounds",
        "1",
    ]
    run = subprocess.Popen(
        [*command, "--warmup", "0", "--store", str(tmp_path / "lab.db")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ,
        text=True,
    )
    seen: set[tuple[str, int]] = set()
    deadline = time.monotonic() + 300
    while run.poll() is None and time.monotonic() < deadline:
        seen |= _listening() - before
        time.sleep(0.002)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 0, errors
    assert len(seen) >= least, f"the test saw too little to tell: {seen}"
    beyond = [(ip, port) for ip, port in seen if not ipaddress.ip_address(ip).is_loopback]
    assert not beyond, f"listening beyond loopback: {beyond}"
