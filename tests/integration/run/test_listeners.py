"""During a run nothing of the lab's listens beyond loopback."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.engine("process"), pytest.mark.engine("docker"), pytest.mark.engine("libvirt")]

TARGETS = "process,docker,docker:host,docker:none,libvirt:microvm,libvirt:q35"


def _listening() -> set[tuple[str, int]]:
    """Every listening TCP and bound UDP socket of this network namespace."""
    found = set()
    for connection in psutil.net_connections("inet"):
        unconnected_udp = connection.type == 2 and not connection.raddr
        if connection.status == psutil.CONN_LISTEN or unconnected_udp:
            found.add((connection.laddr.ip, connection.laddr.port))
    return found


def test_all_listeners_of_a_run_are_on_loopback(tmp_path: Path) -> None:
    before = _listening()
    command = [
        sys.executable,
        "-c",
        "import lab.cli.main; lab.cli.main.main()",
        "run",
        "boot",
        "-t",
        TARGETS,
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
        time.sleep(0.03)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 0, errors
    assert len(seen) >= 6, f"the test saw too little to tell: {seen}"
    beyond = [(ip, port) for ip, port in seen if not ipaddress.ip_address(ip).is_loopback]
    assert not beyond, f"listening beyond loopback: {beyond}"
