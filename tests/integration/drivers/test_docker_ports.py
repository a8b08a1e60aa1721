"""A lab whose network is not the Docker engine's: it says so before the first launch, and believes nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.engine("docker"),
    pytest.mark.alone,  # `lab run` waits while another lab's instances are there
    pytest.mark.beyond_engine,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces"),
]

WHY = "publishes ports in another network namespace"


def boot_in(namespaces: list[str], tmp_path: Path, image: str = "") -> dict[str, object]:
    """The record of a run of `docker` and `process` in namespaces of its own."""
    lab = [sys.executable, "-m", "lab", "run", "boot", "-t", "docker,process", "--rounds", "1", "--warmup", "0"]
    lab += ["--json", "--store", str(tmp_path / "lab.db"), "--timeout", "20s"]
    done = subprocess.run(
        ["unshare", *namespaces, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *lab],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr and done.stdout, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "namespaces",
    [["--net"], ["--net", "--uts", "--pid", "--fork", "--mount-proc"]],
    ids=["proven by the daemon's namespace", "proven by a port that is tried, as from within a container"],
)
def test_ports_in_another_network_are_told_before_the_first_launch(namespaces: list[str], tmp_path: Path) -> None:
    record = boot_in(namespaces, tmp_path)
    docker, process = record["targets"]  # type: ignore[misc]
    assert docker["outcome"] != "ok" and WHY in docker["reason"] and "--network host" in docker["remedy"]
    assert process["outcome"] == "ok"
    assert {one["target"] for one in record["samples"]} == {"process"}  # type: ignore[attr-defined]


def test_a_wrong_address_is_named_with_who_named_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "run", "boot", "-t", "docker", "--dry-run", "--store", str(tmp_path / "lab.db")],
        env={**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = " ".join(done.stderr.split())
    assert "no Docker engine answers at unix:///nowhere/docker.sock, which DOCKER_HOST names" in said
    assert said.count("no Docker engine answers") == 1
