"""A container's first process as a child of the lab: only a parent learns how a process ended (wait(2)).

A runtime without a daemon makes it and ends; the kernel then gives it to the nearest ancestor that takes orphans
(PR_SET_CHILD_SUBREAPER(2const)), which for this moment the lab is. So nothing stays beside the container that it would
not have otherwise, neither the runtime nor a monitor of the lab's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)
_lock = threading.Lock()
_adopting = 0
_before = 0


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """What a program started within leaves behind at its end becomes a child of this process, which may wait for it.
    From any thread, several at once. Raises OSError."""
    global _adopting, _before  # noqa: PLW0603  the attribute is the process's
    with _lock:
        if _adopting == 0:
            _before = _taking()
            _take(1)
        _adopting += 1
    try:
        yield
    finally:
        with _lock:
            _adopting -= 1
            if _adopting == 0:
                _take(_before)


def _taking() -> int:
    value = ctypes.c_int()
    _require(_libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0))
    return value.value


def _take(value: int) -> None:
    _require(_libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(value), 0, 0, 0))


def _require(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
