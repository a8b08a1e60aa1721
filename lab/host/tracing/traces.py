"""What a kernel's trace shows of every task (thread), and whose each part is."""

from __future__ import annotations

import base64
import bisect
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from lab.errors import Unsupported

KTHREADD = 2
"""The parent of all kernel threads."""

_KALLSYMS = Path("/proc/kallsyms")
_MODULES = Path("/proc/modules")
_SYMBOL = re.compile(r"^([0-9a-f]+) [tTwW] ([A-Za-z_][\w$]*)", re.MULTILINE)
_LONGEST_FUNCTION = 1 << 20
"""What is further behind a symbol is none of its own: a trampoline, or generated code."""
_INTERRUPTED = (
    *("irq_exit", "__irq_exit", "asm_sysvec_", "asm_common_interrupt", "common_interrupt", "do_IRQ"),
    *("el1h_64_irq", "el0t_64_irq", "el1_irq", "el0_irq", "call_on_irq_stack"),
)
_TRACERS = re.compile(r"trace_event_|__?trace_|\w*_do_trace_|perf_trace_|__traceiter_|ftrace_|syscall_trace_enter$")


@dataclass(slots=True)
class Task:
    """What one task was seen to do: addresses of functions called, return addresses on its stacks (native words, the
    innermost first), its system calls by number, and the programs that it became."""

    called: set[int] = field(default_factory=set)
    stacks: set[bytes] = field(default_factory=set)
    calls: Counter[int] = field(default_factory=Counter)
    programs: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Part:
    """What some tasks did together: kernel functions, system calls by number, programs that they became."""

    functions: frozenset[str]
    calls: Counter[int]
    programs: frozenset[str]


class Symbols:
    """The kernel's functions by address."""

    def __init__(self, functions: Iterable[tuple[int, str]]) -> None:
        ordered = sorted(functions)
        self._addresses = [address for address, _ in ordered]
        self._names = [name for _, name in ordered]

    @classmethod
    def read(cls, path: Path = _KALLSYMS) -> Symbols:
        """This kernel's, with its modules' (Documentation/admin-guide/sysctl/kernel.rst, 'kptr_restrict'). What the
        compiler made of one (`.isra.0`, `.cold`) has its name. Raises Unsupported where they are hidden."""
        found = [(int(address, 16), name) for address, name in _SYMBOL.findall(path.read_text())]
        if not any(address for address, _ in found):
            raise Unsupported(
                "the kernel hides the addresses of its functions", resolution="as root: sysctl kernel.kptr_restrict=1"
            )
        return cls(found)

    @classmethod
    def now(cls) -> Symbols:
        """This kernel's, read again only where its modules have changed. Raises Unsupported."""
        return _of_modules(_MODULES.read_text() if _MODULES.exists() else "")

    def name(self, address: int) -> str:
        """Of the function that `address` lies in; empty where there is none."""
        at = bisect.bisect_right(self._addresses, address) - 1
        if at < 0 or address - self._addresses[at] > _LONGEST_FUNCTION:
            return ""
        return self._names[at]


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

    def part(self, tasks: Set[int], symbols: Symbols) -> Part:
        """What `tasks` did. What runs because an interrupt ended is left out, as it comes at whosever time it is; so is
        what the tracing itself does."""
        mine = [found for task, found in self.tasks.items() if task in tasks]
        names = {symbols.name(address) for task in mine for address in task.called}
        for stack in set().union(*(task.stacks for task in mine)):
            # A return address is behind the call, and where the call is a function's last, behind the function.
            own = [symbols.name(address - 1) for address in _words(stack)]
            if not any(name.startswith(_INTERRUPTED) for name in own):
                names.update(own)
        calls: Counter[int] = Counter()
        for task in mine:
            calls.update(task.calls)
        return Part(
            frozenset(name for name in names if name and not _TRACERS.match(name)),
            calls,
            frozenset().union(*(task.programs for task in mine)),
        )


@lru_cache(maxsize=1)
def _of_modules(_: str) -> Symbols:
    return Symbols.read()


def pack(names: Iterable[str]) -> str:
    """A set of names as a short text for a record: base64 of zlib of the sorted lines."""
    return base64.b64encode(zlib.compress("\n".join(sorted(names)).encode(), 9)).decode()


def unpack(text: str) -> frozenset[str]:
    """The inverse of `pack`."""
    return frozenset(zlib.decompress(base64.b64decode(text)).decode().split())


def _words(stack: bytes) -> Sequence[int]:
    return [address for (address,) in struct.iter_unpack("=Q", stack)]
