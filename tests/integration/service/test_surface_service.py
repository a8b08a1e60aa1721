"""What the service tells of what it shares and can touch: whole, each probe within its limit, as whom it is asked."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from service_process import started

from lab.host.capabilities import names
from lab.service.build import build, build_service

NONCE = "5eed0000000000000000000000000005"
WAIT_S = 60.0
PROBES = {
    "self": {
        *("kernel", "namespaces", "namespaces_of_first", "processes", "status", "id_maps", "security_module"),
        "cgroups",
    },
    "places": {"devices", "mounts"},
    "paths": {"reach", "proc", "sys"},
    "kernel": {"kallsyms", "kernel_log", "kcore", "settings", "user_namespace", "bpf"},
}


class Service:
    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def get(self, query: str, *, nonce: str = NONCE) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.port}/surface/facts?{query}"
        answer = httpx.get(url, headers={"X-Lab-Nonce": nonce}, timeout=WAIT_S, trust_env=False)
        return answer.status_code, answer.json()

    def wait_for_no_children(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while left := psutil.Process(self.process.pid).children(recursive=True):
            assert time.monotonic() < deadline, left
            time.sleep(0.01)


@contextlib.contextmanager
def start(binary: Path) -> Iterator[Service]:
    with started(binary, nonce=NONCE) as (process, port):
        yield Service(process, port)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def service(programs: Path) -> Iterator[Service]:
    with start(build_service(programs)) as started:
        yield started


@pytest.fixture(scope="module")
def told(service: Service) -> dict[str, Any]:
    """All groups as the service tells them, with the privileges that it has."""
    return {group: service.get(f"group={group}")[1] for group in PROBES}


def test_every_probe_tells_something(service: Service, told: dict[str, Any]) -> None:
    assert {group: set(found) for group, found in told.items()} == PROBES
    assert all(isinstance(found, dict) for group in told.values() for found in group.values())
    service.wait_for_no_children()


def test_it_tells_of_itself_what_proc_does(service: Service, told: dict[str, Any]) -> None:
    own = told["self"]
    process = Path(f"/proc/{service.process.pid}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    assert own["kernel"]["release"] == os.uname().release
    assert own["kernel"]["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for kind, link in own["namespaces"].items():
        if not kind.endswith("_for_children"):
            assert link == str((process / "ns" / kind).readlink())
    for key in ("Uid", "Gid", "CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"):
        assert own["status"][key] == status[key].strip()
    # All but the service, the one that works for the answer, and the probe itself.
    assert own["processes"]["seen"] - own["processes"]["others"] == 3
    assert own["processes"]["others"] > 1  # this test, and who started it


def test_a_user_namespace_and_its_power_are_as_unshare_finds_them(told: dict[str, Any]) -> None:
    found = told["kernel"]["user_namespace"]
    for key, flags in (("unshare", ["--user"]), ("use", ["--user", "--uts"])):
        ended = subprocess.run(["unshare", *flags, "true"], capture_output=True, timeout=WAIT_S, check=False)
        assert (found[key] == 0) == (ended.returncode == 0), (found, ended.stderr)


def test_it_lists_every_device_and_mount(told: dict[str, Any]) -> None:
    devices = told["places"]["devices"]
    listed = {name: (kind, may) for name, kind, may in devices["listed"]}
    assert listed["null"] == ("c", "rw")
    assert devices["seen"] == len(listed)
    mounts = {mount[0]: mount for mount in told["places"]["mounts"]["listed"]}
    here = {
        line.split()[4]: line.split(" - ")[1].split()[0]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    }
    assert mounts["/proc"][1] == "proc" == here["/proc"]
    assert mounts["/"][1] == here["/"]
    assert {mount[2] for mount in mounts.values()} <= {"ro", "rw"}
    assert {mount[3] for mount in mounts.values()} <= {"shared", "slave", "private", "unbindable"}


def test_what_it_may_write_agrees_with_access(told: dict[str, Any]) -> None:
    found = told["paths"]
    named = {path for area in ("proc", "sys") for path in found[area]["named"]}
    assert all(os.access(path, os.W_OK) for path in named if Path(path).exists())
    assert found["proc"]["entries"] > found["proc"]["writable"]
    for path, may in found["reach"].items():
        if may == "absent":
            assert not Path(path).exists()
        elif may != "hidden":
            assert ("r" in may) == os.access(path, os.R_OK), path


def test_without_privileges_it_looks_as_nobody(service: Service) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to have privileges to drop")
    status, found = service.get("group=self&drop=1")
    assert status == 200
    assert found["status"]["Uid"].split() == ["65534"] * 4
    assert names(found["status"]["CapEff"]) == names(found["status"]["CapPrm"]) == []
    assert found["status"]["Groups"].strip() == ""
    _, writable = service.get("group=paths&drop=1")
    assert writable["reach"]["/proc/sys/vm/overcommit_memory"] == "r"
    # And the service itself has kept what it had.
    assert service.get("group=self")[1]["status"]["Uid"].split() == ["0"] * 4


def test_nobody_is_told_without_the_nonce_and_nothing_without_a_group(service: Service) -> None:
    assert service.get("group=self", nonce="wrong")[0] == 403
    for query in ("", "group=", "group=nothing", "drop=1", "group=self&drop=0", "group=self&drop=2"):
        assert service.get(query)[0] == 400, query


def test_a_probe_that_hangs_is_told_so_and_the_others_are_there(programs: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"  # opening it waits for a writer, who never comes
    os.mkfifo(pipe)
    flags = (f'-DKALLSYMS_PATH="{pipe}"', "-DPROBE_LIMIT_MS=700")
    with start(build("service", programs, flags=flags)) as hanging:
        status, found = hanging.get("group=kernel")
        assert status == 200
        assert found["kallsyms"] == "timed out"
        assert set(found) == PROBES["kernel"]
        assert isinstance(found["bpf"], dict)
        hanging.wait_for_no_children()


def test_a_probe_that_never_got_its_turn_is_told_so(programs: Path) -> None:
    with start(build("service", programs, flags=("-DBUDGET_MS=0",))) as late:
        status, found = late.get("group=kernel")
    assert (status, set(found.values())) == (200, {"not tried"})
