"""What is read out of the pages of a kernel trace, whose it is, and what makes a trace of no use."""

from __future__ import annotations

import errno
import importlib
import os
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lab.cli.options import RunOptions
from lab.cli.start import intent
from lab.errors import CleanupError, MeasurementError, Unsupported
from lab.host.cgroup import name_of
from lab.host.ownership import Owner
from lab.host.tracing import instance
from lab.host.tracing.pages import BORN, CALL, EXEC, FORK, FUNCTION, STACK, Pages
from lab.host.tracing.traces import Symbols, Trace, pack, unpack
from lab.registry import make_scenario
from lab.run.clean import find
from lab.store.record import Outcome
from scenarios.hostkernel import Hostkernel, check_mix

OWN = {"lab.run": "20261122-120000-abcd", "lab.owner": str(Owner.current()), "lab.target": "docker:none"}
DEAD = {**OWN, "lab.run": "20261122-110000-dead", "lab.owner": str(replace(Owner.current(), start_ticks=1))}

# As a 6.18 kernel has them in events/header_page and events/*/*/format.
HEADER = """\
	field: u64 timestamp;	offset:0;	size:8;	signed:0;
	field: local_t commit;	offset:8;	size:8;	signed:1;
	field: int overwrite;	offset:8;	size:1;	signed:1;
	field: char data;	offset:16;	size:4080;	signed:0;
"""
COMMON = """\
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

"""
FORMATS = {
    STACK: "ID: 4\nformat:\n" + COMMON + "\tfield:int size;\toffset:8;\tsize:4;\tsigned:1;\n"
    "\tfield:unsigned long caller[8];\toffset:16;\tsize:64;\tsigned:0;\n",
    FUNCTION: "ID: 1\nformat:\n" + COMMON + "\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n"
    "\tfield:unsigned long parent_ip;\toffset:16;\tsize:8;\tsigned:0;\n"
    "\tfield:unsigned long args[];\toffset:24;\tsize:0;\tsigned:0;\n",
    CALL: "ID: 443\nformat:\n" + COMMON + "\tfield:long id;\toffset:8;\tsize:8;\tsigned:1;\n"
    "\tfield:unsigned long args[6];\toffset:16;\tsize:48;\tsigned:0;\n",
    FORK: "ID: 366\nformat:\n" + COMMON + "\tfield:__data_loc char[] parent_comm;\toffset:8;\tsize:4;\tsigned:0;\n"
    "\tfield:pid_t parent_pid;\toffset:12;\tsize:4;\tsigned:1;\n"
    "\tfield:__data_loc char[] child_comm;\toffset:16;\tsize:4;\tsigned:0;\n"
    "\tfield:pid_t child_pid;\toffset:20;\tsize:4;\tsigned:1;\n",
    EXEC: "ID: 365\nformat:\n" + COMMON + "\tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;\n"
    "\tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;\n\tfield:pid_t old_pid;\toffset:16;\tsize:4;\tsigned:1;\n",
    BORN: "ID: 205\nformat:\n" + COMMON + "\tfield:pid_t pid;\toffset:8;\tsize:4;\tsigned:1;\n"
    "\tfield:char comm[16];\toffset:12;\tsize:16;\tsigned:0;\n"
    "\tfield:u64 clone_flags;\toffset:32;\tsize:8;\tsigned:0;\n",
}
SYMBOLS = """\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000100 T do_syscall_64
ffffffff81000200 t tcp_ack.isra.0
ffffffff81000300 T tcp_v4_rcv
ffffffff81000400 t __irq_exit_rcu
ffffffff81000500 T trace_event_raw_event_sys_enter
ffffffff81000600 T kernel_clone
ffffffff81000700 d some_data
ffffffffc0100000 t ovl_open	[overlay]
"""
AT = {name: int(address, 16) for address, _, name, *_ in (line.split() for line in SYMBOLS.splitlines())}
HARD_INTERRUPT, SOFT_INTERRUPT = 0x08, 0x10


