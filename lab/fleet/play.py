"""One playbook on some hosts, and what each host's tasks said.

Whether a host was reached is told by its own events and never by the exit code of ansible-playbook, which is 4 both for
hosts that are away and for a playbook that does not parse.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import BadInput, LabError
from lab.fleet.programs import environment, program

HERE = Path(__file__).parent
JOB_FILE = HERE / "job.py"
_PLAY_S = 900
"""After so long a play is given up: each of its tasks is short."""
_SETUP_S = 7200


@dataclass(slots=True)
class Answer:
    """What one host has said: each task's JSON by the task's name; or why it is `away`, or what `failed`."""

    said: dict[str, Any] = field(default_factory=dict)
    away: str = ""
    failed: str = ""


def play(
    name: str | Path, inventory: Path, hosts: Sequence[str], *, forks: int, variables: Mapping[str, str]
) -> Mapping[str, Answer]:
    """Play `playbooks/NAME.yml`, or a file elsewhere, on `hosts`; each of them is in what is returned. Raises BadInput
    where Ansible is not installed, LabError where it could not play at all."""
    program("ansible-playbook")
    try:
        import ansible_runner
    except ImportError:
        raise BadInput("ansible-runner is not installed", resolution="pip install 'stratalab[fleet]'") from None
    with tempfile.TemporaryDirectory(prefix="lab-fleet-") as private:
        limit = Path(private, "hosts")
        limit.write_text("".join(f"{host}\n" for host in hosts))
        runner = ansible_runner.run(
            private_data_dir=private,
            playbook=str(name if isinstance(name, Path) else HERE / "playbooks" / f"{name}.yml"),
            inventory=str(inventory.resolve()),
            limit=f"@{limit}",
            forks=forks,
            envvars=_with_path(environment()),
            extravars={"job_file": str(JOB_FILE), **variables},
            settings={"job_timeout": _SETUP_S if isinstance(name, Path) else _PLAY_S},
            quiet=True,
        )
        found = _answers(runner.events, hosts)
        if not any(one.said or one.away or one.failed for one in found.values()):
            said = Path(runner.config.artifact_dir, "stdout").read_text(errors="replace")
            why = next((line for line in said.splitlines() if "ERROR" in line or "fatal" in line), said.strip()[-300:])
            raise LabError(f"Ansible could not play on any host: {why[:300]}", details=said)
    for one in found.values():
        if not (one.said or one.away or one.failed):
            one.away = "it was not heard of"
    return found


def _with_path(variables: Mapping[str, str]) -> dict[str, str]:
    beside = str(Path(program("ansible-playbook")).parent)
    return {**variables, "PATH": f"{beside}:{os.environ.get('PATH', os.defpath)}"}


def _answers(events: Iterable[Mapping[str, Any]], hosts: Sequence[str]) -> dict[str, Answer]:
    found = {host: Answer() for host in hosts}
    for event in events:
        data = event.get("event_data") or {}
        one = found.get(str(data.get("host", "")))
        if one is None:
            continue
        result = data.get("res") or {}
        match event.get("event"):
            case "runner_on_ok":
                one.said[str(data.get("task", ""))] = _json(result)
            case "runner_on_unreachable":
                one.away = _line(result.get("msg"))
            case "runner_on_failed":
                # What the program said, if it said anything; a changed key, too, is told so.
                one.failed = _line(result.get("stderr") or result.get("msg") or result.get("stdout"))
    return found


def _json(result: Mapping[str, Any]) -> Any:
    """The last line of what the task's program wrote: what a login shell writes comes before it."""
    lines = str(result.get("stdout") or "").strip().splitlines()
    try:
        return json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}


def _line(text: object) -> str:
    """The telling line of a message of several."""
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip(" @\t")]
    telling = [line for line in lines if "REMOTE HOST IDENTIFICATION" in line or "verification failed" in line]
    said = (telling or lines or ["it did not say why"])[-1]
    return "".join(letter if letter.isprintable() else "?" for letter in said)[:300]
