"""The first task of a service that is being launched: its address, its output, and why it does not start."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Mapping
from typing import Any

from drivers.dockerapi.errors import translated
from drivers.dockerapi.streams import Log
from lab.driver import Mark
from lab.errors import LaunchError

_START_TIMEOUT_S = 60.0
_UNSCHEDULED_S = 10.0
_LOOK_EVERY_S = 0.5
_ADDRESS_EVERY_S = 0.02
_END_S = 2.0
_ENDED = ("failed", "rejected", "complete", "shutdown", "orphaned", "remove")


class FirstTask:
    """`bridge_address` is what the default bridge has given to the task's container, empty until it is known."""

    def __init__(self, api: Any, mark: Mark, first_end: queue.SimpleQueue[LaunchError]) -> None:
        """`first_end` gets the error that tells how the service ended, where it did."""
        self.bridge_address = ""
        self._api = api
        self._mark = mark
        self._first_end = first_end
        self._log: Log | None = None

    def await_start(self, service: str, seen: queue.SimpleQueue[tuple[str, str]]) -> str:
        """The id of the container that has started, whose log is followed from its beginning. `seen` gives the events
        of the service's containers. Raises LaunchError with Swarm's reason."""
        begun = looked = time.monotonic()
        created = ""
        while (now := time.monotonic()) - begun < _START_TIMEOUT_S:
            seeking = bool(created) and not self.bridge_address
            try:
                action, container = seen.get(timeout=_ADDRESS_EVERY_S if seeking else _LOOK_EVERY_S)
            except queue.Empty:
                if seeking:
                    self.bridge_address = self._address(created)
                if now - looked > _LOOK_EVERY_S:
                    looked = now
                    self._look(service, now - begun)
                continue
            if action == "start":
                with translated("follow the task's log", LaunchError):
                    self._log = Log(self._api, container, self._mark)
                return container
            created = container
        raise LaunchError(f"Swarm did not start the task within {_START_TIMEOUT_S:g} s", details=self._told(service))

    def end(self) -> LaunchError | None:
        """How the service ended, now that its container is seen to have ended; None where that is not told."""
        with contextlib.suppress(queue.Empty):
            return self._first_end.get(timeout=_END_S)
        return None

    def close(self) -> None:
        """Follow the log no more. Idempotent."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def _address(self, container: str) -> str:
        """From the network and not from the container, whose inspection the engine lets wait until it has started:
        so `ready` need not wait for it."""
        with translated("inspect the default bridge", LaunchError):
            known = self._api.inspect_network("bridge").get("Containers") or {}
        address: str = known.get(container, {}).get("IPv4Address", "")
        return address.partition("/")[0]

    def _look(self, service: str, waited_s: float) -> None:
        for status in self._states(service):
            require_hope(status, waited_s)

    def _told(self, service: str) -> str:
        return "\n".join(str(status) for status in self._states(service))

    def _states(self, service: str) -> list[Mapping[str, Any]]:
        with translated("look at the task", LaunchError):
            return [task["Status"] for task in self._api.tasks(filters={"service": service})]


def require_hope(status: Mapping[str, Any], waited_s: float) -> None:
    """Refuse a task's `status` (Docker Engine API, 'List tasks') that will not become a running one, `waited_s` after
    the service was made. Raises LaunchError with Swarm's reason."""
    reason = " ".join(str(status.get("Err") or status.get("Message", "")).split())
    if status["State"] in _ENDED:
        raise LaunchError(f"Swarm could not start the task: {reason}", details=str(status))
    if status["State"] == "pending" and status.get("Err") and waited_s > _UNSCHEDULED_S:
        raise LaunchError(
            f"Swarm finds no place for the task: {reason}",
            details=str(status),
            resolution="see `docker node ls`: this node must be ready and active",
        )