def event(number: int, tid: int, body: bytes, *, flags: int = 0, long: bool = False) -> bytes:
    """One as the ring buffer has it: the length in the head, or where it is too long for that in a word behind it."""
    record = struct.pack("=HBBi", number, flags, 0, tid) + body
    record += bytes(-len(record) % 4)
    if long or len(record) > 28 * 4:
        return word(0) + struct.pack("=I", len(record) + 4) + record
    return word(len(record) // 4) + record


def word(kind: int, delta: int = 1) -> bytes:
    return struct.pack("=I", kind | delta << 5 if sys.byteorder == "little" else kind << 27 | delta)


def stack(tid: int, *names: str, flags: int = 0) -> bytes:
    """Return addresses: behind a call within each."""
    return event(4, tid, struct.pack(f"=ii{len(names)}Q", len(names), 0, *(AT[n] + 5 for n in names)), flags=flags)


def call(tid: int, number: int) -> bytes:
    return event(443, tid, struct.pack("=q6Q", number, *[0] * 6))


def fork(parent: int, child: int) -> bytes:
    return event(366, parent, struct.pack("=IiIi", 0, parent, 0, child))


def program(tid: int, name: bytes) -> bytes:
    return event(365, tid, struct.pack("=Iii", (len(name) + 1) << 16 | 20, tid, tid) + name + b"\0")


def born(tid: int, child: int, flags: int) -> bytes:
    return event(205, tid, struct.pack("=i16sIQ", child, b"a b", 0, flags))


def page(*events: bytes, missed: bool = False) -> bytes:
    data = b"".join(events)
    return struct.pack("=QQ", 0, len(data) | (1 << 31 if missed else 0)) + data + bytes(4080 - len(data))


def read(*pages: bytes) -> Trace:
    seen = Trace()
    reader = Pages(HEADER, FORMATS)
    assert reader.page_bytes == 4096
    for one in pages:
        reader.read(one, seen)
    return seen


@pytest.fixture
def symbols(tmp_path: Path) -> Symbols:
    (tmp_path / "kallsyms").write_text(SYMBOLS)
    return Symbols.read(tmp_path / "kallsyms")


def test_a_childs_part_is_told_from_its_parents_and_from_others(symbols: Symbols) -> None:
    seen = read(
        page(
            call(100, 56),
            stack(100, "trace_event_raw_event_sys_enter", "do_syscall_64"),
            fork(100, 200),
            stack(100, "kernel_clone", "do_syscall_64"),
        ),
        page(program(200, b"/usr/bin/my runc"), call(200, 59), stack(7, "tcp_v4_rcv"), call(7, 39)),
    )
    assert seen.family([100]) == {100, 200}
    parent, child = seen.part({100}, symbols), seen.part({200}, symbols)
    assert parent.functions == {"do_syscall_64", "kernel_clone"}  # and none of the tracer's own
    assert parent.calls == Counter({56: 1})
    assert not parent.programs
    assert child.programs == {"/usr/bin/my runc"}
    assert child.calls == Counter({59: 1})


def test_what_an_interrupt_brought_in_is_nobodys(symbols: Symbols) -> None:
    seen = read(
        page(
            stack(200, "kernel_clone", flags=HARD_INTERRUPT),
            stack(200, "tcp_ack.isra.0", "tcp_v4_rcv", flags=SOFT_INTERRUPT),
            stack(200, "ovl_open", "__irq_exit_rcu", flags=SOFT_INTERRUPT),
        )
    )
    assert seen.part({200}, symbols).functions == {"tcp_ack", "tcp_v4_rcv"}


def test_a_return_address_behind_its_function_is_the_functions_own(symbols: Symbols) -> None:
    record = event(4, 1, struct.pack("=ii2Q", 2, 0, AT["tcp_v4_rcv"], 0xFFFFFFFFD0000000))
    assert read(page(record)).part({1}, symbols).functions == {"tcp_ack"}


def test_the_function_tracers_records_give_the_called(symbols: Symbols) -> None:
    entries = [event(1, 9, struct.pack("=QQ", AT[name], AT["do_syscall_64"])) for name in ("kernel_clone", "ovl_open")]
    interrupt = event(1, 9, struct.pack("=QQ", AT["tcp_v4_rcv"], 0), flags=HARD_INTERRUPT)
    part = read(page(*entries, interrupt, call(9, 3))).part({9}, symbols)
    assert part.functions == {"kernel_clone", "ovl_open"}
    assert part.calls == Counter({3: 1})


def test_what_is_no_event_is_passed_over() -> None:
    extended, stamped = word(30) + bytes(4), word(31) + bytes(4)
    discarded = word(29) + struct.pack("=I", 12) + b"\xff" * 8
    unknown = event(4000, 5, b"\xff" * 40)
    long = event(443, 5, struct.pack("=q6Q", 2, *[0] * 6), long=True)
    rest = word(29, delta=0)
    seen = read(page(call(5, 1), extended, stamped, discarded, unknown, long, call(5, 3), rest, call(5, 4)))
    assert seen.tasks[5].calls == Counter({1: 1, 2: 1, 3: 1})


def test_a_page_that_misses_events_is_refused() -> None:
    with pytest.raises(MeasurementError, match="lost events"):
        read(page(call(1, 1), missed=True))
    with pytest.raises(MeasurementError, match="not whole"):
        read(page(call(1, 1))[:20])


def test_other_formats_are_refused() -> None:
    with pytest.raises(Unsupported, match="other fields"):
        Pages(HEADER, FORMATS | {FORK: FORMATS[CALL]})
    with pytest.raises(Unsupported, match="unknown"):
        Pages("field: u64 timestamp;	offset:0;	size:8;	signed:0;", FORMATS)


def test_hidden_addresses_are_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text("0000000000000000 T _stext\n0000000000000000 t do_one\n")
    with pytest.raises(Unsupported) as caught:
        Symbols.read(tmp_path / "kallsyms")
    assert "kptr_restrict" in caught.value.resolution


def test_the_labs_own_threads_are_not_its_offspring() -> None:
    seen = read(
        page(
            *(fork(parent, child) for parent, child in ((10, 11), (10, 20), (11, 12), (11, 30), (30, 31))),
            born(10, 11, 0x3D0F00),
            born(11, 12, 0x3D0F00),
            born(30, 31, 0x3D0F00),
            born(10, 20, 0x1200011),
        )
    )
    assert seen.threads == {11, 12, 31}
    assert seen.offspring({10}) == {20, 30, 31}


def test_names_survive_packing() -> None:
    names = {"do_syscall_64", "__x64_sys_openat"}
    assert unpack(pack(names)) == names
    assert unpack(pack([])) == frozenset()


STATS = (
    "entries: 5\noverrun: {}\ncommit overrun: {}\nbytes: 99\noldest event ts: 1.5\ndropped events: {}\nread events: 0\n"
)


def test_nothing_lost_is_accepted() -> None:
    instance.refuse_losses("cpu0", STATS.format(0, 0, 0))


@pytest.mark.parametrize("losses", [(1, 0, 0), (0, 2, 0), (0, 0, 3)])
def test_lost_events_say_what_to_raise(losses: tuple[int, int, int]) -> None:
    with pytest.raises(MeasurementError, match="lost events on cpu1") as caught:
        instance.refuse_losses("cpu1", STATS.format(*losses))
    assert "buffer" in caught.value.resolution


def test_a_mix_that_was_seen_otherwise_is_no_figure() -> None:
    made = {39: ("getpid", 3), 110: ("getppid", 2)}
    check_mix(made, {39: 3, 110: 2, 1: 99})
    for seen in ({39: 3}, {39: 4, 110: 2}, {}):
        with pytest.raises(MeasurementError) as caught:
            check_mix(made, seen)
        assert "made" in caught.value.details


def test_repeats_are_alike_by_what_half_of_them_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "accept"))
    jaccard = importlib.import_module("hostkernel_accept").jaccard
    a, b, c = frozenset("xyz"), frozenset("xyw"), frozenset("xy")
    assert jaccard([a, b, c]) == [1.0, 1.0, 1.0]  # z and w were seen once
    assert jaccard([a, frozenset("x")]) == [pytest.approx(1 / 3)]
    assert jaccard([frozenset(), frozenset()]) == [0.0]


