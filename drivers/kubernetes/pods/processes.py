"""The host processes of pods, where a node's kernel is this host's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lab.features import Role
from lab.host import procs
from lab.host.procs import Entry, Process

_SHIMS = ("containerd-shim", "conmon")  # of Docker, and of Podman


def of_pods(uids: Iterable[str], proc: Path = Path("/proc")) -> dict[Process, Role]:
    """Every process in a cgroup of the pods `uids`, and the shim that each pod has.

    The kubelet names a pod's cgroup `pod<uid>`, with underscores for dashes under systemd (k8s.io/kubernetes,
    pkg/kubelet/cm). The shim is in no pod's cgroup: it is the parent of what is.
    """
    entries = procs.table()
    found: dict[Process, Role] = {}
    for uid in uids:
        names = (f"pod{uid}", f"pod{uid.replace('-', '_')}")
        inside = [entry for pid, entry in entries.items() if _in_cgroup(proc / str(pid) / "cgroup", names)]
        found |= _roles(inside)
        for entry in inside:
            parent = entries.get(entry.parent)
            if parent is not None and parent.name.startswith("containerd-shim"):
                found[parent.process] = Role.SHIM
    return found


def of_nodes(
    containers: Mapping[str, Sequence[str]], lab_pods: Iterable[str], proc: Path = Path("/proc")
) -> dict[int, str]:
    """What runs a cluster whose nodes are `containers` (id → addresses), by pid, each with its name: every process in
    their cgroups but those of `lab_pods` and their shims, and outside of them their own shims and Docker's proxies.
    """
    entries = procs.table()
    inside = {pid: entry for pid, entry in entries.items() if _in_cgroup(proc / str(pid) / "cgroup", containers)}
    parents = {entry.parent for entry in inside.values()} - set(inside)
    addresses = {address for told in containers.values() for address in told}
    own = {
        pid: entry
        for pid, entry in entries.items()
        if (pid in parents and entry.name.startswith(_SHIMS))
        or (entry.name == "docker-proxy" and addresses & set(procs.arguments(pid)))
    }
    of_lab = {process.pid for process in of_pods(lab_pods, proc)}
    return {pid: entry.name for pid, entry in sorted((inside | own).items()) if pid not in of_lab}


def _in_cgroup(cgroup: Path, names: Iterable[str]) -> bool:
    try:
        text = cgroup.read_text()
    except OSError:  # it has ended
        return False
    return any(name in text for name in names)


def _roles(entries: Sequence[Entry]) -> dict[Process, Role]:
    """What the processes in one pod's cgroup do: `pause` holds the pod's namespaces, or, where a node calls it
    something else, the first that was started; gVisor's sentry is the kernel of its pod, its gofer serves files; QEMU
    is a virtual machine's."""
    found: dict[Process, Role] = {}
    ordinary: list[Entry] = []
    for entry in entries:
        argv = procs.arguments(entry.process.pid)
        if argv and os.path.basename(argv[0]).startswith("runsc"):  # noqa: PTH119  a text, not a path of this host's
            found[entry.process] = Role.HELPER if "gofer" in argv else Role.VMM
        else:
            ordinary.append(entry)
    machines = [entry for entry in ordinary if entry.name.startswith("qemu-")]
    if machines:  # KubeVirt's: beside each QEMU its launcher and the daemons of libvirt
        return found | {entry.process: Role.VMM if entry in machines else Role.HELPER for entry in ordinary}
    holders = [entry for entry in ordinary if entry.name == "pause"]
    if not holders and len(ordinary) > 1:
        holders = [min(ordinary, key=lambda entry: entry.process)]
    return found | {entry.process: Role.HELPER if entry in holders else Role.SERVICE for entry in ordinary}
