"""How a service that ended by itself is told, the same for every target: its status or signal, and its last lines.

A service that ended before it was ready is a failed launch, also where its engine would start it again, unless that was
asked for (`Restart.BEST`).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal as signals
import threading
from collections.abc import Callable
from dataclasses import dataclass

from lab.driver import Mark
from lab.errors import LaunchError
from lab.host.procs import Process
from lab.launch.output import Output
from lab.units import MIB

LINES = 10
"""So many of its last lines go with the error."""

_SIGNALLED = 128  # what shells, container engines and the guest's init add to a signal's number
_KERNELS = re.compile(r"\[ *\d+\.\d{6}\] ")
_LOOK_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a service ended; neither `status` nor `signal` where nobody can tell. `out_of_memory`: the kernel had killed
    a process of it for its limit of memory; `refused_memory`: it had refused one what was more than there is."""

    status: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    refused_memory: bool = False

    @classmethod
    def by_code(cls, code: int, *, out_of_memory: bool = False) -> Ending:
        """Of an engine's exit code, which is 128 and the signal's number for one that a signal ended."""
        number = code - _SIGNALLED
        if number in signals.valid_signals():
            return cls(signal=number, out_of_memory=out_of_memory)
        return cls(status=code, out_of_memory=out_of_memory)

    def error(self, *, memory_bytes: int, output: bytes = b"") -> LaunchError:
        """The error of a launch whose service ended so; `memory_bytes` is its limit, `output` the end of what it
        wrote."""
        wanted = f"it wanted more than the {memory_bytes / MIB:g} MiB of --memory"
        told = f"the service {self._how()}"
        if self.out_of_memory:
            by_kernel = self.signal == signals.SIGKILL
            told = (
                f"the service was killed: {wanted}"
                if by_kernel
                else f"{told} after a process of it was killed: {wanted}"
            )
        elif self.refused_memory:
            told = f"{told} after the kernel had refused it memory: {wanted}"
        more = self.out_of_memory or self.refused_memory
        return LaunchError(told, details=last_lines(output), resolution="give it more by --memory" if more else "")

    def _how(self) -> str:
        if self.signal is not None:
            return f"was ended by signal {_name(self.signal)}"
        return "ended by itself" if self.status is None else f"ended with exit status {self.status}"


def last_lines(output: bytes) -> str:
    """The last ten lines of `output` that are not empty, as text: of a guest's console without its kernel's own, where
    there are others."""
    lines = [line for line in map(str.rstrip, output.decode(errors="replace").splitlines()) if line]
    said = [line for line in lines if not _KERNELS.match(line)]
    return "\n".join((said or lines)[-LINES:])


class ChildWatch:
    """Waits for the end of `pid`, a child of this process, and tells `mark` of it, unless `expect` was called before.

    `output` is what it writes; `killed_for_memory` says whether the kernel killed for its limit of `memory_bytes`. With
    `reap` the child is reaped once it has ended; else that stays with the caller. Where it is not the service `itself`,
    but the sandbox around it, its status says nothing, or by `told_by` how the service ended.
    """

    def __init__(
        self,
        pid: int,
        mark: Mark,
        *,
        output: Output,
        memory_bytes: int,
        killed_for_memory: Callable[[], bool],
        reap: bool,
        itself: bool = True,
        told_by: Callable[[Ending], Ending] | None = None,
    ) -> None:
        self._pid = pid
        self._process = Process.of(pid)
        self._mark = mark
        self._output = output
        self._memory_bytes = memory_bytes
        self._killed_for_memory = killed_for_memory
        self._reap = reap
        self._itself = itself
        self._told_by = told_by
        self._expected = False
        self._thread = threading.Thread(target=self._run, name=f"end of {pid}", daemon=True)
        self._thread.start()

    def expect(self) -> None:
        """From here on its end is no failure of the launch. Idempotent."""
        self._expected = True

    def _run(self) -> None:
        ending = self._await()
        if self._expected:
            return
        self._output.await_end()
        out_of_memory = self._killed_for_memory()
        ending = Ending(status=ending.status, signal=ending.signal, out_of_memory=out_of_memory)
        self._mark.failed(ending.error(memory_bytes=self._memory_bytes, output=self._output.tail()))

    def _await(self) -> Ending:
        try:
            told = os.waitid(os.P_PID, self._pid, os.WEXITED | (0 if self._reap else os.WNOWAIT))
        except ChildProcessError:  # another's child, or reaped already: the kernel tells that it ended, and not how
            while self._process is not None and not self._process.wait(_LOOK_S):
                pass
            return Ending()
        assert told is not None  # noqa: S101  it waited
        if not self._itself:
            return Ending()
        ending = Ending(status=told.si_status) if told.si_code == os.CLD_EXITED else Ending(signal=told.si_status)
        return ending if self._told_by is None else self._told_by(ending)


def _name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return f"{signals.Signals(number).name} ({number})"
    return str(number)  # the real-time signals between the first and the last have no name
