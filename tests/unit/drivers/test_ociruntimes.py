"""What is known of OCI runtimes, and which of a host's processes are a sandbox's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from drivers import ociruntimes
from drivers.docker.variants import VARIANTS, require_runtime
from drivers.oci import runtime as bare
from drivers.ociruntimes import gvisor, sandbox
from lab.errors import DriverUnavailable
from lab.features import Role
from lab.host.procs import Entry, Process
from lab.host.programs import Ran

ID = "3e691d610ef4833446e0430dec4e86469dcae0e64b3d74966cf96aa8cd19504d"
BUNDLE = f"--bundle=/run/containerd/io.containerd.runtime.v2.task/moby/{ID}"
SHIM, SENTRY, GOFER, STUB, OTHER, CLEANS, SHELL = 10, 11, 12, 13, 14, 15, 16
ARGV: dict[int, list[str]] = {
    SHIM: ["/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", ID],
    SENTRY: ["runsc-sandbox", "--root=/x", "boot", BUNDLE, ID],
    GOFER: ["runsc-gofer", "--root=/x", "gofer", BUNDLE],
    STUB: [],
    OTHER: ["runsc-sandbox", "boot", ID.replace("3e", "4e")],
    CLEANS: ["/usr/bin/containerd-shim-runc-v2", "-id", ID, "delete"],
    SHELL: ["docker", "logs", ID],
}


def entry(pid: int, parent: int = 1) -> Entry:
    return Entry(Process(1, pid), parent, pid, "exe")


def table() -> dict[int, Entry]:
    """As on a host: the sentry and the gofer are nobody's children, the stub is the sentry's."""
    return {pid: entry(pid, SENTRY if pid == STUB else 1) for pid in ARGV}


def argv(pid: int) -> Sequence[str]:
    return ARGV[pid]


def pids(found: dict[Process, Role]) -> dict[int, Role]:
    return {process.pid: role for process, role in found.items()}


def test_a_detached_sandbox_is_found_by_its_containers_id_and_nothing_else_is() -> None:
    found = pids(sandbox.bearing(ID, table(), argv))
    assert found == {SHIM: Role.SHIM, SENTRY: Role.VMM, GOFER: Role.HELPER}


def test_an_id_that_is_no_containers_finds_nothing() -> None:
    assert sandbox.bearing("", table(), argv) == {} == sandbox.bearing("3e", table(), argv)


def test_what_runs_the_services_code_below_a_sentry_is_that_kernels() -> None:
    found = pids(sandbox.roles([entry(SENTRY), entry(GOFER), entry(STUB, SENTRY)], argv))
    assert found == {SENTRY: Role.VMM, GOFER: Role.HELPER, STUB: Role.VMM}


def test_a_service_that_has_cleared_its_command_line_stays_the_service() -> None:
    assert pids(sandbox.roles([entry(SHIM), entry(STUB, SHIM)], argv)) == {SHIM: Role.SHIM, STUB: Role.SERVICE}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("/usr/bin/qemu-system-x86_64", Role.VMM),
        ("/opt/kata/bin/cloud-hypervisor", Role.VMM),
        ("/opt/kata/libexec/virtiofsd", Role.HELPER),
        ("/usr/bin/containerd-shim-kata-v2", Role.SHIM),
        ("/service", Role.SERVICE),
    ],
)
def test_katas_guest_is_in_its_vmm_and_the_daemon_of_its_files(name: str, role: Role) -> None:
    assert sandbox.role_of([name, "-name", f"sandbox-{ID}"]) is role


def test_what_a_failed_start_leaves_is_ended_though_it_forks() -> None:
    code = "import os, time; os.fork(); time.sleep(60)"
    with subprocess.Popen(["runsc-sandbox", "-c", code, "boot", ID], executable=sys.executable) as left:
        assert sandbox.end_leaked(ID) == []
        assert left.wait(10) == -signal.SIGKILL
    assert sandbox.end_leaked(ID) == []


def test_a_runtime_is_known_by_whatever_name_an_engine_has_for_it() -> None:
    assert ociruntimes.isolation_of("runsc") == ociruntimes.isolation_of("runsc-kvm") == "user-space kernel (gVisor)"
    assert ociruntimes.isolation_of("io.containerd.kata.v2").startswith("virtual machine")
    assert ociruntimes.isolation_of("crun") == "namespaces (crun)"
    assert not ociruntimes.has_kernel("runc") and ociruntimes.has_kernel("kata-qemu")


def test_a_runtime_that_docker_does_not_know_is_told_with_the_lines_that_add_it() -> None:
    told = {"Runtimes": {"runc": {"path": "runc"}}}
    with pytest.raises(DriverUnavailable, match="no OCI runtime 'kata'; it lists runc") as raised:
        require_runtime("kata", told)
    said = raised.value.resolution
    line = said[said.index("{") : said.rindex("}") + 1]
    assert json.loads(line) == {"runtimes": {"kata": {"runtimeType": "io.containerd.kata.v2"}}}
    assert json.loads(ociruntimes.docker_entry("runsc"))["runtimes"]["runsc"]["path"].endswith("/runsc")
    require_runtime("runc", told)


@pytest.mark.parametrize("name", ["crun", "youki", "runsc", "kata"])
def test_dockers_named_runtimes_are_asked_for_by_name(name: str) -> None:
    assert VARIANTS[name].runtime == name and VARIANTS[name].network == "bridge"


def test_a_bare_runtime_that_is_missing_is_told_with_how_it_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DriverUnavailable, match="there is no OCI runtime 'youki'") as raised:
        bare.find("youki")
    assert "youki-dev.github.io" in raised.value.resolution


FLAGS = """  -platform string
    \tspecifies which platform to use: systrap (default), ptrace, kvm. (default "systrap")
  -platform_device_path string
    \tpath to a platform-specific device file (default "")
"""


def test_gvisors_platform_is_the_one_that_it_was_given_or_else_its_default() -> None:
    assert gvisor.platform(["--debug", "--platform=kvm"], FLAGS) == "kvm"
    assert gvisor.platform([], FLAGS) == "systrap"
    assert gvisor.platform([], "") == "unknown"


def test_another_runtime_has_no_facts_of_gvisors() -> None:
    assert gvisor.facts("runc", "/usr/sbin/runc") == {}
    assert gvisor.facts("runsc", "/nonexistent/runsc")["platform"] == "unknown"


def test_gvisor_without_a_daemon_has_the_hosts_network_and_is_asked_for_its_own_pids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str], **_: object) -> Ran:
        asked.append(argv)
        return Ran(0)

    monkeypatch.setattr(bare.programs, "run", run)
    container = bare.Container("lab-1", tmp_path)
    for name in ("runsc", "runc"):
        runtime = bare.Runtime(Path("/opt") / name)
        runtime.exec(container, ["/service"], timeout_s=1, on_timeout=lambda: None)
        runtime.start(container)
    of_gvisor, of_runc = asked[:2], asked[2:]
    assert all("--network=host" in argv for argv in of_gvisor) and "--internal-pid-file" in of_gvisor[0]
    assert not any("--network=host" in argv for argv in of_runc) and "--pid-file" in of_runc[0]
