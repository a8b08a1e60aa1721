"""Reads the text of a kernel trace (Documentation/trace/ftrace.rst), and tells whose each part is.

Of every task is kept which functions it was seen in, what it called, whom it forked and what it executed; whose tasks
they are is told afterwards, by `Trace.family`.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from lab.errors import MeasurementError

KTHREADD = 2
"""The parent of all kernel threads."""

_COMM_BYTES = 16
"""The kernel writes '%16s-%-7d': a task's name, of at most 15 bytes of any kind, and its id."""
_HEAD = re.compile(rb"-(\d+) +(?:\( *[\d-]+\) +)?\[\d+\] +(\S+) +[\d.]+: (.*)", re.DOTALL)
_STACK = b"<stack trace>"
_ENTRY = b" => "
_EVENT = re.compile(rb"(\w+): (.*)", re.DOTALL)
_CALLED = re.compile(rb"(\S+)(?: \[\S+\])? <-")
_CHILD = re.compile(rb" child_pid=(\d+)\s*$")
_BORN = re.compile(rb"pid=(\d+) comm=.* clone_flags=([0-9a-f]+) ", re.DOTALL)
_CLONE_THREAD = 0x10000  # clone(2), linux/sched.h
_EXECUTED = re.compile(rb"filename=(.*) pid=(\d+) old_pid=(\d+)\s*$", re.DOTALL)
_NUMBER = re.compile(rb"NR (-?\d+)")
_NAME = re.compile(rb"[A-Za-z_][\w$]*")
_INTERRUPTS = frozenset(b"hHzZ")
_INTERRUPTED = (b"irq_exit", b"__irq_exit", b"asm_sysvec_", b"asm_common_interrupt", b"common_interrupt", b"do_IRQ")
_INTERRUPTED_ARM = (b"el1h_64_irq", b"el0t_64_irq", b"el1_irq", b"el0_irq", b"call_on_irq_stack")
_TRACERS = re.compile(
    rb"trace_event_|__?trace_|\w*_do_trace_|perf_trace_|__traceiter_|ftrace_|function_trace|syscall_trace_enter$"
)


@dataclass(slots=True)
class Task:
    """What one task (a thread) was seen to do; functions as the trace writes them."""

    functions: set[bytes] = field(default_factory=set)
    calls: Counter[int] = field(default_factory=Counter)
    programs: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Part:
    """What some tasks did together: kernel functions, system calls by number, programs that they became."""

    functions: frozenset[str]
    calls: Counter[int]
    programs: frozenset[str]


@dataclass(slots=True)
class Trace:
    """A whole trace, by task; `children` are those forked while it was taken, and `threads` the children that are no
    processes of their own."""

    tasks: dict[int, Task] = field(default_factory=dict)
    children: dict[int, set[int]] = field(default_factory=dict)
    threads: set[int] = field(default_factory=set)

    def family(self, roots: Iterable[int]) -> set[int]:
        """The tasks `roots`, what they forked, and so on."""
        found: set[int] = set()
        pending = list(roots)
        while pending:
            task = pending.pop()
            if task not in found:
                found.add(task)
                pending += self.children.get(task, ())
        return found

    def offspring(self, threads: Iterable[int]) -> set[int]:
        """The processes that `threads`, or other threads of theirs, forked, and what those forked in turn."""
        found: set[int] = set()
        own, pending = set(threads), list(threads)
        while pending:
            for child in self.children.get(pending.pop(), set()) - own:
                if child in self.threads:
                    own.add(child)
                    pending.append(child)
                else:
                    found |= self.family([child])
        return found

    def part(self, tasks: Set[int]) -> Part:
        """What `tasks` did."""
        mine = [found for task, found in self.tasks.items() if task in tasks]
        lines: set[bytes] = set().union(*(task.functions for task in mine))
        names = {name for line in lines if (name := _name(line))}
        calls: Counter[int] = Counter()
        for task in mine:
            calls.update(task.calls)
        return Part(frozenset(names), calls, frozenset().union(*(task.programs for task in mine)))


def read_trace(lines: Iterable[bytes], *, into: Trace) -> None:
    """Add the text of one CPU's trace. The same task's stack follows its event on its CPU, perhaps after an
    interrupt's. What ran in an interrupt, or because one ended, is left out: it ran on whosever time it was.

    Raises MeasurementError where the text is not a trace's."""
    functions: set[bytes] | None = None
    stack: list[bytes] = []
    for line in lines:
        if line.startswith(_ENTRY):
            stack.append(line)
            continue
        if stack:
            _keep(stack, functions)
            stack, functions = [], None
        if line.startswith(b"#") or not line.strip():
            continue
        head = _HEAD.match(line, _COMM_BYTES)
        if head is None:
            if line.startswith(b"CPU:") and b"LOST" in line:
                raise MeasurementError("the kernel's trace lost events", resolution="give --param buffer=N with more")
            raise MeasurementError("a line of the kernel's trace cannot be read", details=repr(line))
        task = into.tasks.setdefault(int(head[1]), Task())
        functions = None
        if len(head[2]) > 2 and head[2][2] in _INTERRUPTS:
            continue
        if head[3].startswith(_STACK):
            functions = task.functions
        else:
            _event(head[3], int(head[1]), task, into)


def pack(names: Iterable[str]) -> str:
    """A set of names as a short text for a record: base64 of zlib of the sorted lines."""
    return base64.b64encode(zlib.compress("\n".join(sorted(names)).encode(), 9)).decode()


def unpack(text: str) -> frozenset[str]:
    """The inverse of `pack`."""
    return frozenset(zlib.decompress(base64.b64decode(text)).decode().split())


def _event(text: bytes, tid: int, task: Task, seen: Trace) -> None:
    """The forking task is the one that runs: its name in the event may hold anything."""
    called = _CALLED.match(text)
    if called:
        task.functions.add(called[1])
        return
    event = _EVENT.match(text)
    if event is None:
        return
    if event[1] == b"sys_enter" and (number := _NUMBER.match(event[2])):
        task.calls[int(number[1])] += 1
    elif event[1] == b"sched_process_fork" and (child := _CHILD.search(event[2])):
        seen.children.setdefault(tid, set()).add(int(child[1]))
    elif event[1] == b"task_newtask" and (born := _BORN.match(event[2])):
        if int(born[2], 16) & _CLONE_THREAD:
            seen.threads.add(int(born[1]))
    elif event[1] == b"sched_process_exec" and (done := _EXECUTED.match(event[2])):
        task.programs.add(done[1].decode(errors="replace"))
        if done[2] != done[3]:  # a thread that takes its whole process's id (execve(2))
            seen.children.setdefault(int(done[3]), set()).add(int(done[2]))


def _keep(stack: list[bytes], functions: set[bytes] | None) -> None:
    if functions is None:
        return
    new = [line for line in stack if line not in functions]
    if new and not any(line.startswith(_BROUGHT_IN) for line in stack):
        functions.update(new)


def _name(line: bytes) -> str:
    """The function's name without what the compiler made of it (`.isra.0`, `.cold`) and its module; empty for an
    address without one, and for the tracer's own."""
    found = _NAME.match(line.removeprefix(_ENTRY).strip())
    return "" if found is None or _TRACERS.match(found[0]) else found[0].decode()


_BROUGHT_IN = tuple(_ENTRY + name for name in (*_INTERRUPTED, *_INTERRUPTED_ARM))
