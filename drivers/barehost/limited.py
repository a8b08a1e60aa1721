"""The cgroup of one launch of bare processes: its limits, read back, and its removal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from drivers.barehost.labelled import driver_of, environments
from lab.driver import Leftover, bears
from lab.errors import LaunchError
from lab.host import cgroup
from lab.spec import Spec


class EmptyGroup:
    """A cgroup that a launch left behind; `id` is its path in the first of its hierarchies."""

    kind = "cgroup"

    def __init__(self, group: cgroup.Group) -> None:
        self.id = str(group.directories[0].path)
        self.labels = group.labels
        self._group = group

    def delete(self) -> None:
        """Remove it. Raises CleanupError."""
        self._group.remove()


def empty_groups(driver: str, where: cgroup.Places, labels: Mapping[str, str]) -> Sequence[Leftover]:
    """Cgroups of `driver` in which no process is, and to which no instance's processes belong."""
    live = set(environments())
    return [
        EmptyGroup(group)
        for group in cgroup.groups(where)
        if bears(group.labels, labels)
        and driver_of(group.labels) == driver
        and group.labels.get("lab.launch") not in live
        and not group.pids()
    ]


def make_group(spec: Spec, where: cgroup.Places) -> cgroup.Group:
    """A cgroup with the spec's limits, as far as this user may set them, read back. Raises LaunchError."""
    wanted = cgroup.Limits(memory_bytes=spec.memory_bytes, swap_bytes=0, cpus=spec.cpus, pids=spec.pids)
    try:
        group = cgroup.make(where, spec.labels, wanted)
    except OSError as error:
        raise LaunchError(f"a cgroup cannot be made: {error.strerror}", details=str(error)) from error
    try:
        problems = _not_held(group.limits(), wanted, where)
    except BaseException:
        group.remove()
        raise
    if problems:
        group.remove()
        raise LaunchError(f"the kernel did not take the limits: {', '.join(problems)}")
    return group


def _not_held(held: cgroup.Limits, wanted: cgroup.Limits, where: cgroup.Places) -> Iterable[str]:
    """Which limits the kernel holds otherwise than asked; it rounds memory down to whole pages."""
    problems = []
    for limit, slack in (("memory", os.sysconf("SC_PAGESIZE")), ("cpus", 1e-4), ("pids", 0)):
        name = "memory_bytes" if limit == "memory" else limit
        have, want = getattr(held, name), getattr(wanted, name)
        if where.can_set(limit) and (have is None or abs(have - want) > slack):
            problems.append(f"{limit} is {have} and not {want}")
    return problems
