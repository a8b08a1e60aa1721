"""What gVisor's runsc is on this host: its version, and by what it catches the service's system calls."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from typing import Any

from drivers import ociruntimes
from lab.errors import DriverError
from lab.host import programs

_TIMEOUT_S = 20.0
_VERSION = re.compile(r"version (?:release-)?(\S+)")
_DEFAULT = re.compile(r"-platform \w+\n.*?\(default:? \"?(\w+)\"?\)", re.DOTALL)
_GIVEN = re.compile(r"--?platform[= ](\w+)")


def facts(runtime: str, path: str, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Of `runtime`, if it is gVisor's: its version and platform. `path` is its program, or a wrapper's; `arguments` are
    those that an engine gives it. Empty for another runtime."""
    if ociruntimes.family(runtime) != "runsc":
        return {}
    program = path or shutil.which(runtime) or ""
    version, flags = _said(program, "--version"), _said(program, "flags")
    return {
        "gvisor_version": found[1] if (found := _VERSION.search(version)) else "unknown",
        "platform": platform(arguments, flags),
        "clock": "its own, which begins near 0",
    }


def platform(arguments: Sequence[str], flags: str) -> str:
    """What `arguments` name, or else the default among what `runsc flags` told; `unknown` where neither tells."""
    if given := _GIVEN.search(" ".join(arguments)):
        return given[1]
    default = _DEFAULT.search(flags)
    return default[1] if default else "unknown"


def _said(program: str, word: str) -> str:
    if not program:
        return ""
    try:
        ran = programs.run([program, word], doing="tell what it is", timeout_s=_TIMEOUT_S, check=False)
    except DriverError:  # a fact is missing then, and nothing else
        return ""
    return (ran.stdout + ran.stderr).decode(errors="replace")
