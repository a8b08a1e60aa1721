"""Reading what processes, cgroups and files hold, and showing it."""

from __future__ import annotations

import itertools
import mmap
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from drivers.dockerapi.daemon import choose
from drivers.libvirt.domain import boot_files_of, guest_memory_of
from lab import units
from lab.errors import MeasurementError
from lab.features import Role
from lab.figures import notes, series
from lab.host import cgroup, cgroup_memory, memory, procs
from lab.host.cgroup_memory import CgroupMemory
from lab.host.memory import TB_CACHE, Account, Holding, account, held_on_disk, mappings, read_holding, touched_bytes
from lab.host.procs import Entry, Process
from lab.service import ask
from lab.show.report import render
from lab.show.table import render_run
from lab.store.record import RunRecord
from lab.store.sample import Sample
from lab.units import MIB

PAGE = mmap.PAGESIZE


def touched(size: int, protection: int = mmap.PROT_READ | mmap.PROT_WRITE) -> mmap.mmap:
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=protection)
    for at in range(0, size, PAGE):
        area[at] = 1
    return area


def test_what_this_process_takes_is_seen_in_every_figure() -> None:
    before = read_holding(os.getpid())
    area = touched(32 * MIB)
    after = read_holding(os.getpid())
    for name in ("pss_bytes", "uss_bytes", "rss_bytes"):
        assert abs(getattr(after, name) - getattr(before, name) - 32 * MIB) < MIB, name
    # One page of page table maps 2 MiB, unless the kernel gave huge pages, which need none.
    assert 0 <= after.page_table_bytes - before.page_table_bytes <= 32 * PAGE
    area.close()


