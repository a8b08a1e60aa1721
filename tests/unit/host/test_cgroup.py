"""Cgroups of both versions: the parts that need no kernel run on directories, the rest where this user may make one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab.errors import CleanupError
from lab.host import cgroup
from lab.host.cgroup import Directory, Group, Hierarchy, Limits

LABELS = {
    "lab.run": "20260101-120000-abc",
    "lab.owner": "0123456789abcdef0123456789abcdef:aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee:4194304:123456789:4026532999",
    "lab.launch": "00ff" * 4,
    "lab.scenario": "boot",
    "lab.target": "process",
}


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def _host(tmp_path: Path, *, kind: str, options: str, own: str, root: str = "/") -> tuple[Path, Path, Path]:
    mount = tmp_path / "mnt"
    mount.mkdir()
    mountinfo, table = tmp_path / "mountinfo", tmp_path / "cgroup"
    mountinfo.write_text(f"31 23 0:28 {root} {mount} rw,relatime shared:9 - {kind} cgroup {options}\n")
    table.write_text(own)
    return mount, mountinfo, table


def _v2(tmp_path: Path, own: str = "0::/\n", **files: str) -> tuple[Path, Path, Path]:
    mount, mountinfo, table = _host(tmp_path, kind="cgroup2", options="rw,nsdelegate", own=own)
    standard = {
        "cgroup.procs": "1\n",
        "cgroup.controllers": "cpuset cpu io memory pids\n",
        "cgroup.subtree_control": "memory pids\n",
        "init.scope/memory.swap.max": "max\n",
    }
    _tree(mount, {**standard, **files})
    return mount, mountinfo, table


def test_a_name_holds_the_labels_and_gives_them_back() -> None:
    name = cgroup.name_of(LABELS)
    assert cgroup.labels_of(name) == LABELS
    assert len(name) <= 255
    assert "/" not in name and "\n" not in name


def test_a_name_too_long_keeps_the_run_and_its_owner() -> None:
    name = cgroup.name_of({**LABELS, "lab.a": "x" * 200, "lab.scenario": "ü" * 60, "user.own": "y"})
    assert len(name) <= 255
    kept = cgroup.labels_of(name)
    assert {key: kept[key] for key in ("lab.run", "lab.owner", "lab.launch")} == {
        key: LABELS[key] for key in ("lab.run", "lab.owner", "lab.launch")
    }
    assert "lab.a" not in kept


def test_other_names_bear_no_labels() -> None:
    assert cgroup.labels_of("system.slice") == {}


def test_a_v1_hierarchy_is_found_with_the_controllers_mounted_together(tmp_path: Path) -> None:
    _, mountinfo, table = _host(
        tmp_path, kind="cgroup", options="rw,cpu,cpuacct", own="3:cpu,cpuacct:/docker/abc\n0::/x\n", root="/docker/abc"
    )
    (found,) = cgroup.hierarchies(mountinfo)
    assert (found.version, found.controllers) == (1, frozenset({"cpu"}))
    assert found.locate(table) == found.mount


def test_a_mount_that_does_not_show_the_cgroup_is_no_place_for_it(tmp_path: Path) -> None:
    table = tmp_path / "cgroup"
    table.write_text("4:memory:/elsewhere\n")
    assert Hierarchy(tmp_path, "/docker/abc", 1, frozenset({"memory"})).locate(table) is None


def test_a_name_with_a_colon_or_a_space_is_read_whole(tmp_path: Path) -> None:
    table = tmp_path / "cgroup"
    table.write_text("4:memory:/a:b/c d\n")
    found = Hierarchy(tmp_path, "/", 1, frozenset({"memory"})).locate(table)
    assert found == tmp_path / "a:b/c d"


def test_the_real_root_of_v2_passes_on_what_it_is_asked_to(tmp_path: Path) -> None:
    mount, mountinfo, table = _v2(tmp_path)
    where = cgroup.places(mountinfo, table)
    assert where.directories == (Directory(mount, 2, frozenset(cgroup.CONTROLLERS)),)
    assert where.limits == {"memory": "cgroup v2", "swap": "cgroup v2", "cpus": "cgroup v2", "pids": "cgroup v2"}


def test_a_v2_group_with_processes_passes_on_only_what_it_does_already(tmp_path: Path) -> None:
    _, mountinfo, table = _v2(tmp_path, **{"cgroup.type": "domain\n"})
    where = cgroup.places(mountinfo, table)
    assert not where.can_set("cpus") and "does not pass on" in where.limits["cpus"]
    assert where.can_set("memory") and where.can_set("pids")


def test_the_topmost_delegated_group_is_used_and_not_the_users_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delegated = "user.slice/user-1000.slice/user@1000.service"
    mount, mountinfo, table = _v2(
        tmp_path,
        own=f"0::/{delegated}/app.slice/term.scope\n",
        **{
            f"{delegated}/cgroup.procs": "",
            f"{delegated}/cgroup.controllers": "memory pids\n",
            f"{delegated}/cgroup.subtree_control": "memory pids\n",
            f"{delegated}/cgroup.type": "domain\n",
            f"{delegated}/app.slice/cgroup.procs": "",
            f"{delegated}/app.slice/term.scope/cgroup.procs": "77\n",
        },
    )
    allowed = mount / delegated
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).is_relative_to(allowed))
    where = cgroup.places(mountinfo, table)
    assert [(found.path, found.controllers) for found in where.directories] == [
        (allowed, frozenset({"memory", "pids"}))
    ]
    assert where.limits["cpus"].startswith("not set")


def test_without_a_delegated_group_each_limit_says_why_it_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, mountinfo, table = _v2(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    where = cgroup.places(mountinfo, table)
    assert where.directories == ()
    assert all(how.startswith("not set: no cgroup") for how in where.limits.values())
    assert cgroup.make(where, LABELS, Limits(memory_bytes=1)).directories == ()


def test_a_kernel_without_cgroups_says_so(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("23 1 254:0 / / rw - ext4 /dev/vda rw\n")
    where = cgroup.places(tmp_path / "mountinfo", tmp_path / "none")
    assert all(how.startswith("not set: this kernel") for how in where.limits.values())


def test_v2_limits_are_written_as_the_kernel_reads_them(tmp_path: Path) -> None:
    mount, mountinfo, table = _v2(tmp_path)
    (mount / "cgroup.subtree_control").write_text("")
    where = cgroup.places(mountinfo, table)
    folder = mount / cgroup.FOLDER / cgroup.name_of(LABELS)
    _tree(mount / cgroup.FOLDER, {"cgroup.subtree_control": ""})
    limits = Limits(memory_bytes=64 << 20, swap_bytes=0, cpus=0.5, pids=32)
    directory = Directory(folder, 2, frozenset(cgroup.CONTROLLERS))
    _tree(folder, {"memory.swap.max": "max"})
    cgroup._set(directory, limits, swap=where.can_set("swap"))
    assert (folder / "memory.max").read_text() == str(64 << 20)
    assert (folder / "memory.swap.max").read_text() == "0"
    assert (folder / "cpu.max").read_text() == "50000 100000"
    assert (folder / "pids.max").read_text() == "32"
    assert Group("x", (directory,)).limits() == limits


def test_no_limit_reads_as_none_in_both_versions(tmp_path: Path) -> None:
    v1 = _tree(
        tmp_path / "v1",
        {
            "memory.limit_in_bytes": "9223372036854771712\n",
            "memory.memsw.limit_in_bytes": "9223372036854771712\n",
            "cpu.cfs_quota_us": "-1\n",
            "pids.max": "max\n",
        },
    )
    v2 = _tree(
        tmp_path / "v2",
        {"memory.max": "max\n", "memory.swap.max": "max\n", "cpu.max": "max 100000\n", "pids.max": "max"},
    )
    every = frozenset(cgroup.CONTROLLERS)
    assert Group("x", (Directory(v1, 1, every),)).limits() == Limits()
    assert Group("x", (Directory(v2, 2, every),)).limits() == Limits()


def test_a_group_without_the_controllers_files_has_no_limits_of_its_own(tmp_path: Path) -> None:
    for version in (1, 2):
        assert Group("x", (Directory(tmp_path, version, frozenset(cgroup.CONTROLLERS)),)).limits() == Limits()


def test_a_group_that_stays_occupied_is_a_clear_error(tmp_path: Path) -> None:
    occupied = _tree(tmp_path / "group", {"still": "here"})
    with pytest.raises(CleanupError, match="cannot be removed"):
        Group("x", (Directory(occupied, 2, frozenset()),)).remove(timeout_s=0.02)


@pytest.fixture
def where() -> cgroup.Places:
    found = cgroup.places()
    if not found.directories:
        pytest.skip("this user may make no cgroups here")
    return found


def test_a_real_group_holds_its_limits_and_its_process_and_is_removed(where: cgroup.Places) -> None:
    labels = {**LABELS, "lab.run": f"test-{os.getpid()}"}
    wanted = Limits(memory_bytes=64 << 20, swap_bytes=0, cpus=0.5, pids=16)
    group = cgroup.make(where, labels, wanted)
    child = subprocess.Popen(["sleep", "60"])
    try:
        held = group.limits()
        for limit, name in (("memory", "memory_bytes"), ("cpus", "cpus"), ("pids", "pids")):
            if where.can_set(limit):
                assert getattr(held, name) == getattr(wanted, name)
        for entrance in group.entrances:
            entrance.write_text(str(child.pid))
        assert group.pids() == {child.pid}
        assert {found.path for found in cgroup.of_process(child.pid).directories} >= {
            found.path for found in group.directories
        }
        (found,) = [one for one in cgroup.groups(where) if one.labels["lab.run"] == labels["lab.run"]]
        assert found.labels == labels
        with pytest.raises(CleanupError):
            group.remove(timeout_s=0.05)
    finally:
        child.kill()
        child.wait(10)
        group.remove()
    assert not group.exists()
    group.remove()
    assert not [one for one in cgroup.groups(where) if one.labels["lab.run"] == labels["lab.run"]]


def test_a_controller_that_is_not_the_labs_is_found_too(tmp_path: Path) -> None:
    _, mountinfo, _ = _host(tmp_path, kind="cgroup", options="rw,cpuset", own="")
    assert cgroup.offers("cpuset", mountinfo) and not cgroup.offers("memory", mountinfo)
    mountinfo.write_text(mountinfo.read_text().replace("- cgroup cgroup", "- cgroup2 cgroup2"))
    assert not cgroup.offers("cpuset", mountinfo)
    (tmp_path / "mnt" / "cgroup.controllers").write_text("cpuset cpu\n")
    assert cgroup.offers("cpuset", mountinfo)
