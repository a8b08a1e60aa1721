"""Processes found by the lab's labels in their environment, which the kernel holds from the creating call on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.host import cgroup
from lab.host.procs import Process
from lab.spec import Endpoint

LABELS = "LAB_LABELS"
"""The variable that bears the labels, as JSON."""
ENDPOINT = "LAB_ENDPOINT"
"""The variable that says where the instance answers, where that is not LAB_HOST and LAB_PORT."""


@dataclass(frozen=True, slots=True)
class Found:
    """The processes of one launch."""

    labels: Mapping[str, str]
    endpoint: Endpoint | None
    pids: frozenset[int]


def driver_of(labels: Mapping[str, str]) -> str:
    """The driver whose target the labels name: a cgroup's name may have had no room for it, which is then the
    control's to remove."""
    return labels.get("lab.target", "process").partition(":")[0]


def instances(driver: str, where: cgroup.Places) -> dict[str, tuple[Found, cgroup.Group]]:
    """Those of `driver`, by launch: whose processes say so in their environment, where this user may read it, or by
    their cgroup; with the cgroup, which may be none."""
    by_launch = {group.labels.get("lab.launch", ""): group for group in cgroup.groups(where)}
    found = environments()
    for launch, group in by_launch.items():
        if launch not in found and (pids := group.pids()):
            found[launch] = Found(dict(group.labels), None, frozenset(pids))
    none = cgroup.Group("", ())
    return {
        launch: (one, by_launch.get(launch, none)) for launch, one in found.items() if driver_of(one.labels) == driver
    }


def environments() -> dict[str, Found]:
    """The processes whose environment bears the lab's labels, by launch."""
    found: dict[str, Found] = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            text = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if not text.startswith(f"{LABELS}=".encode()) and f"\0{LABELS}=".encode() not in text:
            continue
        pairs = (entry.partition("=") for entry in text.decode(errors="replace").split("\0"))
        environment = {key: value for key, _, value in pairs}
        labels = _parse(environment.get(LABELS, ""))
        if "lab.launch" not in labels or Process.of(pid := int(path.parent.name)) is None:
            continue
        before = found.get(labels["lab.launch"])
        found[labels["lab.launch"]] = Found(
            labels,
            before.endpoint if before else _endpoint(environment),
            (before.pids if before else frozenset()) | {pid},
        )
    return found


def _endpoint(environment: Mapping[str, str]) -> Endpoint | None:
    host, _, port = environment.get(ENDPOINT, "").rpartition(":")
    if not host:
        host, port = environment.get("LAB_HOST", ""), environment.get("LAB_PORT", "")
    return Endpoint(host, int(port)) if host and port.isdigit() else None


def _parse(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return {str(key): str(one) for key, one in value.items()} if isinstance(value, dict) else {}