def test_translated_code_is_told_from_other_memory_and_only_of_an_emulator() -> None:
    area = touched(4 * MIB, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    found = account(lambda: {os.getpid(): Role.VMM}, emulated=True)
    roles = found.pss_by_role()
    assert 4 * MIB <= roles[TB_CACHE] < 5 * MIB
    assert roles["vmm"] + roles[TB_CACHE] == found.pss_bytes
    assert TB_CACHE not in account(lambda: {os.getpid(): Role.SERVICE}, emulated=True).pss_by_role()
    assert TB_CACHE not in account(lambda: {os.getpid(): Role.VMM}).pss_by_role()
    area.close()


def test_of_a_guests_memory_only_what_was_touched_counts() -> None:
    declared = 300 * MIB
    area = mmap.mmap(-1, declared, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    assert any(one.size_bytes >= declared for one in mappings(os.getpid()))
    for at in range(0, 8 * MIB, PAGE):
        area[at] = 1
    found = touched_bytes(os.getpid(), declared)
    assert found is not None and 8 * MIB <= found < 12 * MIB  # huge pages may round it up
    area.close()
    assert touched_bytes(os.getpid(), 1 << 46) is None


GONE = 2**22 + 1


def test_what_serves_and_ended_is_listed_again_and_none_at_all_is_an_error() -> None:
    listings = itertools.chain([{GONE: Role.SERVICE}], itertools.repeat({os.getpid(): Role.SERVICE}))
    assert set(account(lambda: next(listings)).by_pid) == {os.getpid()}
    kept = itertools.chain(
        [{GONE: Role.SERVICE, os.getppid(): Role.SHIM}], itertools.repeat({os.getpid(): Role.SERVICE})
    )
    assert set(account(lambda: next(kept)).by_pid) == {os.getpid()}  # a shim alone is no service
    with pytest.raises(MeasurementError, match="no process"):
        account(dict)
    with pytest.raises(MeasurementError, match="end faster"):
        account(lambda: {GONE: Role.SERVICE})


def test_a_helper_that_passes_by_is_left_out_of_every_look() -> None:
    """While processes come and go all the time, each look is of what stays."""
    passing: list[subprocess.Popen[bytes]] = []

    def listed() -> Mapping[int, Role]:
        passing.append(subprocess.Popen(["true"]))
        return {os.getpid(): Role.SERVICE, passing[-1].pid: Role.HELPER, GONE: Role.PROXY}

    try:
        with pytest.MonkeyPatch.context() as patch:

            def read(pid: int, *, emulator: bool = False) -> Holding:
                if pid == passing[-1].pid:
                    passing[-1].wait(10)  # it ends just as it is looked at
                return read_holding(pid, emulator=emulator)

            patch.setattr(memory, "read_holding", read)
            looks = [account(listed) for _ in range(20)]
    finally:
        for one in passing:
            one.wait(10)
    assert [set(look.by_pid) for look in looks] == [{os.getpid()}] * 20


def test_what_ends_after_it_was_read_does_not_stand() -> None:
    child = subprocess.Popen(["sleep", "60"])
    listed = procs.present({os.getpid(): "me", child.pid: "child", GONE: "gone"})
    assert sorted(listed.values()) == ["child", "me"]
    assert len(memory.standing(listed)) == 2
    with pytest.MonkeyPatch.context() as patch:

        def read(pid: int, *, emulator: bool = False) -> Holding:
            found = read_holding(pid, emulator=emulator)
            if pid == child.pid:
                child.kill()
                child.wait(10)
            return found

        patch.setattr(memory, "read_holding", read)
        assert {one.pid for one in memory.standing(listed)} == {os.getpid()}


def holding(**parts: int) -> Holding:
    names = ("pss_bytes", "uss_bytes", "rss_bytes", "shmem_bytes", "swap_bytes", "page_table_bytes", "hugetlb_bytes")
    return Holding(**{**dict.fromkeys(names, 0), **parts})


def test_roles_add_up_to_the_sum() -> None:
    found = Account(
        by_pid={
            1: (Role.SERVICE, holding(pss_bytes=5)),
            2: (Role.SHIM, holding(pss_bytes=7)),
            3: (Role.SERVICE, holding(pss_bytes=11)),
        },
        netns=1,
    )
    assert found.pss_by_role() == {"service": 16, "shim": 7} and found.pss_bytes == 23


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


V2_STAT = "anon 1000\nfile 500\nkernel 300\npagetables 40\nsock 7\nshmem 120\nfile_mapped 90\nslab 200\nanon_thp 0\n"
V1_STAT = (
    "cache 1\nrss 2\nshmem 3\ntotal_cache 500\ntotal_rss 1000\ntotal_shmem 120\ntotal_mapped_file 90\ntotal_swap 6\n"
)


def test_version_2_files_are_read_with_page_cache_apart_from_tmpfs(tmp_path: Path) -> None:
    write(tmp_path, {"memory.current": "2000\n", "memory.stat": V2_STAT, "memory.swap.current": "9\n"})
    found = cgroup_memory.read(tmp_path, 2)
    assert found == CgroupMemory(
        version=2,
        total_bytes=2000,
        anonymous_bytes=1000,
        cache_bytes=380,
        shmem_bytes=120,
        kernel_bytes=300,
        slab_bytes=200,
        page_table_bytes=40,
        socket_bytes=7,
        swap_bytes=9,
    )


def test_version_1_files_are_read_for_the_whole_subtree(tmp_path: Path) -> None:
    files = {"memory.usage_in_bytes": "2000\n", "memory.stat": V1_STAT, "memory.kmem.usage_in_bytes": "300\n"}
    found = cgroup_memory.read(write(tmp_path, files), 1)
    assert found is not None
    assert found.parts() == {"total": 2000, "anonymous": 1000, "page-cache": 380, "tmpfs": 120, "kernel": 300}
    assert found.swap_bytes == 6


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_that_counts_no_memory_gives_none(tmp_path: Path, version: int) -> None:
    assert cgroup_memory.read(tmp_path, version) is None


def test_an_older_kernel_without_a_figure_gives_no_figure_rather_than_zero(tmp_path: Path) -> None:
    stat = "\n".join(line for line in V2_STAT.splitlines() if not line.startswith("kernel "))
    found = cgroup_memory.read(write(tmp_path, {"memory.current": "2000", "memory.stat": stat}), 2)
    assert found is not None and found.kernel_bytes is None and "kernel" not in found.parts()


def test_a_process_among_others_has_no_cgroup_of_its_own() -> None:
    child = subprocess.Popen(["sleep", "60"])  # in this process's own cgroup
    try:
        assert cgroup_memory.memory_of([child.pid]) is None
    finally:
        child.kill()
        child.wait()
    assert cgroup_memory.memory_of([2**22 + 1]) is None


@pytest.mark.parametrize(
    "version,file,text,killed",
    [
        (1, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", False),
        (1, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", True),
        (1, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", False),
        (2, "memory.events", "low 0\nhigh 0\nmax 31\noom 1\noom_kill 0\n", False),
        (2, "memory.events", "low 0\nhigh 0\nmax 31\noom 1\noom_kill 1\noom_group_kill 0\n", True),
        (2, "other", "", False),
    ],
)
def test_whether_the_kernel_killed_for_memory_is_the_groups_own_count(
    tmp_path: Path, version: int, file: str, text: str, killed: bool
) -> None:
    directory = cgroup.Directory(write(tmp_path, {file: text}), version, frozenset({"memory"}))
    elsewhere = cgroup.Directory(tmp_path / "gone", version, frozenset({"pids"}))
    assert cgroup_memory.killed_in(cgroup.Group("g", (elsewhere, directory))) is killed


def test_disk_is_counted_by_blocks_and_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "full").write_bytes(os.urandom(MIB))
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "again").hardlink_to(tmp_path / "full")
    os.sync()
    found = held_on_disk([tmp_path, tmp_path / "full"])
    assert MIB <= found < MIB + 128 * 1024
    assert held_on_disk([tmp_path / "not there"]) == 0


def entry(pid: int, parent: int, name: str) -> Entry:
    return Entry(Process(1, pid), parent, pid, name)


@pytest.mark.parametrize(
    ("listener", "entries", "expected"),
    [
        (10, [(10, 1, "dockerd"), (11, 10, "containerd")], {10: "dockerd", 11: "containerd"}),
        # Of two daemons, the one that listens, and what is below it.
        (20, [(10, 1, "dockerd"), (11, 10, "containerd"), (20, 1, "dockerd"), (21, 20, "containerd")], {20, 21}),
        # systemd made the socket, and containerd is a service of its own.
        (1, [(1, 0, "systemd"), (10, 1, "dockerd"), (11, 1, "containerd")], {10, 11}),
        (None, [(10, 1, "dockerd"), (11, 1, "containerd"), (12, 1, "containerd-shim")], {10, 11}),
        (None, [(1, 0, "systemd")], {}),
    ],
)
def test_the_daemon_and_its_containerd_are_told_from_others(
    listener: int | None, entries: list[tuple[int, int, str]], expected: object
) -> None:
    found = choose({pid: entry(pid, parent, name) for pid, parent, name in entries}, listener)
    assert found == expected if isinstance(expected, dict) else set(found) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"memory_total": "24684084 kB", "cgroup_v1_memory_limit": "134217728\n"}, {"total": 24684084 * 1024}),
        ({"memory_total": "94000 kB", "cgroup_v2_memory_max": "max"}, {"total": 94000 * 1024}),
        ({"memory_total": "", "cgroup_v1_memory_limit": "9223372036854771712"}, {}),
        ({"cgroup_v2_memory_max": "1048576"}, {"limit": MIB}),
    ],
)
def test_what_the_service_believes_is_read_in_bytes(told: Mapping[str, str], expected: Mapping[str, int]) -> None:
    found = ask.believed_bytes(told)
    assert {key: found[key] for key in expected} == expected
    assert ("limit" in found) is ("134217728" in str(told) or "1048576" in str(told))


