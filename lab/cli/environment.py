"""The service's environment as a user gives it, by the rules of `docker run`: `--env` and `--env-file`.

Source: docker/cli, opts/env.go and pkg/kvfile. No message here repeats a value.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from lab.errors import BadInput

_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""What Go's unicode.IsSpace takes for one; Python's own differs."""
_BOM = b"\xef\xbb\xbf"


def read_environment(
    given: Iterable[str], files: Iterable[Path], *, own: Mapping[str, str] | None = None
) -> dict[str, str]:
    """`given`, each NAME=VALUE or NAME, over what `files` hold, the later over the earlier. Raises BadInput.

    A NAME without a value gets that of `own`, by default this process's environment; without one there it is left out.
    """
    known = os.environ if own is None else own
    found: dict[str, str] = {}
    for path in files:
        found |= _of_file(path, known)
    for number, item in enumerate(given, start=1):
        name, equals, value = item.partition("=")
        if not name:
            raise BadInput(f"--env number {number} names no variable", resolution="write NAME=VALUE, or NAME alone")
        found |= _one(name, value if equals else None, known)
    return found


def _of_file(path: Path, known: Mapping[str, str]) -> dict[str, str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"--env-file {path} cannot be read: {error.strerror}", resolution="name a file of lines NAME=VALUE"
        ) from error
    found: dict[str, str] = {}
    for number, raw in enumerate(content.removeprefix(_BOM).split(b"\n"), start=1):
        try:
            line = raw.removesuffix(b"\r").decode().lstrip(_SPACES)
        except UnicodeDecodeError as error:
            raise BadInput(f"--env-file {path}, line {number} is not UTF-8", resolution="save it as UTF-8") from error
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not name or set(name) & {" ", "\t"}:
            what = "names no variable" if not name else "has a space in the variable's name"
            raise BadInput(f"--env-file {path}, line {number} {what}", resolution="write NAME=VALUE, or NAME alone")
        found |= _one(name, value if equals else None, known)
    return found


def _one(name: str, value: str | None, known: Mapping[str, str]) -> dict[str, str]:
    if value is not None:
        return {name: value}
    return {name: known[name]} if name in known else {}
