"""Standard streams that outlast the terminal, the connection or the reader that they go to."""

from __future__ import annotations

import errno
import io
import os
import sys

from lab.errors import LabError

_GONE = (errno.EIO, errno.EPIPE, errno.ENXIO, errno.EBADF)
"""What write(2) says of a terminal that was hung up or a connection that dropped, and of a pipe without a reader."""


class Lasting(io.TextIOWrapper):
    """A stream to a terminal or pipe that may go away: from then on what is written is dropped, and nothing fails.

    With `whatever`, no failure to write, such as of a full disk, ends what the program is about.
    """

    def __init__(self, stream: io.TextIOWrapper, *, whatever: bool) -> None:
        encoding, errors, line_buffering = stream.encoding, stream.errors, stream.line_buffering
        super().__init__(stream.detach(), encoding=encoding, errors=errors, line_buffering=line_buffering)
        self._whatever = whatever

    def write(self, text: str, /) -> int:
        """As a text stream's; of a stream that has gone, the length of what was dropped."""
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """As a text stream's."""
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Let what was to be written, and all that follows, go to nowhere; what is no reason for that is told once.
        Raises LabError."""
        if self._whatever and isinstance(error, BlockingIOError):
            return  # nobody reads just now: somebody may, later
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.dup2(nowhere, self.fileno())
        finally:
            os.close(nowhere)
        if not self._whatever and error.errno not in _GONE:
            raise LabError(f"standard output cannot be written: {error.strerror}") from error


def outlast_the_terminal() -> None:
    """Have standard output and standard error outlast the terminal, the connection or the reader that they go to."""
    if type(sys.stdout) is io.TextIOWrapper:
        sys.stdout = Lasting(sys.stdout, whatever=False)
    if type(sys.stderr) is io.TextIOWrapper:
        sys.stderr = Lasting(sys.stderr, whatever=True)
