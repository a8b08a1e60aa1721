"""The separate programs: those in C are compiled, those in Python run within a time limit, each printing one JSON
object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.service.build import available_compilers
from lab.store.place import cache_dir

COMPILE_TIMEOUT_S = 600.0
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


def compile_program(source: str, program: Path) -> Path:
    """The C file `source` of this folder as a static `program`, by the first compiler that can link one. Raises
    LabError."""
    complaints = []
    for compiler in available_compilers():
        path = str(Path(__file__).with_name(source))
        command = [*compiler.command, "-O2", "-static", "-D_GNU_SOURCE", "-o", str(program), path]
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(cache_dir() / "zig")}
        try:
            subprocess.run(command, env=environment, capture_output=True, timeout=COMPILE_TIMEOUT_S, check=True)
        except subprocess.SubprocessError as error:
            complaints.append(str(error))
            continue
        program.chmod(0o755)
        return program
    raise LabError(f"no C compiler here can build {source}", details="\n".join(complaints))
