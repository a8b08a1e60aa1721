"""What a user may tell of functions behind a socket: `-o socket-keep-alive=SECONDS`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lab.errors import BadInput

KEEP_ALIVE = "socket-keep-alive"
KEEP_ALIVE_S = 300.0
_LEAST_S, _MOST_S = 0.1, 86_400.0


def keep_alive_s(options: Mapping[str, str]) -> float:
    """How long a worker stays that nobody calls, in seconds. Raises BadInput."""
    text = options.get(KEEP_ALIVE, str(KEEP_ALIVE_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not _LEAST_S <= seconds <= _MOST_S:
        raise BadInput(
            f"{KEEP_ALIVE}={text} is no time that a worker can be kept",
            resolution=f"give seconds, from {_LEAST_S:g} to {_MOST_S:g}: -o {KEEP_ALIVE}=2",
        )
    return seconds
