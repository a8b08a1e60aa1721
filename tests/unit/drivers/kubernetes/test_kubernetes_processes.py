"""Host processes of a pod, by cgroup, on trees of /proc made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.kubernetes.pods import processes
from lab.features import Role
from lab.host import procs
from lab.host.procs import Entry, Process

UID = "0f3c1a52-7f6c-4d7e-9d2e-3a1b5c7d9e0f"
SYSTEMD = f"kubelet-kubepods-burstable-pod{UID.replace('-', '_')}.slice"


def entry(pid: int, parent: int, name: str) -> Entry:
    return Entry(Process(started_ticks=pid, pid=pid), parent, 1, name)


def found(
    monkeypatch: pytest.MonkeyPatch,
    proc: Path,
    entries: list[Entry],
    cgroups: dict[int, str],
    argv: dict[int, list[str]],
) -> dict[int, Role]:
    for pid, text in cgroups.items():
        (proc / str(pid)).mkdir()
        (proc / str(pid) / "cgroup").write_text(text)
    monkeypatch.setattr(procs, "table", lambda: {one.process.pid: one for one in entries})
    monkeypatch.setattr(procs, "arguments", lambda pid: argv.get(pid, []))
    return {process.pid: role for process, role in processes.of_pods([UID], proc).items()}


@pytest.mark.parametrize(
    "cgroup",
    [
        f"0::/system.slice/docker-x.scope/kubelet.slice/kubelet-kubepods.slice/{SYSTEMD}/cri-containerd-c.scope\n",
        f"4:memory:/docker/x/kubelet/kubepods/burstable/pod{UID}/c\n1:name=systemd:/docker/x\n",
    ],
)
def test_a_pods_processes_and_its_shim(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cgroup: str) -> None:
    entries = [
        entry(10, 1, "containerd-shim"),
        entry(11, 10, "pause"),
        entry(12, 10, "service"),
        entry(20, 1, "containerd-shim"),
        entry(21, 20, "another"),
    ]
    cgroups = {10: "0::/system.slice/containerd.service", 11: cgroup, 12: cgroup, 21: "0::/podother"}
    roles = found(monkeypatch, tmp_path, entries, cgroups, {})
    assert roles == {10: Role.SHIM, 11: Role.HELPER, 12: Role.SERVICE}


def test_a_nodes_processes_are_all_in_its_cgroup_but_the_labs_pods_and_what_serves_it_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = "4f66ad9a"
    entries = [
        entry(5, 1, "containerd-shim"),  # Docker's, of the node
        entry(6, 1, "docker-proxy"),
        entry(7, 1, "docker-proxy"),  # of something else
        entry(8, 1, "containerd-shim"),  # of something else
        entry(10, 5, "systemd"),
        entry(11, 10, "containerd-shim"),
        entry(12, 11, "etcd"),
        entry(13, 10, "containerd-shim"),
        entry(14, 13, "pause"),
        entry(15, 13, "service"),
        entry(20, 8, "service"),
    ]
    inside = f"0::/docker/{node}"
    cgroups = dict.fromkeys((10, 11, 13), f"{inside}/init.scope") | {12: f"{inside}/kubelet/podetcd/c", 20: "0::/x"}
    cgroups |= dict.fromkeys((14, 15), f"{inside}/kubelet/kubepods/pod{UID}/c")
    proxy = ["/usr/bin/docker-proxy", "-host-port", "6443", "-container-ip"]
    argv = {6: [*proxy, "172.18.0.2"], 7: [*proxy, "172.18.0.22"]}
    for pid, text in cgroups.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(text)
    monkeypatch.setattr(procs, "table", lambda: {one.process.pid: one for one in entries})
    monkeypatch.setattr(procs, "arguments", lambda pid: argv.get(pid, []))
    assert processes.of_nodes({node: ["172.18.0.2"]}, [UID], tmp_path) == {
        5: "containerd-shim",
        6: "docker-proxy",
        10: "systemd",
        11: "containerd-shim",
        12: "etcd",
    }
    assert processes.of_nodes({}, [], tmp_path) == {}


def test_what_holds_the_namespaces_under_another_name_is_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entries = [entry(13, 1, "service"), entry(11, 1, "sleep"), entry(12, 1, "service")]
    roles = found(monkeypatch, tmp_path, entries, dict.fromkeys((11, 12, 13), f"0::/pod{UID}/c"), {})
    assert roles == {11: Role.HELPER, 12: Role.SERVICE, 13: Role.SERVICE}


def test_gvisors_sentry_is_the_pods_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entries = [entry(11, 1, "exe"), entry(12, 1, "exe")]
    argv = {11: ["runsc-gofer", "gofer"], 12: ["/usr/bin/runsc-sandbox", "boot"]}
    roles = found(monkeypatch, tmp_path, entries, dict.fromkeys((11, 12), f"0::/pod{UID}/c"), argv)
    assert roles == {11: Role.HELPER, 12: Role.VMM}


def test_a_pod_that_has_ended_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert found(monkeypatch, tmp_path, [entry(11, 1, "x")], {}, {}) == {}
