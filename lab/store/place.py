"""Where the lab keeps things: state and cache by the XDG base directory specification, and one directory per run."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import BadInput, CleanupError, DriverUnavailable, LabError, PlaceError
from lab.host.ownership import Owner, owner_alive, start_ticks
from lab.host.procfs import mount_of, read_mounts

if TYPE_CHECKING:
    from lab.driver import Leftover

BEAT_S = 60.0
"""How often an owner touches the file in its run's directory that tells that it lives."""
STALE_S = 3600.0
"""An owner that cannot be seen, and has not done so for this long, is dead."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""What a write meets where there is no room for it: a full disk, a quota, a limit on files, a read-only mount."""

_LABELS = "labels.json"
_HEARTBEAT = "heartbeat"
_PARTIAL = "partial"
_MAKER = re.compile(r"(\d+)-(\d+)-(\d+)-([0-9a-f]{32})-")
_OLDER_MAKER = re.compile(r"(\d+)-(\d+)-")
_WHY = {
    errno.ENOSPC: "there is no space left",
    errno.EDQUOT: "this user's quota is used up",
    errno.EFBIG: "no larger file is allowed there",
    errno.EROFS: "it is mounted read-only",
}


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
    with filling("a run's directory", root):
        unnamed = Path(tempfile.mkdtemp(prefix=f".{_maker()}-", dir=root))
        try:
            (unnamed / _LABELS).write_text(json.dumps(dict(labels)))
            (unnamed / _HEARTBEAT).touch()
            unnamed.chmod(0o711)
            return unnamed.rename(root / run_id)
        except OSError:
            _remove(unnamed)
            raise


def require_exec(folder: Path) -> None:
    """Raises DriverUnavailable, naming the mount, where no program below `folder` can be run (noexec; mount(8))."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        mount = mount_of(folder.resolve(), read_mounts(Path("/")))
        raise DriverUnavailable(
            f"no program can be run from {folder}: {mount.point if mount else 'its file system'} is mounted noexec",
            resolution="set XDG_CACHE_HOME to a folder on another mount",
        )


@contextlib.contextmanager
def beating(run_dir: Path) -> Iterator[None]:
    """Tell in `run_dir`, every `BEAT_S`, that this process lives: also to those who cannot see its process."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            with contextlib.suppress(OSError):  # it is being removed
                os.utime(run_dir / _HEARTBEAT)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def owner_lives(labels: Mapping[str, str]) -> bool | None:
    """Whether the owner that `labels` name lives: by its process, or where that is not to be seen from here, by the
    heartbeat in its run's directory, if that lies here. None where neither tells."""
    alive = owner_alive(labels)
    return _by_heartbeat(labels) if alive is None else alive


def _by_heartbeat(labels: Mapping[str, str]) -> bool | None:
    run_id = labels.get("lab.run", "")
    if run_id != Path(run_id).name or run_id.startswith("."):
        return None
    folder = _runs_root() / run_id
    try:
        if json.loads((folder / _LABELS).read_text()).get("lab.owner") != labels.get("lab.owner"):
            return None
        beaten_s = (folder / _HEARTBEAT).stat().st_mtime
        owner = Owner.parse(labels.get("lab.owner", ""))
    except (OSError, ValueError, AttributeError, BadInput):
        return None
    now_s, up_s = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    if now_s - beaten_s < 3 * BEAT_S:
        return True
    # One that wrote here before this host booted, and not since, was of that boot.
    gone_by_boot = owner.of_an_earlier_boot() and up_s > 3 * BEAT_S and beaten_s < now_s - up_s
    return False if gone_by_boot or now_s - beaten_s > STALE_S else None


@contextlib.contextmanager
def partial(cache: Path, name: str, *, what: str = "", needs_bytes: int = 0) -> Iterator[Path]:
    """A path below `cache` of this call's own, where a file or directory is made until it is renamed into place.

    What is still there at the end is removed; what a killed process left there, `run_dirs` lists. Raises PlaceError
    where there is no room for it, which tells `what` it was, and how much it needs where that is known.
    """
    with filling(what or name, cache, needs_bytes=needs_bytes):
        path = partial_folder(cache) / f"{_maker()}-{secrets.token_hex(4)}-{name}"
        try:
            yield path
        finally:
            _remove(path)


def resumable(cache: Path, name: str) -> Path:
    """A path below `cache`, of this process's own, for a file that is worth going on with: it is the caller's to
    remove. What a dead process left under the same `name` is taken over, and what nobody takes, `run_dirs` lists."""
    folder = partial_folder(cache)
    path = folder / f"{_maker()}-{name}"
    for left in sorted(folder.glob(f"*-{glob.escape(name)}")):
        if left != path and not path.exists() and _is_of_the_dead(left):
            with contextlib.suppress(FileNotFoundError):  # another has just taken it over
                left.rename(path)
    return path


