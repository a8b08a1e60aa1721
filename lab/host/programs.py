"""Another program, run to its end with its failures mapped to the lab's errors: what every driver by CLI does.

Its output goes to files and not to pipes: what it leaves running, such as a container's monitor, may hold on to them,
and a reader of a pipe would wait for that one's end.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lab.errors import DriverError, DriverUnavailable

MOST_BYTES = 16 * 1024 * 1024
"""What is kept of each stream; a program that writes more has failed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A program that ended."""

    code: int
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def said(self) -> str:
        """What it said, on one line: its errors, or its output where it told of none, or its exit code."""
        text = " ".join((self.stderr.strip() or self.stdout).decode(errors="replace").split())
        return text or f"it ended with code {self.code}"


def run(
    argv: Sequence[str],
    *,
    doing: str,
    timeout_s: float,
    check: bool = True,
    output: IO[bytes] | int | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    on_timeout: Callable[[], None] = lambda: None,
    error: type[DriverError] = DriverError,
) -> Ran:
    """Run `argv`, which is to do `doing` ("start the container"), without input; with `output`, both of its streams go
    there, and what it leaves running may go on writing.

    Raises DriverUnavailable where it cannot be run at all; `error` where it does not end within `timeout_s` (it is
    killed, and `on_timeout` called, to end what it had begun), writes more than `MOST_BYTES`, or, with `check`, ends
    with another code than 0: what it said is in the brief, on one line, and whole in the details.
    """
    name = Path(argv[0]).name
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            ended = subprocess.run(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=stdout if output is None else output,
                stderr=stderr if output is None else output,
                cwd=cwd,
                env=None if environment is None else dict(environment),
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            on_timeout()
            said = _kept(stderr)[0].decode(errors="replace")
            raise error(f"{name} could not {doing} within {timeout_s:g} s", details=said) from late
        except OSError as refused:
            raise DriverUnavailable(f"{argv[0]} cannot be run: {refused.strerror}", details=str(refused)) from refused
        kept = [_kept(stdout), _kept(stderr)]
    if any(more for _, more in kept):
        raise error(f"{name} wrote more than {MOST_BYTES} bytes when it was to {doing}")
    ran = Ran(ended.returncode, kept[0][0], kept[1][0])
    if check and ran.code != 0:
        details = (ran.stderr + ran.stdout).decode(errors="replace").strip()
        raise error(f"{name} could not {doing}: {ran.said}", details=details)
    return ran


def _kept(file: IO[bytes]) -> tuple[bytes, bool]:
    """What was written, and whether it is more than is kept."""
    file.seek(0)
    data = file.read(MOST_BYTES + 1)
    return data[:MOST_BYTES], len(data) > MOST_BYTES
