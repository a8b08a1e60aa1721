"""One `lab run` per host at a time, whoever starts it: two that run at once would measure each other.

The lock is flock(2) on a file that all users of the host can open. The kernel lets go of it when its holder ends, in
whatever way. The file stays behind, empty: to remove it would let two runs hold two files of one name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from lab.errors import LabError

LOCK_DIRECTORIES = (Path("/run/lock"), Path("/var/lock"), Path("/tmp"))  # noqa: S108
"""All that distributions let any user write to, so that the lock is shared on purpose."""
LOCK_NAME = "stratalab.lock"

_UNUSABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENXIO,
)
"""What open(2) says of a place that this user cannot use, or of a name that is no plain file."""
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_HOLDER_LIMIT_BYTES = 256
_OPEN_ATTEMPTS = 5
_OPEN_EVERY_S = 0.05


@contextlib.contextmanager
def host_lock(
    run_id: str,
    *,
    wait: bool = False,
    on_wait: Callable[[str], None] | None = None,
    directories: Sequence[Path] = LOCK_DIRECTORIES,
) -> Iterator[None]:
    """Hold this host for `run_id`. Where another run holds it: wait, having told `on_wait` who (one line), or raise
    LabError, naming it.

    The lock is taken in every one of `directories` that this user can use, in their order: which of them a user may
    write to differs (/run/lock is root's alone on some distributions), and any two runs meet in at least one. Wait
    in the main thread if Ctrl-C is to end it. Programs that are started meanwhile do not inherit the lock; a child
    that is forked and never executes another program would.
    """
    with contextlib.ExitStack() as held:
        taken = 0
        for directory in dict.fromkeys(directory.resolve() for directory in directories):
            descriptor = _take(directory / LOCK_NAME, wait, on_wait)
            if descriptor is not None:
                held.callback(_release, descriptor)
                _write_holder(descriptor, run_id)
                taken += 1
        if not taken:
            raise LabError(
                "no lock for this host can be had",
                details=f"{LOCK_NAME} cannot be opened in any of {', '.join(map(str, directories))}",
                resolution=f"make one of them writable, or remove a {LOCK_NAME} that is no ordinary file",
            )
        yield


def _take(path: Path, wait: bool, on_wait: Callable[[str], None] | None) -> int | None:
    """The locked file's descriptor, or None where this user cannot use `path`. Raises LabError when held."""
    while True:
        descriptor = _open(path)
        if descriptor is None:
            return None
        try:
            _lock(descriptor, wait, on_wait)
            current = _is_current(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        if current:
            return descriptor
        os.close(descriptor)  # removed while it was waited for: whoever comes next would lock another file


def _lock(descriptor: int, wait: bool, on_wait: Callable[[str], None] | None) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _read_holder(descriptor)
        if not wait:
            raise LabError(
                f"another lab run holds this host: {holder}", resolution="wait for it to end, or pass --wait"
            ) from None
        if on_wait:
            on_wait(holder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _open(path: Path) -> int | None:
    """Open or make the file, or None where this user cannot.

    It is opened without O_CREAT first: with it, fs.protected_regular forbids others' files in a sticky directory,
    even to root (proc_sys_fs(5)). The umask may have narrowed a new file, until its maker has widened it: hence the
    attempts. A link, a pipe, or a file of two names is not taken, as somebody else may have laid it there.
    """
    for _ in range(_OPEN_ATTEMPTS):
        try:
            descriptor = os.open(path, _FLAGS)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                return _create(path)
        except PermissionError:
            time.sleep(_OPEN_EVERY_S)
        except OSError as error:
            return _unusable(error)
        else:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
                return descriptor
            os.close(descriptor)
            return None
    return None


def _create(path: Path) -> int | None:
    """Make the file for every user of the host. Raises FileExistsError when another was quicker."""
    try:
        descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        raise
    except OSError as error:
        return _unusable(error)
    os.fchmod(descriptor, 0o666)
    return descriptor


def _unusable(error: OSError) -> int | None:
    """None, where `error` says that this user cannot use the place; else it is raised."""
    if error.errno in _UNUSABLE:
        return None
    raise error


def _is_current(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int, run_id: str) -> None:
    """Name the holder in the file, for others to read; nothing depends on it."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    text = f"pid {os.getpid()}, user {_user()}, run {run_id}, since {since}\n"
    with contextlib.suppress(OSError):  # a full disk must not keep the lab from running: the lock itself is held
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode()[:_HOLDER_LIMIT_BYTES], 0)


def _read_holder(descriptor: int) -> str:
    """What the holder wrote, as one line without control characters: any user may have written it."""
    text = os.pread(descriptor, _HOLDER_LIMIT_BYTES, 0).decode("utf-8", "replace").strip()
    return "".join(letter if letter.isprintable() else "?" for letter in text) or "it has not said who it is"


def _release(descriptor: int) -> None:
    try:
        with contextlib.suppress(OSError):  # see _write_holder
            os.ftruncate(descriptor, 0)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # also where a forked child still has the file open
    finally:
        os.close(descriptor)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name: KeyError until Python 3.12, OSError from 3.13 on
        return str(os.getuid())
