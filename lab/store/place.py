"""Where the lab keeps things: state and cache by the XDG base directory specification, and one directory per run."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.driver import Leftover, bears
from lab.errors import CleanupError, DriverUnavailable, LabError
from lab.host.ownership import start_ticks
from lab.host.procfs import mount_of, read_mounts

_LABELS = "labels.json"
_PARTIAL = "partial"


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
    unnamed = Path(tempfile.mkdtemp(prefix=f".{_maker()}-", dir=root))
    (unnamed / _LABELS).write_text(json.dumps(dict(labels)))
    unnamed.chmod(0o711)
    return unnamed.rename(root / run_id)


def require_exec(folder: Path) -> None:
    """Raises DriverUnavailable, naming the mount, where no program below `folder` can be run (noexec; mount(8))."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        mount = mount_of(folder.resolve(), read_mounts(Path("/")))
        raise DriverUnavailable(
            f"no program can be run from {folder}: {mount.point if mount else 'its file system'} is mounted noexec",
            resolution="set XDG_CACHE_HOME to a folder on another mount",
        )


@contextlib.contextmanager
def partial(cache: Path, name: str) -> Iterator[Path]:
    """A path below `cache` of this call's own, where a file or directory is made until it is renamed into place.

    What is still there at the end is removed; what a killed process left there, `run_dirs` lists.
    """
    folder = cache / _PARTIAL
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{_maker()}-{secrets.token_hex(4)}-{name}"
    try:
        yield path
    finally:
        _remove(path)


@dataclass(frozen=True, slots=True)
class RunDir:
    """A run's directory, or what a dead process was making in the cache, as a leftover."""

    id: str
    labels: Mapping[str, str]
    kind: str = "directory"

    def delete(self) -> None:
        _remove(Path(self.id))
        if Path(self.id).exists():
            raise CleanupError(f"{self.id} cannot be removed", resolution=f"sudo rm -r {self.id}")


def run_dirs(labels: Mapping[str, str]) -> Sequence[Leftover]:
    """The run directories of this user that bear `labels`; with no `labels`, also what dead processes left half-made:
    run directories, and partial files in the cache."""
    found: list[Leftover] = []
    for path in sorted(_runs_root().iterdir()):
        if path.name.startswith("."):
            if not labels and _is_of_the_dead(path.name[1:]):
                found.append(RunDir(str(path), {"lab.run": path.name}))
            continue
        try:
            own = json.loads((path / _LABELS).read_text())
        except (OSError, ValueError):
            own = {"lab.run": path.name}
        if bears(own, labels):
            found.append(RunDir(str(path), own))
    partials = cache_dir() / _PARTIAL
    if not labels and partials.is_dir():
        found += [
            RunDir(str(path), {"lab.run": path.name}, "partial file")
            for path in sorted(partials.iterdir())
            if _is_of_the_dead(path.name)
        ]
    return found


def _maker() -> str:
    """What the names of half-made things begin with, by which `_is_of_the_dead` judges."""
    pid = os.getpid()
    return f"{pid}-{start_ticks(pid)}"


def _is_of_the_dead(name: str) -> bool:
    pid, _, rest = name.partition("-")
    return pid.isdigit() and str(start_ticks(int(pid))) != rest.split("-")[0]


def _remove(path: Path) -> None:
    """Remove a file or a directory, as far as this user may; what is gone already is no matter."""
    with contextlib.suppress(OSError):
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


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
