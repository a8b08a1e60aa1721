"""The guest's serial console: a pair of FIFOs that the lab reads as they are written, from the first byte.

A FIFO keeps what QEMU writes until it is read (a pty or a listening socket drops what comes before the reader), it
needs no virtlogd in between, and libvirt's AppArmor profile grants it. The lab opens both ends before QEMU does, so
that it keeps them where libvirt then gives the files to QEMU's user. Why the guest's service ended is read off it too.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lab.driver import Mark
from lab.errors import LaunchError
from lab.launch.ends import LINES, Ending, last_lines
from lab.timeline import Phase, Source

KEPT_BYTES = 64 * 1024
STOP_LINE = b"lab-guest stop\n"
"""What the guest's init reads from its console as the request to end."""
_KERNEL_OUTPUT = re.compile(rb"\[ *\d+\.\d{6}\] ")
_EXIT = re.compile(rb"lab-guest exit (\d{1,3})$")
_REFUSED = re.compile(rb"lab-guest error: (.+)")
_OUT_OF_MEMORY = re.compile(
    rb"Out of memory: Killed process|Kernel panic - not syncing: .*(?:deadlocked on|out of) memory"
)
"""What Linux says (mm/oom_kill.c), on the console at any of its levels: `loglevel=6` leaves errors and panics there."""
_REFUSED_MEMORY = re.compile(rb"__vm_enough_memory: .*no enough memory for the allocation")
"""Also of Linux (mm/util.c): more at once than the whole guest has, where a container's limit lets it try."""
_NOT_RUN = (126, 127)