def partial_folder(cache: Path) -> Path:
    """The folder below `cache` in which things are made, and nameless files lie."""
    folder = cache / _PARTIAL
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def filling(what: str, place: Path, *, needs_bytes: int = 0) -> Iterator[None]:
    """Raises PlaceError where `what` finds no room in `place`: a full disk, a quota, a limit, a read-only mount."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise no_room(error, what, place, needs_bytes=needs_bytes) from error


def no_room(error: OSError, what: str, place: Path, *, needs_bytes: int = 0) -> PlaceError:
    """The one line for a write of `what` to `place` that met one of FULL."""
    needs = f"{what} needs {needs_bytes / 1e6:.1f} MB" if needs_bytes else f"{what} does not fit"
    free = ""
    if error.errno == errno.ENOSPC:
        with contextlib.suppress(OSError):
            free = f" ({shutil.disk_usage(place).free / 1e6:.0f} MB free)"
    return PlaceError(
        f"{place} cannot be written to: {_WHY.get(error.errno or 0, error.strerror)}{free}, and {needs}",
        details=str(error),
        resolution=_elsewhere(place),
    )


def write_whole(path: Path, text: str | bytes) -> None:
    """Write `text` to a user's file, readable by its user only, whole or not at all. Raises BadInput, which names the
    place, and how much it needs where there is no room."""
    content = text.encode("utf-8", "replace") if isinstance(text, str) else text
    try:
        if path.exists() and not path.is_file():  # a pipe, a terminal
            path.write_bytes(content)
            return
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        told = no_room(error, path.name, path.parent, needs_bytes=len(content)).brief
        brief = told if error.errno in FULL else f"{path} cannot be written: {error.strerror}"
        raise BadInput(brief, resolution="name a file in a directory of yours, on a disk with room") from error


def cache_sizes(cache: Path) -> dict[str, int]:
    """What each thing in the cache takes on its disk, in bytes, the largest first."""
    found: dict[str, int] = {}
    for path in sorted(cache.iterdir()):
        inside = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
        total = 0
        for one in inside:
            with contextlib.suppress(FileNotFoundError):  # a living run has taken it away meanwhile
                total += one.lstat().st_blocks * 512
        found[path.name] = total
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def labels_in(run_dir: Path) -> dict[str, str]:
    """The labels that a run's directory bears; none where it bears none."""
    try:
        found = json.loads((run_dir / _LABELS).read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class RunDir:
    """A run's directory, or what a process was making in the cache, as a leftover; `abandoned` where that one is dead
    by the name that it gave."""

    id: str
    labels: Mapping[str, str]
    kind: str = "directory"
    abandoned: bool = False

    def delete(self) -> None:
        _remove(Path(self.id))
        if Path(self.id).exists():
            raise CleanupError(f"{self.id} cannot be removed", resolution=f"sudo rm -r {self.id}")


def run_dirs(labels: Mapping[str, str]) -> Sequence[Leftover]:
    """The run directories of this user that bear `labels`; with no `labels`, also what dead processes left half-made:
    run directories, and partial files in the cache."""
    from lab.driver import bears  # not on import: who only reads a store needs nothing of drivers

    found: list[Leftover] = []
    for path in sorted(_runs_root().iterdir()):
        if path.name.startswith("."):
            if not labels and _is_of_the_dead(path):
                found.append(RunDir(str(path), {"lab.run": path.name}, abandoned=True))
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
            RunDir(str(path), {"lab.run": path.name}, "partial file", abandoned=True)
            for path in sorted(partials.iterdir())
            if _is_of_the_dead(path)
        ]
    return found


def _maker() -> str:
    """What the names of half-made things begin with, by which `_is_of_the_dead` judges."""
    own = Owner.current()
    return f"{own.pid}-{own.start_ticks}-{own.namespace}-{own.boot.replace('-', '')}"


def _is_of_the_dead(path: Path) -> bool:
    """Whether who was making `path` is dead: by its process, or where that is not seen from here, by the age."""
    name, own = path.name.removeprefix("."), Owner.current()
    if found := _MAKER.match(name):
        pid, ticks, namespace, boot = found.groups()
        same_boot = boot == own.boot.replace("-", "")
        alive = replace(own, pid=int(pid), start_ticks=int(ticks), namespace=namespace).alive() if same_boot else None
    elif found := _OLDER_MAKER.match(name):
        alive = True if start_ticks(int(found[1])) == int(found[2]) else None
    else:
        return False
    try:
        return alive is False or (alive is None and time.time() - path.lstat().st_mtime > STALE_S)
    except FileNotFoundError:
        return False


def remove_tree(path: Path) -> None:
    """Remove a directory and all below it, following no link, as far as this user may; what is gone is no matter."""
    with contextlib.suppress(RecursionError):  # an image or a service can lay thousands of directories in one another
        shutil.rmtree(path, ignore_errors=True)
    if path.is_dir() and not path.is_symlink():
        # rm(1) needs neither a descriptor nor a stack frame for each.
        subprocess.run(["rm", "-rf", "--", str(path)], stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _remove(path: Path) -> None:
    """Remove a file or a directory, as far as this user may; what is gone already is no matter."""
    with contextlib.suppress(OSError):
        path.unlink()
    remove_tree(path)


def _runs_root() -> Path:
    root = Path("/var/tmp") / f"stratalab-{os.getuid()}"  # noqa: S108  owner and mode are checked below
    try:
        with filling("a run's directory", root.parent):
            root.mkdir(mode=0o711)
            root.chmod(0o711)
    except FileExistsError:
        pass
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise LabError(f"{root} is not a directory of yours alone", resolution=f"remove it: sudo rm -r {root}")
    return root


def _elsewhere(place: Path) -> str:
    for variable, default, name in (
        ("XDG_CACHE_HOME", ".cache", "the cache"),
        ("XDG_STATE_HOME", ".local/state", "the store"),
    ):
        if place.is_relative_to(_xdg(variable, default) / "stratalab"):
            return f"make room on that disk, or put {name} on another with {variable}"
    return "make room on that disk"


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
