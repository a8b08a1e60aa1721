"""Runs a program that must not outlive who started it: `python leash.py PARENT PROGRAM ARGUMENT...`.

Ends with the program's exit code. When PARENT (its pid) dies, in whatever way, or this is asked to end, all of the
process group is killed: whoever starts it gives it one of its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main(parent: int, argv: list[str]) -> int:
    """Returns the exit code: the program's, or 128 and the signal that ended it, as shells have it."""
    signal.signal(signal.SIGTERM, _end)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before that was asked for
        return 1
    try:
        code = subprocess.run(argv, check=False).returncode
    except OSError as error:
        sys.stderr.write(f"{error.strerror}\n")
        return 126
    return code if code >= 0 else 128 - code


def _end(number: int, frame: object) -> None:  # noqa: ARG001  a handler's signature
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
