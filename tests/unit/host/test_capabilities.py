"""Capabilities by name, held against libcap's own tool."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.host import capabilities

# Where administrators' programs lie, which is not on every user's PATH.
CAPSH = shutil.which("capsh", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))


def decoded(mask: str) -> list[str]:
    ended = subprocess.run([str(CAPSH), f"--decode={mask}"], capture_output=True, text=True, timeout=10, check=True)
    return sorted(name.removeprefix("cap_") for name in ended.stdout.strip().partition("=")[2].split(",") if name)


@pytest.mark.skipif(CAPSH is None, reason="needs capsh, of Debian's libcap2-bin")
def test_masks_have_the_names_that_libcap_gives_them() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    every = [f"{1 << number:016x}" for number in range(min(last + 1, len(capabilities.NAMES)))]
    of_docker = "00000000a80425fb"
    for mask in (*every, of_docker, "0000000000000000", f"{(1 << len(every)) - 1:016x}"):
        assert capabilities.names(mask) == decoded(mask), mask
