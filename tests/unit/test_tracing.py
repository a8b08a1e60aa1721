"""What is read out of the text of a kernel trace, whose it is, and what makes a trace of no use."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import tracing
from lab.cgroup import name_of
from lab.clean import find
from lab.errors import MeasurementError, Unsupported
from lab.ownership import Owner
from lab.trace_text import Trace, pack, read_trace, unpack
from scenarios.hostkernel import Hostkernel, check_mix

OWN = {"lab.run": "20261122-120000-abcd", "lab.owner": str(Owner.current()), "lab.target": "docker:none"}
DEAD = {**OWN, "lab.run": "20261122-110000-dead", "lab.owner": re.sub(r"\d+$", "1", str(Owner.current()))}

# As a 6.18 kernel writes them (per_cpu/cpu0/trace); one task's name holds what looks like the rest of a line.
STACKS = b"""\
# tracer: nop
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
         dockerd-100     [000] ..... 12219.000001: sys_enter: NR 56 (5, 0, 0, 0, 0, 0)
         dockerd-100     [000] ..... 12219.000002: <stack trace>
 => trace_event_raw_event_sys_enter
 => syscall_trace_enter
 => do_syscall_64
 => entry_SYSCALL_64_after_hwframe
         dockerd-100     [000] ..... 12219.000003: sched_process_fork: comm=dockerd pid=100 child_comm=a pid=7 child_pid=200
         dockerd-100     [000] ..... 12219.000004: <stack trace>
 => kernel_clone
 => __do_sys_clone
 => do_syscall_64
  a-1 [000] .: x-200     [000] ..... 12219.000005: sched_process_exec: filename=/usr/bin/my runc pid=200 old_pid=200
            runc-200     [000] d.h1. 12219.000006: sched_waking: comm=other pid=7 prio=120 target_cpu=001
            runc-200     [000] d.h1. 12219.000007: <stack trace>
 => try_to_wake_up
 => hrtimer_wakeup
            runc-200     [000] ..... 12219.000008: kmem_cache_alloc: call_site=getname_flags+0x4f/0x1d0 ptr=00000000c0c15974
            runc-200     [000] ..s1. 12219.000009: consume_skb: skbaddr=00000000 location=tcp_ack
            runc-200     [000] ..s1. 12219.000010: <stack trace>
 => tcp_ack.isra.0
 => tcp_v4_rcv
 => 0xffffffffc0000000
 => do_one [overlay]
            runc-200     [000] ..s1. 12219.000011: <stack trace>
 => rcu_core
 => handle_softirqs
 => __irq_exit_rcu
 => sysvec_apic_timer_interrupt
           other-7       [000] ..... 12219.000012: sys_enter: NR 39 (0, 0, 0, 0, 0, 0)
           other-7       [000] ..... 12219.000013: <stack trace>
 => somebody_elses
"""  # noqa: E501  as it is

# As the documentation shows it (Documentation/trace/ftrace.rst, 'function'), beside the events that are always taken.
FUNCTIONS = b"""\
# tracer: function
#
# entries-in-buffer/entries-written: 140080/140080   #P:4
#
            bash-1977    [000] .... 17284.993652: sys_close <-system_call_fastpath
            bash-1977    [000] .... 17284.993653: __close_fd <-sys_close
            bash-1977    [000] d..1 17284.993653: _raw_spin_lock.isra.0 <-__close_fd
            bash-1977    [000] d.h1 17284.993654: hrtimer_interrupt <-sysvec_apic_timer_interrupt
            bash-1977    [000] .... 17284.993655: ovl_open [overlay] <-do_dentry_open
            bash-1977    [000] .... 17284.993656: sys_enter: NR 3 (5, 0, 0, 0, 0, 0)
            bash-1977    [000] .... 17284.993657: __traceiter_sys_enter <-syscall_trace_enter
