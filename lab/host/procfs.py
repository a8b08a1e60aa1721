"""Small readers of /proc and /sys. What cannot be read, or is not there, is None or empty: never an error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_UNITS = {"kB": 1024}


def read_text(path: Path) -> str | None:
    """The file's stripped text; None where it is absent, unreadable or empty."""
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The file's text as an integer, or None."""
    text = read_text(path)
    return int(text) if text and re.fullmatch(r"-?\d+", text) else None


def read_link(path: Path) -> str | None:
    """What the symbolic link says, or None."""
    try:
        return str(path.readlink())
    except OSError:
        return None


def read_flag(path: Path) -> bool | None:
    """True for `1`, `Y`, `y`, False for `0`, `N`, `n`, `2` (KSM: stopped, and unmerged); else None."""
    return {"1": True, "Y": True, "y": True, "0": False, "N": False, "n": False, "2": False}.get(read_text(path) or "")


def read_choice(path: Path) -> str | None:
    """The chosen one of a file such as `always [madvise] never`, or None."""
    found = re.search(r"\[(\S+)\]", read_text(path) or "")
    return found[1] if found else None


def read_fields(path: Path) -> dict[str, str]:
    """The `key: value` lines up to the first empty line: /proc/cpuinfo's first CPU, /proc/self/status."""
    block = (read_text(path) or "").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs if value.strip()}


def read_meminfo(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes; its counts of huge pages as they are. Source: proc_meminfo(5)."""
    found = {}
    for key, value in read_fields(root / "proc/meminfo").items():
        number, _, unit = value.partition(" ")
        if number.isdigit():
            found[key] = int(number) * _UNITS.get(unit, 1)
    return found


def read_cpu_list(text: str | None) -> list[int]:
    """The numbers of a list such as `0-3,8`. Source: cpuset(7), list format."""
    if not text or not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        return []
    ranges = (part.partition("-") for part in text.split(","))
    return [cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)]


def read_cpu_ticks(root: Path) -> tuple[int, int] | None:
    """All CPUs' stolen ticks and all their ticks since boot, or None. Guest time is contained in user and nice.

    Source: the first eight columns of the `cpu` line of /proc/stat, proc_stat(5).
    """
    words = (read_text(root / "proc/stat") or "").split("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    ticks = [int(word) for word in words[1:9]]
    return ticks[7], sum(ticks)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo; `device` is `major:minor`. Source: proc_pid_mountinfo(5)."""

    device: str
    point: str
    options: str
    type: str
    source: str
    super_options: str


def read_mounts(root: Path, pid: int | None = None) -> list[Mount]:
    """The mounts of the namespace of `pid` (None: of this process), in the order in which they were made."""
    found = []
    for line in (read_text(root / f"proc/{pid or 'self'}/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        head, tail = left.split(" "), right.split(" ")
        if len(head) >= 6 and len(tail) >= 3:
            found.append(Mount(head[2], _unescape(head[4]), head[5], tail[0], _unescape(tail[1]), tail[2]))
    return found


def mount_of(path: Path, mounts: Iterable[Mount]) -> Mount | None:
    """The mount in which the absolute `path` lies: the longest mount point; the later one where two are equal."""
    best = None
    for mount in mounts:
        point = mount.point.rstrip("/")
        if f"{path}/".startswith(f"{point}/") and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
