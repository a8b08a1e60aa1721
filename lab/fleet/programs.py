"""Ansible's programs, and how they are run: as the user has set them up, but for what a fleet's results rest on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.errors import BadInput

_SSH = " ".join(
    (
        "-o ControlMaster=no -o ControlPath=none",  # a connection that is kept would hide a key that has changed
        "-o StrictHostKeyChecking=yes",
        "-o ServerAliveInterval=5 -o ServerAliveCountMax=3",  # a host that hangs is away
        "-o ConnectTimeout=15",
    )
)


def program(name: str) -> str:
    """Where a program of Ansible's is: beside this Python, or in PATH. Raises BadInput where it is not."""
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return str(beside)
    found = shutil.which(name)
    if found is None:
        raise BadInput(f"the program {name} is not installed", resolution="pip install 'stratalab[fleet]'")
    return found


def environment() -> Mapping[str, str]:
    """The variables for each call. ansible-runner turns the check of host keys off where they do not name it."""
    return {
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_SSH_ARGS": _SSH,
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_FORCE_COLOR": "False",
        "ANSIBLE_DEPRECATION_WARNINGS": "False",
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
    }
