"""How a container of a bare runtime sleeps."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from lab.errors import LabError
from lab.features import SleepState
from lab.host import cgroup, programs

_ONCE = "an OCI runtime starts a container once: one that has ended can only be deleted"
_CHECK_S = 10.0


def states() -> Mapping[SleepState, str]:
    """Each state that OCI runtimes know, and why not."""
    freezes = cgroup.offers("freezer") or Path("/sys/fs/cgroup/cgroup.controllers").exists()
    return {
        SleepState.PAUSED: "" if freezes else "this kernel offers no cgroup freezer",
        SleepState.STOPPED: _ONCE,
        SleepState.SAVED: _not_saved(),
    }


def _not_saved() -> str:
    """Why no container can be saved here by CRIU; empty where it can."""
    criu = shutil.which("criu")
    if criu is None:
        return "it takes CRIU, and there is no 'criu' on this host"
    try:
        programs.run([criu, "check"], doing="check this kernel", timeout_s=_CHECK_S)
    except LabError as error:
        return f"CRIU cannot save on this kernel: {error.brief}"
    return ""