DOMAIN = """<domain><memory unit='KiB'>131072</memory><os><kernel>/r/kernel</kernel><initrd>/r/initramfs</initrd></os>
<devices><memballoon model='virtio' freePageReporting='on'/>
<disk><source file='/r/own'/><backingStore><source file='/r/root'/></backingStore></disk></devices></domain>"""


def test_a_domain_tells_its_memory_and_what_it_boots_from() -> None:
    given = guest_memory_of(DOMAIN)
    assert (given.declared_bytes, given.balloon, given.free_page_reporting) == (128 * MIB, "virtio", True)
    assert boot_files_of(DOMAIN) == {
        "kernel": [Path("/r/kernel")],
        "initramfs": [Path("/r/initramfs")],
        "root": [Path("/r/root")],
    }
    assert guest_memory_of("<domain><memory unit='MiB'>64</memory></domain>").balloon == "none"


@pytest.fixture
def shown(make_record) -> RunRecord:  # type: ignore[no-untyped-def]
    """A run of `memory` of a bare process, a container, and an emulated guest."""
    record: RunRecord = make_record(n=0, warmup=0, scenario="memory")
    parts = {
        "process": {"service": 1},
        "docker": {"service": 1, "shim": 12, "proxy": 2},
        "libvirt:q35": {"vmm": 160, TB_CACHE: 32},
    }
    samples = []
    for target, roles in parts.items():
        for iteration in range(8):
            qualifiers = {"accel": "tcg"} if target == "libvirt:q35" else {}

            def sample(metric: str, mib: float, **dimensions: str) -> Sample:
                return Sample(
                    target=target,  # noqa: B023  called at once
                    metric=metric,
                    value=mib * MIB,
                    unit="bytes",
                    iteration=iteration,  # noqa: B023
                    dimensions={**qualifiers, **dimensions},  # noqa: B023
                )

            samples.append(sample("pss_bytes", sum(roles.values())))
            samples += [sample("role_pss_bytes", mib, role=role, after="ready") for role, mib in roles.items()]
            samples.append(sample("cgroup_bytes", 0.0, part="page-cache", version="2", after="ready"))
    return replace(record, samples=samples)


