"""The guest's serial console: a pair of FIFOs that the lab reads as they are written, from the first byte.

A FIFO keeps what QEMU writes until it is read (a pty or a listening socket drops what comes before the reader), it
needs no virtlogd in between, and libvirt's AppArmor profile grants it. The lab opens both ends before QEMU does, so
that it keeps them where libvirt then gives the files to QEMU's user.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
from pathlib import Path

from lab.driver import Mark
from lab.timeline import Phase, Source

KEPT_BYTES = 64 * 1024
STOP_LINE = b"lab-guest stop\n"
"""What the guest's init reads from its console as the request to end."""
_KERNEL_OUTPUT = re.compile(rb"\[ *\d+\.\d{6}\] ")


class Console:
    """Reads the console at `path` until `close`, hands each line to `mark`, and keeps the last 64 KiB."""

    def __init__(self, path: Path, mark: Mark) -> None:
        """Make `path.in` and `path.out`, and start to read. Raises OSError."""
        self.path = path
        self._mark = mark
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
            except BlockingIOError:
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
            elif self._wake_read in ready:
                break
        if self._pending:
            self._mark.line(self._pending, source=Source.CONSOLE)

    def _take(self, data: bytes) -> None:
        mark = self._mark.moment()
        if not self._kernel_seen and _KERNEL_OUTPUT.search(self._pending + data):
            self._kernel_seen = True
            mark(Phase.KERNEL, source=Source.CONSOLE)
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            mark.line(line.rstrip(b"\r"), source=Source.CONSOLE)
        with self._lock:
            self._kept += data
            del self._kept[:-KEPT_BYTES]


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
