"""Limits read back: which count, which do not, and who is told to have stopped a trouble."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.host import cgroup
from lab.host.cgroup import Directory, Group
from lab.host.limits import Held, Limit, console_tells, directories, held, levels, toll, unbearable_bytes
from lab.units import MIB

ALL = frozenset(cgroup.CONTROLLERS)
FREE = str((2**63 - 1) // 4096 * 4096)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def proc(root: Path, *, swaps: bool = False, pid_max: int = 4_194_304, threads: int = 100_000) -> Path:
    used = "/dev/vda2 partition 1000000 0 -2\n" if swaps else ""
    return tree(
        root / "proc",
        {
            "swaps": f"Filename Type Size Used Priority\n{used}",
            "sys/kernel/pid_max": f"{pid_max}\n",
            "sys/kernel/threads-max": f"{threads}\n",
        },
    )


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> dict[int, Path]:
    """Which cgroup (version 2, or 1 for a path that has `v1` in it) each process is in."""
    places: dict[int, Path] = {}

    def of_process(pid: int, proc: Path) -> Group:
        if pid not in places:
            raise FileNotFoundError(pid)
        path = places[pid]
        return Group("", (Directory(path, 1 if "v1" in path.parts else 2, ALL),))

    monkeypatch.setattr(cgroup, "of_process", of_process)
    monkeypatch.setattr("lab.host.limits.available_bytes", lambda: 4096 * MIB)
    return places


def v2(root: Path, name: str, *, pids: str = "", memory: str = "max", swap: str = "max", most: str = "max") -> Path:
    base = f"v2/{name}"
    tree(
        root,
        {
            f"{base}/cgroup.procs": pids,
            f"{base}/memory.max": memory,
            f"{base}/memory.swap.max": swap,
            f"{base}/pids.max": most,
            f"{base}/cpu.max": "max 100000",
        },
    )
    return root / base


def test_a_limit_of_the_instances_own_cgroup_counts(tmp_path: Path, placed: dict[int, Path]) -> None:
    placed[7] = v2(tmp_path, "a", pids="7\n8\n", memory=str(128 * MIB), swap="0", most="128")
    (placed[7] / "cpu.max").write_text("50000 100000")
    memory = held(Limit.MEMORY, [7], [7, 8], proc=proc(tmp_path))
    assert str(memory) == "128 MiB and no swap (memory.max, cgroup v2)"
    assert str(held(Limit.PIDS, [7], [7, 8], proc=proc(tmp_path))) == "128 processes (pids.max, cgroup v2)"
    assert str(held(Limit.CPUS, [7], [7, 8], proc=proc(tmp_path))) == "0.5 CPUs (cpu.max, cgroup v2)"


def test_a_limit_shared_with_others_does_not_count(tmp_path: Path, placed: dict[int, Path]) -> None:
    placed[7] = v2(tmp_path, "a", pids="7\n8\n", most="128")
    assert "no cgroup of the instance's own" in str(held(Limit.PIDS, [7], [7], proc=proc(tmp_path)))


def test_the_tightest_of_a_branch_counts_and_the_loosest_of_several(tmp_path: Path, placed: dict[int, Path]) -> None:
    v2(tmp_path, "pod", most="200")
    placed[7] = v2(tmp_path, "pod/a", pids="7\n", most="300")
    placed[8] = v2(tmp_path, "pod/b", pids="8\n", most="100")
    found = held(Limit.PIDS, [7, 8], [7, 8], proc=proc(tmp_path))
    assert isinstance(found, Held)
    assert (found.amount, found.file) == (200, tmp_path / "v2/pod/pids.max")
    assert isinstance(held(Limit.PIDS, [8], [8], proc=proc(tmp_path)), Held)
    assert isinstance(held(Limit.PIDS, [7], [7], proc=proc(tmp_path)), Held)


def test_one_process_without_a_limit_is_enough_to_prove_nothing(tmp_path: Path, placed: dict[int, Path]) -> None:
    placed[7] = v2(tmp_path, "a", pids="7\n", most="100")
    placed[8] = v2(tmp_path, "b", pids="8\n")
    assert isinstance(held(Limit.PIDS, [7, 8], [7, 8], proc=proc(tmp_path)), str)
    assert isinstance(held(Limit.PIDS, [9], [9], proc=proc(tmp_path)), str)  # it ended
    assert isinstance(held(Limit.PIDS, [], [], proc=proc(tmp_path)), str)


def test_a_process_that_ended_meanwhile_needs_no_limit(tmp_path: Path, placed: dict[int, Path]) -> None:
    placed[7] = v2(tmp_path, "a", pids="7\n", most="100")
    found = held(Limit.PIDS, [9, 7], [7, 9], proc=proc(tmp_path))
    assert isinstance(found, Held) and found.amount == 100


def test_memory_counts_only_where_swap_is_bounded_too(tmp_path: Path, placed: dict[int, Path]) -> None:
    placed[7] = v2(tmp_path, "a", pids="7\n", memory=str(128 * MIB))
    assert isinstance(held(Limit.MEMORY, [7], [7], proc=proc(tmp_path)), Held)  # a host without swap
    assert "swap" in str(held(Limit.MEMORY, [7], [7], proc=proc(tmp_path, swaps=True)))
    (placed[7] / "memory.swap.max").write_text(str(16 * MIB))
    found = held(Limit.MEMORY, [7], [7], proc=proc(tmp_path, swaps=True))
    assert isinstance(found, Held) and found.swap_bytes == 16 * MIB
    assert "16 MiB of swap" in str(found)


def v1(root: Path, name: str, *, pids: str = "", memory: str = FREE, both: str | None = None) -> Path:
    files = {"cgroup.procs": pids, "memory.limit_in_bytes": memory, "memory.use_hierarchy": "1"}
    files |= {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", "memory.failcnt": "0"}
    files |= {"memory.memsw.limit_in_bytes": both} if both else {}
    tree(root, {f"v1/{name}/{file}": text for file, text in files.items()})
    return root / "v1" / name


def test_version_1_has_memory_and_swap_in_one_limit(tmp_path: Path, placed: dict[int, Path]) -> None:
    placed[7] = v1(tmp_path, "a", pids="7\n", memory=str(64 * MIB), both=str(64 * MIB))
    found = held(Limit.MEMORY, [7], [7], proc=proc(tmp_path, swaps=True))
    assert str(found) == "64 MiB and no swap (memory.limit_in_bytes, cgroup v1)"
    (placed[7] / "memory.memsw.limit_in_bytes").unlink()
    assert "swap" in str(held(Limit.MEMORY, [7], [7], proc=proc(tmp_path, swaps=True)))
    assert isinstance(held(Limit.MEMORY, [7], [7], proc=proc(tmp_path)), Held)


def test_a_limit_at_which_nobody_is_killed_is_none(tmp_path: Path, placed: dict[int, Path]) -> None:
    placed[7] = v1(tmp_path, "a", pids="7\n", memory=str(64 * MIB), both=str(64 * MIB))
    (placed[7] / "memory.oom_control").write_text("oom_kill_disable 1\nunder_oom 0\noom_kill 0\n")
    assert "not to kill" in str(held(Limit.MEMORY, [7], [7], proc=proc(tmp_path)))


def test_a_limit_of_an_old_kernels_flat_hierarchy_does_not_reach_below(tmp_path: Path, placed: dict[int, Path]) -> None:
    (v1(tmp_path, "pod", memory=str(64 * MIB)) / "memory.use_hierarchy").write_text("0")
    placed[7] = v1(tmp_path, "pod/a", pids="7\n")
    assert isinstance(held(Limit.MEMORY, [7], [7], proc=proc(tmp_path)), str)
    (tmp_path / "v1/pod/memory.use_hierarchy").write_text("1")
    assert isinstance(held(Limit.MEMORY, [7], [7], proc=proc(tmp_path)), Held)


def test_more_than_the_host_has_is_no_limit(
    tmp_path: Path, placed: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    placed[7] = v2(tmp_path, "a", pids="7\n", memory=str(128 * MIB), swap="0", most="5000")
    assert "kernel allows" in str(held(Limit.PIDS, [7], [7], proc=proc(tmp_path, threads=8000)))
    monkeypatch.setattr("lab.host.limits.available_bytes", lambda: 100 * MIB)
    assert "than the 100 MiB that this host has left" in str(held(Limit.MEMORY, [7], [7], proc=proc(tmp_path)))
    assert not unbearable_bytes(100 * MIB)


def test_levels_end_where_somebody_else_is(tmp_path: Path) -> None:
    v2(tmp_path, "", pids="1\n")
    v2(tmp_path, "pod")
    start = Directory(v2(tmp_path, "pod/a", pids="7\n"), 2, ALL)
    assert [one.path.name for one in levels(start, [7])] == ["a", "pod"]
    assert [one.path.name for one in levels(start, [1, 7])] == ["a", "pod", "v2"]
    assert levels(start, [8]) == []
    assert levels(Directory(v2(tmp_path, "empty"), 2, ALL), [7]) == []  # or not to be read


def test_a_vmm_in_threaded_cgroups_is_in_the_one_above_them(tmp_path: Path) -> None:
    v2(tmp_path, "", pids="1\n")
    v2(tmp_path, "scope")
    v2(tmp_path, "scope/libvirt", pids="7\n")
    emulator = tree(tmp_path, {"v2/scope/libvirt/emulator/cgroup.type": "threaded\n"}) / "v2/scope/libvirt/emulator"
    (emulator / "cgroup.procs").mkdir()  # the kernel refuses to have it read (EOPNOTSUPP)
    start = Directory(emulator, 2, ALL)
    assert [one.path.name for one in levels(start, [7])] == ["libvirt", "scope"]
    assert levels(start, [8]) == []


def test_counters_tell_by_how_much_they_rose(tmp_path: Path, placed: dict[int, Path]) -> None:
    placed[7] = v2(tmp_path, "pod/a", pids="7\n")
    v2(tmp_path, "pod")
    pod = tmp_path / "v2/pod"
    tree(
        pod,
        {"a/memory.events": "low 0\nmax 3\noom 1\noom_kill 1\n", "a/pids.events": "max 0\n", "pids.events": "max 4"},
    )
    tree(pod, {"cpu.stat": "nr_periods 10\nnr_throttled 2\nthrottled_usec 5\n"})
    where = directories([7, 99], [7])
    assert where == [pod / "a", pod]
    before = toll(where)
    assert before.since(before) == {"oom_kill": 0, "max": 0, "nr_periods": 0, "nr_throttled": 0}
    tree(pod, {"a/memory.events": "low 0\nmax 9\noom 2\noom_kill 3\n", "pids.events": "max 11"})
    tree(pod, {"cpu.stat": "nr_periods 20\nnr_throttled 9\nthrottled_usec 5\n"})
    assert toll(where).since(before) == {"oom_kill": 2, "max": 7, "nr_periods": 10, "nr_throttled": 7}
    assert toll([tmp_path / "gone"]).since(before) == {}


def test_version_1_counts_kills_and_hits(tmp_path: Path) -> None:
    path = v1(tmp_path, "a")
    before = toll([path])
    (path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    (path / "memory.failcnt").write_text("77\n")
    assert toll([path]).since(before) == {"oom_kill": 1, "failcnt": 77}


def test_a_console_tells_who_killed_since_it_was_last_read() -> None:
    before = b"[1.0] Out of memory: Killed process 60 (service) total-vm:1kB\r\n"
    assert console_tells(before, before) == []
    after = before + b"[2.0] Out of memory: Killed process 61 (service) total-vm:1kB\r\n"
    assert console_tells(before, after) == ["Out of memory: Killed process 61 (service)"]
    panic = after + b"[3.0] Kernel panic - not syncing: sysrq triggered crash\r\nlab-guest exit 9\r\n"
    assert console_tells(after, panic) == ["Kernel panic - not syncing: sysrq triggered crash", "lab-guest exit 9"]
    assert console_tells(b"", b"nothing of note\r\n") == []
