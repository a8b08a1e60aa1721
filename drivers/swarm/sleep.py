"""A service of a swarm asleep: scaled to none, and woken by scaling it to one again."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

from drivers.dockerapi.errors import translated
from drivers.dockerapi.streams import Events
from lab.errors import DriverError
from lab.spec import Endpoint

_START_TIMEOUT_S = 60.0
_ADDRESS_TIMEOUT_S = 5.0
_LOOK_S = 0.02


def wake(
    api: Any, events: Events, launch: str, scale: Callable[[int], None], address: Callable[[str], Endpoint | None]
) -> Endpoint:
    """Scale the service of `launch` to one, and return where its new task answers, which Swarm decides as it starts
    it; `address` tells it of a container. Raises DriverError."""
    started: queue.SimpleQueue[str] = queue.SimpleQueue()
    events.watch(launch, lambda action, container: started.put(container) if action == "start" else None)
    scale(1)
    try:
        container = started.get(timeout=_START_TIMEOUT_S)
    except queue.Empty:
        with translated("look at the task"):
            told = [task["Status"] for task in api.tasks(filters={"label": f"lab.launch={launch}"})]
        raise DriverError(
            f"Swarm did not start a task again within {_START_TIMEOUT_S:g} s", details="\n".join(map(str, told))
        ) from None
    deadline = time.monotonic() + _ADDRESS_TIMEOUT_S
    while (found := address(container)) is None:
        if time.monotonic() > deadline:
            raise DriverError("the task that was started again has no address: it has ended")
        time.sleep(_LOOK_S)
    return found