def test_the_table_has_the_overhead_the_roles_and_the_emulator_named_as_one(shown: RunRecord) -> None:
    console = Console(width=120, force_terminal=False)
    with console.capture() as captured:
        console.print(render_run(shown))
    text = captured.get()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert any(line.startswith("docker 15.0 MiB") and "+14.0 MiB" in line for line in lines)
    assert "libvirt:q35 (tcg): emulated (TCG)" in lines
    assert any(line.startswith("vmm-tb-cache 32.0 MiB") for line in lines)
    assert "0 each: cgroup: page-cache" in lines and not any("page-cache 0 B" in line for line in lines)
    assert "difference from the bare process's median" in text


def test_the_report_stacks_memory_by_role(shown: RunRecord) -> None:
    page = render(shown)
    assert "Memory by role, after ready" in page and "roles-ready" in page
    assert "vmm-tb-cache" in page and "libvirt:q35: emulated (TCG)" in page
    assert "What explains the memory of docker" in page and "0 each: cgroup: page-cache" in page
    assert "role_pss_bytes" not in page and "after=ready" not in page


def test_other_instances_of_the_engine_are_told_of(shown: RunRecord) -> None:
    def noted(count: int) -> bool:
        sample = Sample(target="docker", metric="others_running", value=count, unit="", iteration=0)
        told = replace(shown, samples=[*shown.samples, sample])
        return any("docker ran other instances" in text for text in notes.of_run(told, series.series_of(told)))

    assert noted(2) and not noted(0)


def test_nothing_is_written_in_its_own_unit() -> None:
    assert units.quantity(0, "bytes") == "0 B" and units.quantity(0, "s") == "0 s"


def test_what_a_service_swaps_for_a_link_meanwhile_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/large").write_bytes(b"x" * 1024 * 1024)
    own = tmp_path / "own/folder"
    own.mkdir(parents=True)
    listed = os.scandir

    class Listed(Iterator[Any]):
        def __init__(self, entries: list[Any]) -> None:
            self._entries = iter(entries)

        def __next__(self) -> Any:
            return next(self._entries)

        def __enter__(self) -> Listed:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def swapped(place: int | str) -> object:
        found = listed(place)
        if own.is_dir() and not own.is_symlink():
            names = list(found)
            own.rmdir()
            own.symlink_to(tmp_path / "outside")
            return Listed(names)
        return found

    monkeypatch.setattr(os, "scandir", swapped)
    assert held_on_disk([tmp_path / "own"]) < 1024 * 1024


def test_an_address_space_that_two_processes_are_in_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        own, sleeping = Process.of(os.getpid()), Process.of(other.pid)
        assert own is not None and sleeping is not None
        roles = {own: Role.VMM, sleeping: Role.VMM}
        try:
            assert memory.each_memory_once(roles) == roles, "two of their own"
            assert memory._one_memory(os.getpid(), os.getpid()), "this kernel tells it"
            monkeypatch.setattr(memory, "_one_memory", lambda *_: True)
            assert list(memory.each_memory_once(roles)) == [min(own, sleeping)]
            mixed = {own: Role.VMM, sleeping: Role.SHIM}
            assert memory.each_memory_once(mixed) == mixed, "what has another role is told apart"
        finally:
            other.kill()
