"""The cgroups that an engine makes by itself for each launch, in a folder of the lab's in every hierarchy."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from lab.host import cgroup
from lab.host.procfs import read_mounts


class Groups:
    """Those in the folder `name` of every hierarchy: engines make theirs in all of them, not only where they limit."""

    def __init__(self, name: str) -> None:
        self.name = name

    def of(self, name: str) -> cgroup.Group:
        """The cgroups called `name`, whether they are there or not."""
        made = (cgroup.Directory(folder / name, version, held) for folder, version, held in self._folders())
        return cgroup.Group(name, tuple(made), cgroup.labels_of(name))

    def names(self) -> set[str]:
        """The names of the cgroups that are there and hold the lab's labels."""
        found: set[str] = set()
        for folder, _, _ in self._folders():
            with contextlib.suppress(FileNotFoundError):
                found.update(path.name for path in folder.iterdir() if path.is_dir())
        return {name for name in found if "lab.run" in cgroup.labels_of(name)}

    def remove_folders(self) -> None:
        """Remove the directories around them where they are empty."""
        for folder, _, _ in self._folders():
            with contextlib.suppress(OSError):  # another launch's is in it, or it is gone
                folder.rmdir()

    def give_cpus(self) -> None:
        """Let the folder around them have all CPUs: under version 1 a new cpuset has none, from which gVisor then takes
        some in vain (cpusets.rst of the kernel's documentation). Raises OSError."""
        for folder, version, _ in self._folders():
            if version == 1 and (folder.parent / "cpuset.cpus").exists():
                folder.mkdir(mode=0o755, exist_ok=True)
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if not (folder / name).read_text().strip():
                        (folder / name).write_text((folder.parent / name).read_text())

    def _folders(self) -> list[tuple[Path, int, frozenset[str]]]:
        mounts = read_mounts(Path("/"))
        versions = {"cgroup": 1, "cgroup2": 2}
        points = {mount.point: versions[mount.type] for mount in mounts if mount.type in versions}
        known = {str(one.mount): one.controllers for one in cgroup.hierarchies()}
        return [(Path(point) / self.name, version, known.get(point, frozenset())) for point, version in points.items()]


class EngineGroup:
    """A cgroup of `groups` whose launch is gone; `id` is its path in the first of its hierarchies."""

    kind = "cgroup"

    def __init__(self, groups: Groups, name: str) -> None:
        self.labels: Mapping[str, str] = cgroup.labels_of(name)
        self._groups = groups
        self._group = groups.of(name)
        self.id = str(self._group.directories[0].path)

    def delete(self) -> None:
        """Remove it. Raises CleanupError."""
        self._group.remove()
        self._groups.remove_folders()
