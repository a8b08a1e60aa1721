"""Cores, placements and what CPUs share, on a made-up machine; who is held where, on this one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lab.errors import MeasurementError
from lab.features import Role
from lab.host.pinning import Placement, cores, cpu_list, in_common, pinned_to, placement, require_pinned


def machine(root: Path, siblings: Mapping[int, str], l3: Mapping[int, str], package: Mapping[int, int]) -> Path:
    """CPUs with their SMT siblings, an L1d of their core's, an L3 and a socket."""
    for cpu, together in siblings.items():
        files = {
            "topology/thread_siblings_list": together,
            "topology/physical_package_id": str(package[cpu]),
            "cache/index0/level": "1",
            "cache/index0/type": "Data",
            "cache/index0/size": "48K",
            "cache/index0/shared_cpu_list": together,
            "cache/index3/level": "3",
            "cache/index3/type": "Unified",
            "cache/index3/size": "32768K",
            "cache/index3/shared_cpu_list": l3[cpu],
        }
        for name, text in files.items():
            path = root / f"cpu{cpu}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
    return root


@pytest.fixture
def smt(tmp_path: Path) -> Path:
    """Two sockets of one core each with two threads, as (0, 2) and (1, 3)."""
    siblings = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}
    return machine(tmp_path, siblings, siblings, {0: 0, 1: 1, 2: 0, 3: 1})


def test_siblings_are_one_core(smt: Path) -> None:
    assert cores(range(4), smt) == [(0, 2), (1, 3)]
    assert cores([1, 2, 3], smt) == [(1, 3), (2,)]
    assert cores([5], smt) == [(5,)], "of which the kernel tells nothing"
    assert sorted(cpu for core in cores() for cpu in core) == sorted(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("shared", "by_core", "expected"),
    [
        (True, [(0,), (1,)], Placement(victim=0, antagonist=0, client=(1,))),
        (False, [(0,), (1,)], Placement(victim=0, antagonist=1, client=(0,))),
        (False, [(0, 2), (1, 3)], Placement(victim=0, antagonist=1, client=(0,))),
        (True, [(0, 2), (1, 3)], Placement(victim=0, antagonist=0, client=(1, 3))),
        (False, [(0,), (1,), (2, 4), (3,)], Placement(victim=0, antagonist=1, client=(2, 4, 3))),
        (True, [(7,)], Placement(victim=7, antagonist=7, client=(7,))),
        (False, [(0, 1)], None),
        (False, [(0,)], None),
    ],
)
def test_apart_means_two_cores_and_the_client_keeps_away_from_the_antagonist(
    shared: bool, by_core: list[tuple[int, ...]], expected: Placement | None
) -> None:
    assert placement(shared=shared, by_core=by_core) == expected


def test_what_two_cpus_share_is_named(smt: Path, tmp_path: Path) -> None:
    assert in_common(0, 0, smt) == ["the CPU itself"]
    together = ["the core (SMT siblings)", "L1 data cache (48.0 KiB)", "L3 cache (32.0 MiB)"]
    assert in_common(0, 2, smt) == [*together, "the socket with its memory bus"]
    assert in_common(0, 1, smt) == []
    desktop = machine(tmp_path / "d", {0: "0", 1: "1"}, {0: "0-1", 1: "0-1"}, {0: 0, 1: 0})
    assert in_common(0, 1, desktop) == ["L3 cache (32.0 MiB)", "the socket with its memory bus"]


class Held:
    """An instance whose service is a child of this test."""

    def __init__(self, pids: Mapping[int, Role]) -> None:
        self._pids = pids

    def host_pids(self) -> Mapping[int, Role]:
        return self._pids


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_where_it_may_run_is_the_kernels_word_and_no_helpers(child: int) -> None:
    allowed = os.sched_getaffinity(0)
    held = Held({child: Role.SERVICE, os.getpid(): Role.SHIM})
    assert pinned_to(held) == allowed  # type: ignore[arg-type]  # all that is asked of it
    os.sched_setaffinity(child, {min(allowed)})
    assert pinned_to(held) == {min(allowed)}  # type: ignore[arg-type]  # as above
    require_pinned(held, [min(allowed)])  # type: ignore[arg-type]  # as above
    os.sched_setaffinity(child, allowed)
    if len(allowed) > 1:
        with pytest.raises(MeasurementError, match="to be held to CPU"):
            require_pinned(held, [min(allowed)])  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("pids", [{}, {1: Role.SHIM}, {999_999_999: Role.SERVICE}])
def test_nothing_to_look_at_is_no_pinning(pids: dict[int, Role]) -> None:
    with pytest.raises(MeasurementError, match="no thread"):
        pinned_to(Held(pids))  # type: ignore[arg-type]  # as above
    with pytest.raises(MeasurementError, match="no thread"):
        pinned_to(None)


def test_lists_are_as_the_kernel_writes_them() -> None:
    assert cpu_list([3, 1, 3]) == "1,3"
    assert cpu_list([]) == ""
