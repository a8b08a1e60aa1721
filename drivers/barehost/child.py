"""A program that the lab started and stays the parent of: its lines are handed on as they come, its end is told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from lab.driver import Mark
from lab.host.procs import Process
from lab.launch.ends import ChildWatch, Ending
from lab.launch.output import Output

_KILL_TIMEOUT_S = 10.0


class Child:
    """A child of this lab, whose output comes by its pipe; `killed_for_memory` says whether the kernel killed for its
    limit. Where `told_by` is given, the child is a tool that tells by its status how the service ended."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        mark: Mark,
        *,
        memory_bytes: int,
        killed_for_memory: Callable[[], bool],
        told_by: Callable[[Ending], Ending] | None = None,
    ) -> None:
        # One that has ended already is a zombie, which no signal is sent to.
        self.process = Process.of(child.pid) or Process(0, child.pid)
        self._child = child
        assert child.stdout is not None  # noqa: S101  it was asked for
        descriptor = os.dup(child.stdout.fileno())
        child.stdout.close()
        self._output = Output(descriptor, mark, name=str(child.pid))
        self._watch = ChildWatch(
            child.pid,
            mark,
            output=self._output,
            memory_bytes=memory_bytes,
            killed_for_memory=killed_for_memory,
            told_by=told_by,
            reap=False,  # until `reap` its number is its own (see `Members.kill`)
        )

    def tail(self) -> bytes:
        """What was written so far, the last 64 KiB."""
        return self._output.tail()

    def expect_end(self) -> None:
        """From here on its end is no failure of the launch."""
        self._watch.expect()

    def reap(self) -> None:
        """Give its number back, once it was killed."""
        self._child.wait(timeout=_KILL_TIMEOUT_S)

    def await_output(self) -> None:
        """Return when all that it wrote was handed on, or soon."""
        self._output.await_end()

    def close(self) -> None:
        """Wait for the end of its output: the writers are dead, so that the pipe has an end, and the thread with it."""
        self._output.close()
