"""What the kernel would show of confined processes, as files: the part of /proc and /sys that the contract reads.

Whoever has no right to make cgroups and namespaces can still test that what a driver asks for is read back. The files
are as Linux writes them (proc(5), cgroup-v2.rst), so that they are read by what reads the real ones.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

DEFAULT_CAPABILITIES = "00000000a80425fb"
"""Docker's default set (moby, oci/caps/defaults.go)."""
_EVERY_CAPABILITY = "000001ffffffffff"
_HOST = {"pid": 4026531836, "mnt": 4026531841}
_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What holds a container's processes; None is no limit, and no /tmp of its own."""

    memory_bytes: int | None = None
    swap_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    scratch_bytes: int | None = None
    own_scratch: bool = True
    every_capability: bool = False
    seccomp: bool = True
    devices: bool = False
    writable_sys: bool = False
    host_pid_namespace: bool = False
    image: Path = Path("/nonexistent")


class ShownKernel:
    """A tree of files under `root` that stands for `/` to whoever reads /proc and /sys of the model's containers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cgroups = root / "sys/fs/cgroup"
        self._made = 0
        if root.exists():
            return
        self._write("proc/self/mountinfo", f"30 20 0:26 / {self._cgroups} rw - cgroup2 cgroup2 rw")
        self._write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/sdb partition 1048576 0 -2")
        self._write("proc/sys/kernel/pid_max", "4194304")
        self._write("proc/sys/kernel/threads-max", "4194304")
        self._write("sys/fs/cgroup/cgroup.controllers", "cpu memory pids")
        self._write("sys/class/block/sda", "")
        for kind, number in _HOST.items():
            self._link(f"proc/self/ns/{kind}", f"{kind}:[{number}]")

    def show(self, name: str, pid: int, held: Confinement) -> None:
        """From now on `pid` is the process of the container `name`, held by `held`."""
        self._made += 1
        self._show_cgroup(name, pid, held)
        proc = f"proc/{pid}"
        capabilities = _EVERY_CAPABILITY if held.every_capability else DEFAULT_CAPABILITIES
        self._write(
            f"{proc}/status",
            f"Name:\tservice\nCapEff:\t{capabilities}\nCapBnd:\t{capabilities}\n"
            f"NoNewPrivs:\t0\nSeccomp:\t{2 if held.seccomp else 0}",
        )
        own = {"pid": 4026540000 + 2 * self._made, "mnt": 4026540001 + 2 * self._made}
        for kind, number in own.items():
            seen = _HOST[kind] if kind == "pid" and held.host_pid_namespace else number
            self._link(f"{proc}/ns/{kind}", f"{kind}:[{seen}]")
        sys = "rw" if held.writable_sys else "ro"
        root = f"40 39 0:50 / / rw - overlay overlay rw,lowerdir={held.image},upperdir=/u,workdir=/w"
        mounts = [root, f"41 40 0:51 / /sys {sys},nosuid - sysfs sysfs {sys}"]
        if held.own_scratch:
            size = "" if held.scratch_bytes is None else f",size={held.scratch_bytes // 1024}k"
            mounts.append(f"42 40 0:52 / /tmp rw,nosuid,nodev,noexec - tmpfs tmpfs rw{size}")
        self._write(f"{proc}/mountinfo", "\n".join(mounts))
        for device in ("null", "zero", *(["sda"] if held.devices else [])):
            self._write(f"{proc}/root/dev/{device}", "")

    def forget(self, name: str, pid: int) -> None:
        """The process has ended, and its cgroup is gone."""
        for path in (self.root / f"proc/{pid}", self._cgroups / "model" / name):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path)

    def _show_cgroup(self, name: str, pid: int, held: Confinement) -> None:
        self._write(f"proc/{pid}/cgroup", f"0::/model/{name}")
        folder = f"sys/fs/cgroup/model/{name}"
        quota = "max" if held.cpus is None else str(round(held.cpus * _PERIOD_US))
        files = {
            "cgroup.procs": pid,
            "memory.max": _or_max(held.memory_bytes),
            "memory.swap.max": _or_max(held.swap_bytes),
            "cpu.max": f"{quota} {_PERIOD_US}",
            "pids.max": _or_max(held.pids),
        }
        for file, content in files.items():
            self._write(f"{folder}/{file}", str(content))

    def _write(self, path: str, content: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")

    def _link(self, path: str, target: str) -> None:
        link = self.root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _or_max(limit: int | None) -> str:
    return "max" if limit is None else str(limit)
