"""A driver's own connections to its Docker engine, each made on use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.dockerapi.client import connect, is_podman
from drivers.dockerapi.streams import Events
from lab.driver import Context

if TYPE_CHECKING:
    from docker import APIClient


class Connection:
    """The client and the event stream of one driver, from their first use until `close`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._client: APIClient | None = None
        self._events: Events | None = None

    def api(self) -> APIClient:
        """The client. Raises DriverUnavailable."""
        if self._client is None:
            self._client = connect(self._context)
        return self._client

    def events(self) -> Events:
        """The engine's events, followed. Raises DriverUnavailable."""
        if self._events is None:
            self._events = Events(self.api(), filters=not is_podman(self.api()))
        return self._events

    @property
    def followed(self) -> Events | None:
        """The engine's events where something follows them already."""
        return self._events

    def close(self) -> None:
        """Close both. Idempotent; the next use makes them anew."""
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._client is not None:
            self._client.close()
            self._client = None
