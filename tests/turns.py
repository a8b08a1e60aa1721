"""The whole suite in two turns: what may run side by side, an engine's tests one after the other beside those of
others, then what must be the only one that runs.

    python tests/turns.py [what pytest takes]

Both turns get the same arguments. Where no more than two tests of a turn failed, they run once more with nobody beside
them, and only what fails again counts: real engines on a loaded machine now and then answer late. What passed then is
named at the end, since it may be a race of ours: look at it, do not wave it through. pytest's closing lines, one of
each turn, come last; the exit code is that of the first turn that failed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_WORKERS_PER_CORE, _MORE_WORKERS = 2, 1  # most tests wait, for a process, an engine or a clock, more than they compute
_MOST_WORKERS = 16
_MOST_AGAIN = 2
_FAILED = re.compile(r"(\d+) (?:failed|errors?)\b")

_OK, _TESTS_FAILED, _NOTHING_COLLECTED = 0, 1, 5
"""pytest's exit codes; all others say that it could not go on."""


def main(arguments: Sequence[str]) -> int:
    workers = min(_WORKERS_PER_CORE * len(os.sched_getaffinity(0)) + _MORE_WORKERS, _MOST_WORKERS)
    turns = (
        ("--turn=beside", "-n", str(workers), "--dist", "loadgroup"),
        ("--turn=alone",),
    )
    codes: list[int] = []
    lines: list[str] = []
    for turn in turns:
        code, line = _turn([*turn, *arguments])
        if code == _TESTS_FAILED and 0 < sum(map(int, _FAILED.findall(line))) <= _MOST_AGAIN:
            _say(f"{line}\nOnce more, with nobody beside them:\n")
            code, again = _turn([turn[0], "--last-failed", "--last-failed-no-failures=none", "-rp", *arguments])
            line += f"once more, alone: {again}"
        codes.append(code)
        lines.append(line)
        if code not in (_OK, _TESTS_FAILED, _NOTHING_COLLECTED):
            break
        if turn is not turns[-1]:
            _say(f"{line}\n")
    _say("".join(lines))
    told = [code for code in codes if code != _NOTHING_COLLECTED]
    return next((code for code in told if code), _OK if told else _NOTHING_COLLECTED)


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
