"""What the host sees of the processes that run an instance, in the same words for all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from made_process import STATUS, make_process

from lab.features import Role
from lab.host import capabilities
from scenarios.surface import inside, outside


def test_from_the_host_the_one_that_runs_the_workload_is_told_alike_for_all(tmp_path: Path) -> None:
    make_process(tmp_path, "self")
    other = tmp_path / "other"
    other.mkdir()
    make_process(
        tmp_path,
        "7",
        status={**STATUS, "State": "S", "Uid": "0\t0\t0\t0"},
        exe="/usr/bin/qemu-system-x86_64",
        cgroup="4:memory:/machine/guest\n3:cpu,cpuacct:/\n0::/\n",
        namespaces={"mnt": "mnt:[9]"},
        own_root=other,
        fds=[
            "/dev/kvm",
            "/dev/pts/3",
            "socket:[4242]",
            "socket:[999]",
            "pipe:[1]",
            "anon_inode:[eventfd]",
            "/var/lib/x/6f0c1fcf-79aa-4f4f-9c0a-0123456789ab/disk.img (deleted)",
        ],
    )
    make_process(tmp_path, "11", fds=["socket:[999]"])
    (alone,) = outside.look({11: Role.SERVICE}, tmp_path)
    assert alone.files["sockets"] == "unlisted"
    make_process(tmp_path, "8", status={**STATUS, "State": "S", "Uid": "77777\t77777\t77777\t77777"})
    make_process(tmp_path, "9", status={**STATUS, "State": "Z (zombie)"})
    pids = {7: Role.VMM, 8: Role.HELPER, 9: Role.VMM, 10: Role.VMM}
    assert outside.carrier(pids) is Role.VMM
    said = outside.facts(outside.look(pids, tmp_path), Role.VMM)
    assert said == {
        "host processes": "helper, vmm",
        "its process: program": "qemu-system-x86_64",
        "its process: user": "root (0)",
        "its process: capabilities": capabilities.said(STATUS["CapEff"]),
        "its process: seccomp": "a filter (1 of them)",
        "its process: no new privileges": "yes",
        "its process: security module": "unconfined",
        "its process: namespaces shared": "cgroup, ipc, net, pid, time, user, uts",
        "its process: root": "its own",
        "its process: cgroups of its own": "cpu, cpuacct, memory",
        "its process: open devices": "kvm, pts/*",
        "its process: open files": "/var/lib/x/*/disk.img",
        "its process: open sockets": "tcp",
        "its process: open others": "eventfd, pipe",
        "helper: rights": f"77777, capabilities {capabilities.said(STATUS['CapEff'])}, seccomp a filter (1 of them), "
        "namespaces shared all",
    }


def test_what_takes_root_to_read_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_process(tmp_path, "self")
    make_process(tmp_path, "7")

    def refuse(*_: Any) -> Any:
        raise PermissionError

    for name in ("_open_files", "_shared", "profile"):
        monkeypatch.setattr(outside, name, refuse)
    said = outside.facts(outside.look({7: Role.SERVICE}, tmp_path), Role.SERVICE)
    refused = {probe.partition(": ")[2] for probe, words in said.items() if words == outside.REFUSED}
    assert refused == {
        *("security module", "namespaces shared", "open devices", "open files", "open sockets", "open others")
    }
    assert said["its process: user"] == "root (0)"


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("libvirt-6f0c1fcf-79aa-4f4f-9c0a-0123456789ab (enforce)\n", "libvirt* (enforce)"),  # libvirt makes one a guest
        ("docker-default (enforce)\n", "docker-default (enforce)"),
    ],
)
def test_from_the_host_a_profile_has_no_id_of_one_launch(tmp_path: Path, label: str, said: str) -> None:
    make_process(tmp_path, "self")
    (make_process(tmp_path, "7") / "attr/current").write_text(label)
    (seen,) = outside.look({7: Role.VMM}, tmp_path)
    assert seen.profile == said


def test_of_one_that_has_just_ended_nothing_is_made_up(tmp_path: Path) -> None:
    make_process(tmp_path, "self")
    process = make_process(tmp_path, "7")
    for kind in inside.NAMESPACES:
        (process / "ns" / kind).unlink()
    for name in ("exe", "root", "cgroup", "attr/current"):
        (process / name).unlink()
    (seen,) = outside.look({7: Role.SERVICE}, tmp_path)
    assert {seen.program, seen.shared, seen.root, seen.cgroups} == {inside.NOT_TOLD}
    assert seen.profile == "none"  # as where there is no security module


def test_a_kernel_without_some_kind_of_namespace_is_compared_by_the_others(tmp_path: Path) -> None:
    for pid in ("self", "7"):
        (make_process(tmp_path, pid) / "ns/time").unlink()
    (seen,) = outside.look({7: Role.SERVICE}, tmp_path)
    assert seen.shared == "all"


def test_this_process_is_told_truly() -> None:
    (seen,) = outside.look({os.getpid(): Role.SERVICE})
    said = outside.facts([seen], Role.SERVICE)
    assert said["its process: namespaces shared"] == "all"
    assert said["its process: root"] == "the host's"
    assert said["its process: cgroups of its own"] == "none"
    assert said["its process: user"].endswith(f"({os.getuid()})")