@pytest.fixture
def tracefs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for tracefs."""
    (tmp_path / "instances").mkdir()

    @contextmanager
    def at() -> Iterator[Path]:
        yield tmp_path

    monkeypatch.setattr(instance, "tracefs", at)
    return tmp_path


def test_instances_of_the_dead_are_found_and_others_left(tracefs: Path) -> None:
    for name in (name_of(OWN), name_of(DEAD), "somebody's", "perf&run"):
        (tracefs / "instances" / name).mkdir()
    found = {item.labels["lab.run"]: item for item in find([], {}).found if item.kind == instance.KIND}
    assert {run: item.fate for run, item in found.items()} == {
        OWN["lab.run"]: "live owner",
        DEAD["lab.run"]: "remove",
    }
    found[DEAD["lab.run"]].thing.delete()
    assert {path.name for path in (tracefs / "instances").iterdir()} == {name_of(OWN), "somebody's", "perf&run"}
    found[DEAD["lab.run"]].thing.delete()  # gone is gone
    assert [one.labels["lab.run"] for one in instance.trace_instances({"lab.run": OWN["lab.run"]})] == [OWN["lab.run"]]


def test_a_host_without_tracing_is_skipped_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def refused() -> Iterator[Path]:
        raise Unsupported("tracefs cannot be had: Operation not permitted", resolution=instance._REMEDY)
        yield Path()

    monkeypatch.setattr(instance, "tracefs", refused)
    monkeypatch.setattr(instance, "_HOSTS_PIDS", str(Path("/proc/self/ns/pid").readlink()))
    with pytest.raises(Unsupported) as caught:
        Hostkernel().look()
    assert "mount -t tracefs" in caught.value.resolution
    assert instance.trace_instances({}) == []
    with intent(make_scenario("hostkernel", {}), RunOptions(targets=["process"]), {}) as plan:
        (record,) = [entrant.record for entrant in plan.entrants]
    assert record.outcome is Outcome.SKIPPED
    assert "mount -t tracefs" in record.remedy


@pytest.mark.parametrize(("number", "remedy"), [(errno.ENOMEM, "--param buffer=N"), (errno.EPERM, "lockdown")])
def test_an_instance_that_cannot_be_set_up_says_what_would_help(
    tracefs: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(instance, "_set_up", refused)
    with pytest.raises(Unsupported) as caught, instance.tracing(OWN, buffer_bytes=1 << 20):
        pass
    assert remedy in caught.value.resolution
    assert not list((tracefs / "instances").iterdir())


def test_a_lab_in_another_pid_namespace_attributes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pid").symlink_to("pid:[4026532199]")
    monkeypatch.setattr(instance, "_OWN_PIDS", tmp_path / "pid")
    with pytest.raises(Unsupported, match="process ids of the host's own namespace"):
        Hostkernel().look()


@pytest.mark.parametrize(("switch", "method"), [("0", instance.Method.STACKS), ("1", instance.Method.FUNCTION)])
def test_a_function_tracer_that_is_switched_off_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str, method: instance.Method
) -> None:
    for name in ("current_tracer", "ftrace_enabled"):
        (tmp_path / name).write_text(switch)
    monkeypatch.setattr(instance, "_SWITCH", tmp_path / "ftrace_enabled")
    assert instance._method(tmp_path) is method


@pytest.mark.skipif(os.geteuid() == 0, reason="for a user who may not trace")
def test_a_user_without_the_right_to_trace_is_told() -> None:
    with pytest.raises(Unsupported):
        Hostkernel().look()


def test_one_that_stays_busy_is_said_to_be_left(tracefs: Path) -> None:
    (tracefs / "instances" / name_of(DEAD) / "per_cpu").mkdir(parents=True)  # not empty, which tracefs never minds
    (left,) = instance.trace_instances({})
    began = time.monotonic()
    with pytest.raises(CleanupError, match="cannot be removed"):
        left.delete(timeout_s=0.1)
    assert time.monotonic() - began < 60
