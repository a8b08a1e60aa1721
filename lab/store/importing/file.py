"""A file as a run, whoever wrote it."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lab.errors import BadInput
from lab.store.importing import hyperfine, lab_json, pyperf
from lab.store.record import RunRecord

READERS: Sequence[Callable[[Any], RunRecord | None]] = (lab_json.read, hyperfine.read, pyperf.read)
"""Each takes a JSON document and gives the run that it tells of, or None for what is not its own to read."""

_GZIP = b"\x1f\x8b"
_WHAT = "export one with `lab export RUN --output FILE`"


def read_file(path: Path) -> RunRecord:
    """The run that a file of JSON tells of, which may be packed by gzip. Raises BadInput, which names the file."""
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        document = json.loads(content, parse_constant=_refuse)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}", resolution=_WHAT) from error
    except (EOFError, zlib.error) as error:
        raise BadInput(f"{path} is a broken gzip file: {error}", resolution=_WHAT) from error
    except (ValueError, RecursionError) as error:
        told = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise BadInput(f"{path} is no JSON: {told}", resolution=_WHAT) from error
    for read in READERS:
        try:
            found = read(document)
        except BadInput as error:
            raise BadInput(f"{path}: {error.brief}", resolution=error.resolution) from error
        if found is not None:
            return found
    raise BadInput(f"{path} is of no tool that the lab can read", resolution=_WHAT)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no value of JSON")
