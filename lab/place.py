"""Where the lab keeps things: state and cache by the XDG base directory specification, and one directory per run."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.driver import Leftover, bears
from lab.errors import CleanupError, LabError
from lab.ownership import start_ticks

_LABELS = "labels.json"


def state_dir() -> Path:
    """`$XDG_STATE_HOME/stratalab`: what must outlive everything (the store, the reports)."""
    return _private(_xdg("XDG_STATE_HOME", ".local/state") / "stratalab")


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/stratalab`: what can be made again (kernels, the compiled service)."""
    return _private(_xdg("XDG_CACHE_HOME", ".cache") / "stratalab")


def make_run_dir(run_id: str, labels: Mapping[str, str]) -> Path:
    """A new directory of this run's alone, which other users can pass through and not list; it bears `labels`.

    It lies under /var/tmp because engines that run as another user must reach it, which they cannot below a home
    directory; and its path is short, because a Unix socket's may have 107 bytes. Raises LabError.
    """
    root = _runs_root()
    # The labels are in place before the directory has its name, so that a kill between the two is found as well.
    pid = os.getpid()
    unnamed = Path(tempfile.mkdtemp(prefix=f".{pid}-{start_ticks(pid)}-", dir=root))
    (unnamed / _LABELS).write_text(json.dumps(dict(labels)))
    unnamed.chmod(0o711)
    return unnamed.rename(root / run_id)


@dataclass(frozen=True, slots=True)
class RunDir:
    """A run's directory, as a leftover."""

    id: str
    labels: Mapping[str, str]
    kind: str = "directory"

    def delete(self) -> None:
        shutil.rmtree(self.id, ignore_errors=True)
        if Path(self.id).exists():
            raise CleanupError(f"{self.id} cannot be removed", resolution=f"sudo rm -r {self.id}")


def run_dirs(labels: Mapping[str, str]) -> Sequence[Leftover]:
    """The run directories of this user that bear `labels`, unfinished ones of dead processes included."""
    found: list[Leftover] = []
    for path in sorted(_runs_root().iterdir()):
        if path.name.startswith("."):
            pid, _, start = path.name[1:].partition("-")
            if not labels and pid.isdigit() and str(start_ticks(int(pid))) != start.split("-")[0]:
                found.append(RunDir(str(path), {"lab.run": path.name}))
            continue
        try:
            own = json.loads((path / _LABELS).read_text())
        except (OSError, ValueError):
            own = {"lab.run": path.name}
        if bears(own, labels):
            found.append(RunDir(str(path), own))
    return found


def _runs_root() -> Path:
    root = Path("/var/tmp") / f"stratalab-{os.getuid()}"  # noqa: S108  owner and mode are checked below
    try:
        root.mkdir(mode=0o711)
        root.chmod(0o711)
    except FileExistsError:
        pass
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise LabError(f"{root} is not a directory of yours alone", resolution=f"remove it: sudo rm -r {root}")
    return root


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / default


def _private(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(
            f"{path} cannot be made: {error.strerror}", resolution="set XDG_STATE_HOME or XDG_CACHE_HOME"
        ) from error
    return path
