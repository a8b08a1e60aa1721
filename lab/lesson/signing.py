"""Signatures of figures: a digest over the raw stored values, the run's id and the host's.

Without a key anybody can compute it: it shows that a figure was changed by hand and not signed again, and, as it holds
the run's id and the host's, that two students hand in the same run. It stops nobody who computes it anew. With a
teacher's key (HMAC) it shows that who signed had the key; a student who was given the key has it, too.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import BadInput
from lab.figures import stats
from lab.lesson.record import Figure

_LEAST_KEY_BYTES = 16
_MOST_KEY_BYTES = 4096
_NAME_HEX = 8


def read_key(path: Path) -> bytes:
    """A class key. Raises BadInput."""
    try:
        with path.open("rb") as file:
            key = file.read(_MOST_KEY_BYTES + 1).strip()
    except OSError as error:
        raise BadInput(f"--key-file {path} cannot be read: {error.strerror}", resolution="ask your teacher") from error
    if not _LEAST_KEY_BYTES <= len(key) <= _MOST_KEY_BYTES:
        raise BadInput(
            f"--key-file {path} holds {len(key)} bytes; a key has {_LEAST_KEY_BYTES} to {_MOST_KEY_BYTES}",
            resolution=f"make one: openssl rand -hex 32 > {path}",
        )
    return key


def sign(
    *,
    run_id: str,
    host_id: str,
    target: str,
    metric: str,
    dimensions: Mapping[str, str],
    unit: str,
    values: Sequence[float],
    key: bytes | None = None,
) -> str:
    """`sha256:HEX`, or with a key `hmac-sha256:NAME_OF_THE_KEY:HEX`."""
    told = json.dumps(
        {
            "run": run_id,
            "host": host_id,
            "target": target,
            "metric": metric,
            "dimensions": dict(sorted(dimensions.items())),
            "unit": unit,
            "values": [float(value).hex() for value in values],
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    if key is None:
        return f"sha256:{hashlib.sha256(told).hexdigest()}"
    name = hashlib.sha256(b"the name of the class key " + key).hexdigest()[:_NAME_HEX]
    return f"hmac-sha256:{name}:{hmac.digest(key, told, 'sha256').hex()}"


def problem(figure: Figure, key: bytes | None = None) -> str:
    """Why a figure is not what its raw values and its signature say; empty where it is. With `key`, one that was signed
    without it is a problem; without, what was signed with one is only held against its own values."""
    if not figure.values or not all(map(math.isfinite, figure.values)):
        return "it has no raw values"
    found = stats.estimate(tuple(figure.values))
    told = (figure.n, figure.mid, figure.low, figure.high)
    if not all(map(_same, told, (found.n, found.median, found.low, found.high))):
        return "its median or interval is not that of its raw values"
    return _unsigned(figure, key)


def _unsigned(figure: Figure, key: bytes | None) -> str:
    keyed = figure.signature.startswith("hmac-sha256:")
    if keyed and key is None:
        return ""
    if key is not None and not keyed:
        return "it was signed without the class key"
    again = sign(
        run_id=figure.run_id,
        host_id=figure.host_id,
        target=figure.target,
        metric=figure.metric,
        dimensions=figure.dimensions,
        unit=figure.unit,
        values=figure.values,
        key=key,
    )
    if hmac.compare_digest(again.encode(), figure.signature.encode()):
        return ""
    if keyed and again.split(":")[1] != figure.signature.split(":")[1]:
        return "it was signed with another key"
    return "its raw values, run or host are not those that were signed"


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-9)
