"""Runs the separate programs, each within a time limit, and reads the one JSON object that each prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ENDING_S = 30.0


class ProgramFailed(Exception):
    """A separate program ended badly, or not in time; the text is what it said."""


def run_program(name: str, given: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Run the program `name` of this folder with `given` as JSON on stdin. Raises ProgramFailed.

    On SIGTERM the programs remove what they made, so that they are asked to end before they are made to.
    """
    child = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name(name))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = child.communicate(json.dumps(dict(given)), timeout=timeout_s)
    except BaseException as error:
        child.terminate()
        try:
            _, errors = child.communicate(timeout=ENDING_S)
        except subprocess.TimeoutExpired:
            child.kill()
            _, errors = child.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise ProgramFailed(f"{name} did not end within {timeout_s:g} s: {errors[-2000:]}") from error
        raise
    if child.returncode:
        raise ProgramFailed(f"{name} ended with {child.returncode}: {errors[-2000:]}")
    found: dict[str, Any] = json.loads(output)
    return found