"""


def read(text: bytes) -> Trace:
    seen = Trace()
    read_trace(text.splitlines(keepends=True), into=seen)
    return seen


def test_a_childs_part_is_told_from_its_parents_and_from_others() -> None:
    seen = read(STACKS)
    assert seen.family([100]) == {100, 200}
    parent = seen.part({100})
    assert parent.functions == {"do_syscall_64", "entry_SYSCALL_64_after_hwframe", "kernel_clone", "__do_sys_clone"}
    assert parent.calls == Counter({56: 1})
    assert not parent.programs


def test_what_an_interrupt_brought_in_is_nobodys() -> None:
    child = read(STACKS).part({200})
    assert child.functions == {"tcp_ack", "tcp_v4_rcv", "do_one"}
    assert child.programs == {"/usr/bin/my runc"}
    assert not child.calls


def test_the_function_tracers_text_gives_the_called() -> None:
    part = read(FUNCTIONS).part({1977})
    assert part.functions == {"sys_close", "__close_fd", "_raw_spin_lock", "ovl_open"}
    assert part.calls == Counter({3: 1})


def test_the_labs_own_threads_are_not_its_offspring() -> None:
    seen = Trace(children={10: {11, 20}, 11: {12, 30}, 30: {31}}, threads={11, 12, 31})
    assert seen.offspring({10}) == {20, 30, 31}


@pytest.mark.parametrize("flags, thread", [("10d0f00", True), ("4111", False), ("1200011", False)])
def test_threads_are_told_from_processes_by_how_they_were_cloned(flags: str, thread: bool) -> None:
    head = "         python3-10      [001] ..... 12.000001: task_newtask: "
    line = f"{head}pid=11 comm=a b clone_flags={flags} oom_score_adj=0\n"
    assert read(line.encode()).threads == ({11} if thread else set())


@pytest.mark.parametrize("line", ["nonsense\n", "         python3-x   [001] ..... 12.0: sys_enter: NR 1\n"])
def test_text_that_is_no_trace_is_refused(line: str) -> None:
    with pytest.raises(MeasurementError, match="cannot be read"):
        read(line.encode())


def test_names_survive_packing() -> None:
    names = {"do_syscall_64", "__x64_sys_openat"}
    assert unpack(pack(names)) == names
    assert unpack(pack([])) == frozenset()


STATS = (
    "entries: 5\noverrun: {}\ncommit overrun: {}\nbytes: 99\noldest event ts: 1.5\ndropped events: {}\nread events: 0\n"
)


def test_nothing_lost_is_accepted() -> None:
    tracing.refuse_losses("cpu0", STATS.format(0, 0, 0))


@pytest.mark.parametrize("losses", [(1, 0, 0), (0, 2, 0), (0, 0, 3)])
def test_lost_events_say_what_to_raise(losses: tuple[int, int, int]) -> None:
    with pytest.raises(MeasurementError, match="lost events on cpu1") as caught:
        tracing.refuse_losses("cpu1", STATS.format(*losses))
    assert "buffer" in caught.value.resolution


def test_a_mix_that_was_seen_otherwise_is_no_figure() -> None:
    made = {39: ("getpid", 3), 110: ("getppid", 2)}
    check_mix(made, {39: 3, 110: 2, 1: 99})
    for seen in ({39: 3}, {39: 4, 110: 2}, {}):
        with pytest.raises(MeasurementError) as caught:
            check_mix(made, seen)
        assert "made" in caught.value.details


@pytest.fixture
def tracefs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for tracefs."""
    (tmp_path / "instances").mkdir()

    @contextmanager
    def at() -> Iterator[Path]:
        yield tmp_path

    monkeypatch.setattr(tracing, "tracefs", at)
    return tmp_path


def test_instances_of_the_dead_are_found_and_others_left(tracefs: Path) -> None:
    for name in (name_of(OWN), name_of(DEAD), "somebody's", "perf&run"):
        (tracefs / "instances" / name).mkdir()
    found = {item.labels["lab.run"]: item for item in find([], {}).found if item.kind == tracing.KIND}
    assert {run: item.fate for run, item in found.items()} == {
        OWN["lab.run"]: "live owner",
        DEAD["lab.run"]: "remove",
    }
    found[DEAD["lab.run"]].thing.delete()
    assert {path.name for path in (tracefs / "instances").iterdir()} == {name_of(OWN), "somebody's", "perf&run"}
    found[DEAD["lab.run"]].thing.delete()  # gone is gone
    assert [one.labels["lab.run"] for one in tracing.trace_instances({"lab.run": OWN["lab.run"]})] == [OWN["lab.run"]]


def test_a_host_without_tracing_is_skipped_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def refused() -> Iterator[Path]:
        raise Unsupported("tracefs cannot be had: Operation not permitted", resolution=tracing._REMEDY)
        yield Path()

    monkeypatch.setattr(tracing, "tracefs", refused)
    with pytest.raises(Unsupported) as caught:
        Hostkernel().look()
    assert "mount -t tracefs" in caught.value.resolution
    assert tracing.trace_instances({}) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="for a user who may not trace")
def test_a_user_without_the_right_to_trace_is_told() -> None:
    with pytest.raises(Unsupported):
        Hostkernel().look()


def test_one_that_stays_busy_is_said_to_be_left(tracefs: Path) -> None:
    (tracefs / "instances" / name_of(DEAD) / "per_cpu").mkdir(parents=True)  # not empty, which tracefs never minds
    (left,) = tracing.trace_instances({})
    began = time.monotonic()
    with pytest.raises(tracing.CleanupError, match="cannot be removed"):
        left.delete(timeout_s=0.1)
    assert time.monotonic() - began < 60
