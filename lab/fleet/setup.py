"""Hosts are set up by the same scripts as this one: Ansible brings the checkout and calls them."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import BadInput
from lab.fleet.play import play

_CHECKOUT = Path(__file__).parents[2]


def play_setup(inventory: Path, hosts: Sequence[str], *, forks: int, engines: str) -> Mapping[str, str]:
    """By host why it could not be set up, "" where it was. Raises BadInput outside a checkout, LabError."""
    playbook = _CHECKOUT / "vagrant/fleet.yml"
    if not playbook.is_file() or not (_CHECKOUT / ".git").exists():
        raise BadInput("hosts are set up from a checkout, and this lab was installed without one")
    with tempfile.TemporaryDirectory(prefix="lab-fleet-") as folder:
        archive = Path(folder) / "stratalab.tar"
        done = subprocess.run(
            ["git", "-C", str(_CHECKOUT), "archive", "--format=tar", "-o", str(archive), "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BadInput(f"the checkout cannot be packed: {done.stderr.strip()[:200]}")
        variables = {"stratalab_archive": str(archive), "stratalab_engines": engines}
        answers = play(playbook, inventory, hosts, forks=forks, variables=variables)
    return {host: one.away or one.failed for host, one in answers.items()}
