"""The hosts of a fleet, as Ansible reads its inventory: any that Ansible takes, files, folders and programs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.errors import BadInput
from lab.fleet.programs import environment, program

_READ_S = 60.0


def read_hosts(inventory: Path, limit: str | None) -> Sequence[str]:
    """The names of its hosts, of those that `limit`, a pattern of Ansible's, matches; in the inventory's order. Raises
    BadInput for an inventory that cannot be read, one without hosts, and a pattern that matches none."""
    if not inventory.exists():
        raise BadInput(f"there is no inventory {inventory}", resolution="-i FILE: https://docs.ansible.com, Inventory")
    words = [program("ansible-inventory"), "-i", str(inventory.resolve()), "--list"]
    words += ["--limit", limit] if limit else []
    told = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True", "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True"}
    try:
        done = subprocess.run(
            words, env={**os.environ, **environment(), **told}, capture_output=True, timeout=_READ_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise BadInput(f"the inventory {inventory} was not read within {_READ_S:g} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace")
        if limit and "does not match any hosts" in said:
            raise BadInput(f"--limit {limit} matches no host of {inventory}")
        why = next((line for line in said.splitlines() if "ERROR" in line), said.strip())
        raise BadInput(f"the inventory {inventory} cannot be read: {why[:300]}", details=said)
    groups = [group for name, group in json.loads(done.stdout).items() if name != "_meta"]
    names = dict.fromkeys(name for group in groups for name in group.get("hosts", ()))
    if not names:
        none = f"--limit {limit} matches no host of {inventory}"
        raise BadInput(none if limit else f"the inventory {inventory} has no hosts")
    return list(names)
