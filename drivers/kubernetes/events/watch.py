"""The cluster's events about the lab's pods, read by one thread, and read on after every break.

The client's own `Watch` is not used: it hides breaks and re-reads, after which an arrival says nothing about time.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from drivers.kubernetes.connection.client import Api
from drivers.kubernetes.connection.errors import is_cluster_error, status_of, translated
from lab.errors import DriverError
from lab.launch.lines import Lines

_SELECTOR = "lab.run"
_WATCH_S = 3600  # the API ends a watch after this; the next begins where it ended
_SILENCE_S = 180.0  # bookmarks come about once a minute: a connection silent for longer is dead
_CONNECT_TIMEOUT_S = 5.0
_PAUSES_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
_JOIN_TIMEOUT_S = 5.0
_GONE = 410


class Listener(Protocol):
    """Who is told of one launch's objects: at an event's arrival, by a listing, and that events may have been lost."""

    def event(self, kind: str, pod: Mapping[str, Any], /) -> None: ...
    def seen(self, pod: Mapping[str, Any], /) -> None: ...
    def missed(self) -> None: ...


class _Broken(Exception):
    """The watch cannot go on from where it was."""


class Watcher:
    """Follows every pod of the lab's in one namespace, or what else `listing` lists there; hands each event to the
    Listener of its `lab.launch`, a Follower mostly."""

    def __init__(self, api: Api, namespace: str, listing: Callable[..., Any] | None = None) -> None:
        self._api = api
        self._listing = listing or api.core.list_namespaced_pod
        self.namespace = namespace
        self._followers: dict[str, Listener] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._response: Any = None
        self._version = ""
        self._closing = threading.Event()
        self._fruitless = 0  # connections in a row that brought no event

    def connect(self) -> None:
        """Start, unless it runs: once this returns no event is missed. Raises DriverError."""
        if self._thread is not None and self._thread.is_alive():
            return
        with translated("follow its events"):
            self._version = self._list()
            self._response = self._open()
        self._thread = threading.Thread(target=self._run, name="kubernetes events", daemon=True)
        self._thread.start()

    def follow(self, launch: str, follower: Listener) -> None:
        """Hand the events of `launch` to `follower` from here on. Raises DriverError."""
        with self._lock:
            self._followers[launch] = follower
        self.connect()

    def forget(self, launch: str) -> None:
        """Hand on nothing more of `launch`."""
        with self._lock:
            self._followers.pop(launch, None)

    def close(self) -> None:
        """Stop reading. Idempotent."""
        self._closing.set()
        response = self._response
        if response is not None:
            # Not `close`, which would wait for the lock that the reading thread holds.
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # it has ended by itself
                response.shutdown()
        if self._thread is not None:
            self._thread.join(_JOIN_TIMEOUT_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                if self._response is None:
                    self._resume()
                self._read()
            except Exception as error:
                known = isinstance(error, _Broken | DriverError) or is_cluster_error(error)
                if not known and not self._closing.is_set():
                    raise
                if isinstance(error, _Broken) or status_of(error) == _GONE:
                    self._version = ""
            finally:
                self._drop()
            self._closing.wait(_PAUSES_S[min(self._fruitless, len(_PAUSES_S) - 1)])
            self._fruitless += 1

    def _resume(self) -> None:
        """Connect again: from the last version seen, or, where the API has forgotten it, from a listing."""
        if not self._version:
            self._version = self._list()
        self._response = self._open()

    def _read(self) -> None:
        lines = Lines()
        for piece in self._response.stream(amt=None, decode_content=False):
            for line in lines.feed(piece):
                if line.strip():
                    self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            kind, thing = event["type"], event["object"]
            if kind == "ERROR":
                raise _Broken(str(thing.get("message")))
            metadata = thing["metadata"]
            self._version = metadata["resourceVersion"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _Broken(f"no event of Kubernetes: {line[:200]!r}") from error
        self._fruitless = 0
        if kind == "BOOKMARK":
            return
        follower = self._follower(metadata)
        if follower is not None:
            follower.event(kind, thing)

    def _list(self) -> str:
        """Tell the followers what is there now; returns the version from which a watch goes on."""
        version = ""
        for page in self._api.pages(self._listing, self.namespace, label_selector=_SELECTOR):
            for pod in page:
                follower = self._follower(pod["metadata"])
                if follower is not None:
                    follower.seen(pod)
            version = version or page.version  # what changed since the first, the watch tells
        return version

    def _open(self) -> Any:
        return self._listing(
            self.namespace,
            label_selector=_SELECTOR,
            resource_version=self._version,
            watch=True,
            allow_watch_bookmarks=True,
            timeout_seconds=_WATCH_S,
            _preload_content=False,
            _request_timeout=(_CONNECT_TIMEOUT_S, _SILENCE_S),
        )

    def _drop(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()
        with self._lock:
            followers = list(self._followers.values())
        for follower in followers:
            follower.missed()

    def _follower(self, metadata: dict[str, Any]) -> Listener | None:
        with self._lock:
            return self._followers.get((metadata.get("labels") or {}).get("lab.launch", ""))
