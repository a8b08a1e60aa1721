"""Whether who answers runs on this host's kernel.

A boot id that is this host's says so. Another one does not say the contrary: systemd-nspawn and LXC put a random one of
each container's own over /proc/sys/kernel/random/boot_id. So this host is looked at as well: a PID namespace that is
not the host's own has a number that only one kernel gives, and where the host sees a process of the instance in the
very one that was told, they have one kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.driver import Instance
from lab.errors import DriverError
from lab.features import OnThisHost, Role
from lab.host.facts import boot_id
from lab.host.procfs import read_link


def is_this_hosts(told: Mapping[str, Any], instance: Instance | None) -> bool:
    """Whether the service that told its `boot_id` and `pid_namespace` shares this host's kernel."""
    if told.get("boot_id") and told["boot_id"] == boot_id():
        return True
    namespace = told.get("pid_namespace")
    if not namespace or not isinstance(instance, OnThisHost) or namespace == _namespace("self"):
        return False  # the first namespace of every kernel has the same number
    try:
        pids = [pid for pid, role in instance.host_pids().items() if role is Role.SERVICE]
    except DriverError:
        return False
    return namespace in {_namespace(pid) for pid in pids}


def _namespace(pid: int | str) -> str:
    return read_link(Path("/proc") / str(pid) / "ns/pid") or ""
