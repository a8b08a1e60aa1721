"""A user's own systemd unit, and what it needs in a guest: `--unit FILE --copy SRC:DST`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from lab.errors import BadInput
from lab.spec import UserUnit

_NAME = re.compile(r"[A-Za-z0-9:_.\\-]{1,200}\.service")
_MOST_UNIT_BYTES = 64 * 1024
_HOW = "such as --unit app.service --copy ./app:/usr/local/bin/app"
_KEPT = ("/proc", "/sys", "/dev", "/run")
"""Where nothing that is written before systemd starts is there after."""


def read_unit(file: Path, copies: Sequence[str]) -> UserUnit:
    """The unit in `file` with its `copies`, each `SRC:DST`. Raises BadInput, on one line, for what cannot be meant."""
    if not _NAME.fullmatch(file.name):
        raise BadInput(f"--unit: '{file.name}' is no name of a service's unit", resolution="call it NAME.service")
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST_UNIT_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--unit: {file} cannot be read: {_why(error)}", resolution=_HOW) from error
    if len(data) > _MOST_UNIT_BYTES or "\0" in text or not re.search(r"^\s*\[Service\]\s*$", text, re.MULTILINE):
        raise BadInput(f"--unit: {file} is no unit of a service: it has no section [Service]", resolution=_HOW)
    return UserUnit(name=file.name, text=text, copies=tuple(_copy(one) for one in copies))


def _copy(text: str) -> tuple[Path, str]:
    source, colon, to = text.rpartition(":")
    if not colon or not source or not to.startswith("/") or to.endswith("/") or posixpath.normpath(to) != to:
        raise BadInput(f"--copy: '{text}' is not SRC:DST with an absolute path in the guest", resolution=_HOW)
    if any(to == kept or to.startswith(f"{kept}/") for kept in _KEPT):
        raise BadInput(f"--copy: in the guest nothing can be put into {to}", resolution="choose a place on its disk")
    path = Path(source).absolute()
    if not (path.is_file() or path.is_dir()):
        raise BadInput(f"--copy: there is no file or folder {source}", resolution=_HOW)
    return path, to


def _why(error: OSError | UnicodeDecodeError) -> str:
    return "it is no text" if isinstance(error, UnicodeDecodeError) else str(error.strerror)
