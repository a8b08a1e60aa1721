"""`lab fleet` on hosts that are made of namespaces here, each with its own sshd: one is killed in mid-run, one has
another key than it had, and of one there is nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from ssh_hosts import SshHost, ssh_hosts

pytest.importorskip("ansible_runner")
pytestmark = [pytest.mark.engine("process"), pytest.mark.beyond_engine, pytest.mark.alone]

NAMES = ("anna", "berta", "carla", "dora")
NOBODY = "elsa"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Mapping[str, SshHost]]]:
    place = tmp_path_factory.mktemp("fleet") / "hosts"
    with ssh_hosts(place, NAMES) as (inventory, hosts):
        known = place / "known_hosts"
        lines = known.read_text().splitlines()
        keys = [line.split()[2] for line in lines]
        known.write_text("\n".join([*lines[:3], lines[3].replace(keys[3], keys[0])]) + "\n")
        text = inventory.read_text()
        inventory.write_text(f"{text}    {NOBODY}: {{ansible_port: 1}}\n")
        yield inventory, hosts


def fleet(inventory: Path, *words: str) -> subprocess.Popen[str]:
    store = ["--store", str(inventory.parent / "home.db")] if words[0] in ("run", "collect") else []
    command = [str(Path(sys.executable).parent / "lab"), "fleet", "-i", str(inventory), words[0], *store, "--json"]
    return subprocess.Popen(
        [*command, *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )


def test_a_job_goes_on_where_one_host_dies_and_others_were_never_there(
    made: tuple[Path, Mapping[str, SshHost]],
) -> None:
    inventory, hosts = made
    options = ("--every", "1s", "--patience", "3s")
    job = fleet(inventory, "run", *options, "boot", "-t", "process,oci", "--rounds", "6", "--warmup", "0")
    assert job.stderr is not None
    said = []
    for line in job.stderr:
        said.append(line)
        if line == "anna: running\n":
            hosts["anna"].kill()
    assert job.stdout is not None
    told = {one["host"]: one for one in json.loads(job.stdout.read())}
    assert job.wait(120) == 1
    assert {host: one["state"] for host, one in told.items()} == {
        "anna": "out of touch",
        "berta": "done",
        "carla": "done",
        "dora": "away",
        NOBODY: "away",
    }, "".join(said)
    assert "verification failed" in told["dora"]["why"] or "IDENTIFICATION" in told["dora"]["why"]
    assert "refused" in told[NOBODY]["why"]
    listed = subprocess.run(
        [str(Path(sys.executable).parent / "lab"), "runs", "--json", "--store", str(inventory.parent / "home.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    runs = json.loads(listed.stdout)
    assert {run["id"] for run in runs} == {told["berta"]["run"], told["carla"]["run"]}
    assert {run["host"]["name"] for run in runs} == {"berta", "carla"}
    assert len({run["host"]["id"] for run in runs}) == 2, "each is a machine of its own"
    for name in ("berta", "carla"):
        assert not list((hosts[name].place / "root/.local/state/stratalab/fleet").iterdir()), "it is in the store"


def test_what_a_killed_host_left_is_told_of_and_cleaned(made: tuple[Path, Mapping[str, SshHost]]) -> None:
    inventory, hosts = made
    left = hosts["anna"].place / "root/.local/state/stratalab/fleet"
    assert list(left.iterdir())
    hosts["anna"].start()
    collected = fleet(inventory, "collect", "--json")
    out, _ = collected.communicate(timeout=120)
    told = {one["host"]: one for one in json.loads(out)}
    assert (told["anna"]["state"], collected.returncode) == ("lost", 1)
    assert not list(left.iterdir())