class Console:
    """Reads the console at `path` until `close`, hands each line to `mark`, and keeps the last 64 KiB."""

    def __init__(
        self,
        path: Path,
        mark: Mark,
        heard: Callable[[bytes], None] = lambda _: None,
        hung_up: Callable[[], None] = lambda: None,
        shown: Callable[[bytes], Phase | None] = lambda _: None,
    ) -> None:
        """Make `path.in` and `path.out`, and start to read. After `mark`, `heard` gets each line; `hung_up` is called
        once QEMU, having written something, has ended and all that it wrote was read. `shown` says which phase a line
        shows that is none of the service's. Raises OSError."""
        self.path = path
        self._mark = mark
        self._heard = heard
        self._hung_up = hung_up
        self._shown = shown
        self._guarded = False
        self._kept = bytearray()
        self._pending = b""
        self._kernel_seen = False
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._closed = False
        for end in fifos(path):
            os.mkfifo(end, 0o600)
        # Read-write, so that neither end of a FIFO ever waits for the other, nor sees the end of the file.
        self._output, self._input = (os.open(end, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC) for end in fifos(path))
        self._wake_read, self._wake_write = os.pipe()
        self._reader = threading.Thread(target=self._read, name=f"console {path.name}", daemon=True)
        self._reader.start()

    def text(self) -> bytes:
        """The last 64 KiB."""
        with self._lock:
            return bytes(self._kept)

    def write(self, data: bytes) -> bool:
        """Type `data` into the guest; False when it does not take it."""
        with self._closing:
            if self._closed:
                return False
            try:
                return os.write(self._input, data) == len(data)
            except (BlockingIOError, BrokenPipeError):
                return False

    def close(self) -> None:
        """Read what is left, end the reader and remove the FIFOs. Idempotent."""
        with self._closing:  # also: a descriptor's number may be another file's once it is closed
            if not self._closed:
                self._closed = True
                os.write(self._wake_write, b"x")
                self._reader.join()
                for descriptor in (self._output, self._input, self._wake_read, self._wake_write):
                    os.close(descriptor)
        remove_fifos(self.path)

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._output in ready:
                self._take(os.read(self._output, 65536))
                if not self._guarded:
                    self._guard(poll)
            elif self._wake_read in ready:
                break
            else:
                poll.unregister(self._input)
                self._hung_up()
        if self._pending:
            self._line(self._pending, self._mark)

    def _guard(self, poll: select.poll) -> None:
        """From here on QEMU alone reads what is typed, so that the kernel tells of its end: nobody reads any more."""
        # Never waited for: who closes holds it, and waits for this thread.
        if self._closing.acquire(blocking=False):
            try:
                typing = os.open(fifos(self.path)[1], os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                os.close(self._input)
                self._input = typing
                poll.register(typing, 0)  # errors are told unasked
                self._guarded = True
            finally:
                self._closing.release()

    def _take(self, data: bytes) -> None:
        mark = self._mark.moment()
        if not self._kernel_seen and _KERNEL_OUTPUT.search(self._pending + data):
            self._kernel_seen = True
            mark(Phase.KERNEL, source=Source.CONSOLE)
        *lines, self._pending = (self._pending + data).split(b"\n")
        with self._lock:
            self._kept += data
            del self._kept[:-KEPT_BYTES]
        for line in lines:
            self._line(line.rstrip(b"\r"), mark)

    def _line(self, line: bytes, mark: Mark) -> None:
        if phase := self._shown(line):
            mark(phase, source=Source.CONSOLE)
        mark.line(line, source=Source.CONSOLE)
        self._heard(line)


class GuestEnd:
    """Takes the console's lines; tells `failed` once the guest's init says that its workload has ended, which is a
    second or more before the machine is off. `console` gives the end of what the guest wrote, `unasked` says whether
    nobody here asked for the end."""

    def __init__(
        self,
        failed: Callable[[LaunchError], None],
        *,
        console: Callable[[], bytes],
        unasked: Callable[[], bool],
        memory_bytes: int,
    ) -> None:
        self._failed = failed
        self._unasked = unasked
        self._memory_bytes = memory_bytes
        self._console = console
        self._out_of_memory = False
        self._refused_memory = False
        self._refusal = b""
        self._told = False

    def line(self, text: bytes) -> None:
        """The guest wrote this line just now; from the console's thread."""
        if found := _EXIT.search(text):
            self.tell(self._error(int(found[1])))
            return
        if found := _REFUSED.search(text):
            self._refusal = found[1]
        self._out_of_memory |= _OUT_OF_MEMORY.search(text) is not None
        self._refused_memory |= _REFUSED_MEMORY.search(text) is not None

    def gone(self) -> None:
        """QEMU or its domain ended though nobody asked it to."""
        if self._out_of_memory:
            self.tell(self._error(128 + 9))
        lines = [line.strip() for line in self._console().decode(errors="replace").splitlines()]
        told = [line for line in lines if line.startswith("lab-guest ") or "Kernel panic" in line]
        why = told[-1][:200] if told else "it did not say why, as where QEMU is killed"
        self.tell(LaunchError(f"the guest ended by itself: {why}", details="\n".join(lines[-LINES:])))

    def _error(self, code: int) -> LaunchError:
        if code in _NOT_RUN and self._refusal:
            why = " ".join(self._refusal.decode(errors="replace").split())
            return LaunchError(f"the service could not be started: {why}", details=last_lines(self._console()))
        ending = replace(Ending.by_code(code, out_of_memory=self._out_of_memory), refused_memory=self._refused_memory)
        return ending.error(memory_bytes=self._memory_bytes, output=self._console())

    def tell(self, error: LaunchError) -> None:
        """The launch has failed by this, the first that was told, unless its end was asked for."""
        if not self._told and self._unasked():
            self._told = True
            self._failed(error)


def fifos(path: Path) -> tuple[Path, Path]:
    """QEMU's names for the pair at `path`: what the guest writes, and what it reads (-chardev pipe)."""
    return path.with_name(path.name + ".out"), path.with_name(path.name + ".in")


def remove_fifos(path: Path) -> None:
    """Remove the pair; what is gone already is no matter."""
    for end in fifos(path):
        end.unlink(missing_ok=True)


def type_into(path: Path, data: bytes) -> bool:
    """Write to the console of a domain that another process launched; False when that is not possible."""
    with contextlib.suppress(OSError):
        descriptor = os.open(fifos(path)[1], os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.write(descriptor, data) == len(data)
        finally:
            os.close(descriptor)
    return False
