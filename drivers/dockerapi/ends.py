"""Why a container ended that nobody here ended, asked of the engine once its event has told that it did."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from drivers.dockerapi.errors import translated
from lab.errors import DriverError, LaunchError
from lab.launch.ends import LINES, Ending

if TYPE_CHECKING:
    from docker import APIClient

_KILLED = 137
_OOM_TIMEOUT_S = 0.3
_OOM_EVERY_S = 0.02


def tell_end(
    api: APIClient, container: str, code: int, tell: Callable[[LaunchError], None], *, memory_bytes: int
) -> None:
    """Call `tell` with the error of a service that ended with `code`, within the second and from a thread of its own:
    that of the events goes on."""

    def run() -> None:
        out_of_memory, output = False, b""
        with contextlib.suppress(DriverError):  # removed meanwhile, or the engine went away: the code is known
            out_of_memory = _killed_for_memory(api, container, code)
            output = _last_lines(api, container)
        ending = Ending.by_code(code, out_of_memory=out_of_memory)
        tell(ending.error(memory_bytes=memory_bytes, output=output))

    threading.Thread(target=run, name=f"end of {container[:12]}", daemon=True).start()


def _killed_for_memory(api: APIClient, container: str, code: int) -> bool:
    """What the engine says. It hears of such a kill in another way than of the end, and perhaps a moment later."""
    deadline = time.monotonic() + (_OOM_TIMEOUT_S if code == _KILLED else 0.0)
    while True:
        with translated("inspect the container that ended"):
            told = api.inspect_container(container)
        if told["State"].get("OOMKilled"):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_OOM_EVERY_S)


def _last_lines(api: APIClient, container: str) -> bytes:
    with translated("read the log of the container that ended"):
        return bytes(api.logs(container, stdout=True, stderr=True, tail=LINES))
