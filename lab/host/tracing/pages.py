"""Reads the pages of a kernel's trace buffers, as trace_pipe_raw gives them (Documentation/trace/ring-buffer-map.rst;
linux/ring_buffer.h; events/header_page, events/header_event and events/*/format in tracefs).

The kernel writes them out unformatted: the text that it would make of them takes many times as long.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.errors import MeasurementError, Unsupported
from lab.host.tracing.traces import Task, Trace

STACK, FUNCTION = "ftrace/kernel_stack", "ftrace/function"
CALL, FORK = "raw_syscalls/sys_enter", "sched/sched_process_fork"
EXEC, BORN = "sched/sched_process_exec", "task/task_newtask"

_FIELD = re.compile(r"field:[^;]*?(\w+)(?:\[\w*\])?;\s*offset:(\d+);\s*size:(\d+);")
_ID = re.compile(r"^ID: (\d+)$", re.MULTILINE)
_LITTLE = sys.byteorder == "little"
_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31  # enum ring_buffer_type
_MISSED = 1 << 31  # of the page's commit: events were lost before it
_COMMITTED = (1 << 20) - 1
_IN_INTERRUPT = 0x08 | 0x40  # TRACE_FLAG_HARDIRQ, TRACE_FLAG_NMI
_CLONE_THREAD = 0x10000  # linux/sched.h
_HEAD = struct.Struct("=HBBi")  # common_type, common_flags, common_preempt_count, common_pid
_WORD = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Format:
    """One event's number, and where its fields are (offset and size in bytes)."""

    id: int
    fields: Mapping[str, tuple[int, int]]

    @classmethod
    def parse(cls, text: str) -> Format:
        """Of an events/*/*/format. Raises Unsupported."""
        number = _ID.search(text)
        if number is None:
            raise Unsupported("this kernel's tracepoints cannot be read")
        return cls(int(number[1]), _fields(text))

    def get(self, record: bytes, name: str) -> int:
        """An unsigned number of `record`."""
        offset, size = self.fields[name]
        return int.from_bytes(record[offset : offset + size], sys.byteorder)

    def text(self, record: bytes, name: str) -> str:
        """A __data_loc field: its number holds where the text is, and how long."""
        place = self.get(record, name)
        start, length = place & 0xFFFF, place >> 16
        return record[start : start + length].partition(b"\0")[0].decode(errors="replace")


class Pages:
    """Reads pages into a Trace. `header` is events/header_page, `formats` those of the events wanted, by name. Raises
    Unsupported where they are not what is known here."""

    def __init__(self, header: str, formats: Mapping[str, str]) -> None:
        page = _fields(header)
        try:
            self._commit = page["commit"]
            self._data = page["data"][0]
            self.page_bytes = sum(page["data"])
            read = {name: Format.parse(text) for name, text in formats.items()}
            for name, wanted in _WANTED.items():
                if name in read and not wanted <= set(read[name].fields):
                    raise Unsupported(f"this kernel's tracepoint {name} has other fields")
        except KeyError as error:
            raise Unsupported(f"this kernel's trace buffers cannot be read: {error} is unknown") from error
        self._readers: dict[int, Callable[[bytes, int, Task, Trace], None]] = {}
        for name, found in read.items():
            self._readers[found.id] = _READERS[name](found)

    def read(self, page: bytes, into: Trace) -> None:
        """Add one page. What ran in an interrupt is left out: it comes at whosever time it is. Raises MeasurementError
        where events were lost before it, or it is not whole."""
        commit = int.from_bytes(page[self._commit[0] : sum(self._commit)], sys.byteorder)
        at, end = self._data, self._data + (commit & _COMMITTED)
        if commit & _MISSED:
            raise MeasurementError("the kernel's trace lost events", resolution="give --param buffer=N with more MiB")
        if end > len(page):
            raise MeasurementError("a page of the kernel's trace is not whole")
        readers, tasks, unpack_word, unpack_head = self._readers, into.tasks, _WORD.unpack_from, _HEAD.unpack_from
        while at + 4 <= end:
            (word,) = unpack_word(page, at)
            kind, delta = (word & 31, word >> 5) if _LITTLE else (word >> 27, word & 0x7FFFFFF)
            start = at + 4
            if kind == 0:  # the length is in a word of its own, which it includes
                at = start + unpack_word(page, start)[0]
                start += 4
            elif kind < _PADDING:
                at = start + kind * 4
            elif kind == _PADDING:
                if delta == 0:
                    return
                at = start + unpack_word(page, start)[0]
                continue
            else:
                at = start + 4
                continue
            number, flags, _, tid = unpack_head(page, start)
            reader = readers.get(number)
            if reader is None or flags & _IN_INTERRUPT:
                continue
            task = tasks.get(tid)
            if task is None:
                task = tasks[tid] = Task()
            reader(page[start:at], tid, task, into)


def _stack(form: Format) -> Callable[[bytes, int, Task, Trace], None]:
    begin = form.fields["caller"][0]

    def read(record: bytes, _tid: int, task: Task, _seen: Trace) -> None:
        # `size` counts the entries; a record may be longer, as its space was reserved before the stack was walked.
        length = min(form.get(record, "size") * 8, (len(record) - begin) // 8 * 8)
        task.stacks.add(record[begin : begin + length])

    return read


def _function(form: Format) -> Callable[[bytes, int, Task, Trace], None]:
    return lambda record, _tid, task, _seen: task.called.add(form.get(record, "ip"))


def _call(form: Format) -> Callable[[bytes, int, Task, Trace], None]:
    def read(record: bytes, _tid: int, task: Task, _seen: Trace) -> None:
        task.calls[form.get(record, "id")] += 1

    return read


def _fork(form: Format) -> Callable[[bytes, int, Task, Trace], None]:
    """The one that forks is the one that runs."""
    return lambda record, tid, _task, seen: seen.children.setdefault(tid, set()).add(form.get(record, "child_pid"))


def _exec(form: Format) -> Callable[[bytes, int, Task, Trace], None]:
    def read(record: bytes, _tid: int, task: Task, seen: Trace) -> None:
        task.programs.add(form.text(record, "filename"))
        now, before = form.get(record, "pid"), form.get(record, "old_pid")
        if now != before:  # a thread that takes its whole process's id (execve(2))
            seen.children.setdefault(before, set()).add(now)

    return read


def _born(form: Format) -> Callable[[bytes, int, Task, Trace], None]:
    def read(record: bytes, _tid: int, _task: Task, seen: Trace) -> None:
        if form.get(record, "clone_flags") & _CLONE_THREAD:
            seen.threads.add(form.get(record, "pid"))

    return read


def _fields(text: str) -> dict[str, tuple[int, int]]:
    return {name: (int(offset), int(size)) for name, offset, size in _FIELD.findall(text)}


_READERS: Mapping[str, Callable[[Format], Callable[[bytes, int, Task, Trace], None]]] = {
    STACK: _stack,
    FUNCTION: _function,
    CALL: _call,
    FORK: _fork,
    EXEC: _exec,
    BORN: _born,
}
_WANTED: Mapping[str, set[str]] = {
    STACK: {"size", "caller"},
    FUNCTION: {"ip"},
    CALL: {"id"},
    FORK: {"child_pid"},
    EXEC: {"filename", "pid", "old_pid"},
    BORN: {"pid", "clone_flags"},
}
