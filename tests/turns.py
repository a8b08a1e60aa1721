"""The whole suite in two turns: what may run side by side on all cores, then what must run alone, one at a time.

    python tests/turns.py [what pytest takes]

Both turns get the same arguments. pytest's closing lines, one of each turn, come last; the exit code is that of the
first turn that failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_WORKERS_PER_CORE = 2  # most tests wait, for a process or for a clock, more than they compute
_MOST_WORKERS = 16
_OK, _TESTS_FAILED, _NOTHING_COLLECTED = 0, 1, 5
"""pytest's exit codes; all others say that it could not go on."""


def main(arguments: Sequence[str]) -> int:
    workers = min(_WORKERS_PER_CORE * len(os.sched_getaffinity(0)), _MOST_WORKERS)
    side_by_side = ["--turn=beside", "-n", str(workers), "--dist", "worksteal"]
    first, first_line = _turn([*side_by_side, *arguments])
    if first not in (_OK, _TESTS_FAILED, _NOTHING_COLLECTED):
        _say(first_line)
        return first
    _say(first_line + "\n")
    second, second_line = _turn(["--turn=alone", *arguments])
    _say(first_line + second_line)
    if _NOTHING_COLLECTED in (first, second):
        return first if second == _NOTHING_COLLECTED else second
    return first or second


def _turn(arguments: Sequence[str]) -> tuple[int, str]:
    """pytest's exit code and its last line, which alone is not shown."""
    color = ["--color=yes"] if sys.stdout.isatty() else []
    command = [sys.executable, "-m", "pytest", *color, *arguments]
    last = ""
    with subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE, text=True, errors="replace") as pytest:
        assert pytest.stdout is not None
        while True:
            try:
                for line in pytest.stdout:
                    _say(last)
                    last = line
                return pytest.wait(), last
            except KeyboardInterrupt:
                continue  # pytest has heard it too, and ends by itself


def _environment() -> Mapping[str, str]:
    """This process's, with bytecode kept: else each worker, and each `lab` that a test starts, compiles all sources
    again. Not where that would leave files of another user, root under sudo, in the checkout."""
    kept = dict(os.environ)
    if Path(__file__).stat().st_uid == os.geteuid():
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
