"""The host processes of pods, where a node's kernel is this host's."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lab import procs
from lab.driver import Role
from lab.procs import Process


def of_pods(uids: Iterable[str], proc: Path = Path("/proc")) -> dict[Process, Role]:
    """Every process in a cgroup of the pods `uids`, and the shim that each pod has.

    The kubelet names a pod's cgroup `pod<uid>`, with underscores for dashes under systemd (k8s.io/kubernetes,
    pkg/kubelet/cm). The shim is in no pod's cgroup: it is the parent of what is.
    """
    names = {f"pod{form}" for uid in uids for form in (uid, uid.replace("-", "_"))}
    entries = procs.table()
    found: dict[Process, Role] = {}
    for pid, entry in entries.items():
        if not _in_pod(proc / str(pid) / "cgroup", names):
            continue
        found[entry.process] = _role(entry.name, pid)
        parent = entries.get(entry.parent)
        if parent is not None and parent.name.startswith("containerd-shim"):
            found[parent.process] = Role.SHIM
    return found


def _in_pod(cgroup: Path, names: set[str]) -> bool:
    try:
        text = cgroup.read_text()
    except OSError:  # it has ended
        return False
    return any(name in text for name in names)


def _role(name: str, pid: int) -> Role:
    """What a process in a pod's cgroup does: `pause` holds the pod's namespaces; gVisor's sentry is its kernel."""
    if name == "pause":
        return Role.HELPER
    argv = procs.arguments(pid)
    if argv and os.path.basename(argv[0]).startswith("runsc"):  # noqa: PTH119  a text, not a path of this host's
        return Role.HELPER if "gofer" in argv else Role.VMM
    return Role.SERVICE
