"""The pool of ports by which this host reaches pods of the lab's own cluster."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from weakref import WeakValueDictionary

from lab.errors import LaunchError

_shared: WeakValueDictionary[str, Pool] = WeakValueDictionary()
_sharing = threading.Lock()


def pool_of(uid: str, ports: Mapping[int, int]) -> Pool:
    """The pool of the cluster `uid`: one for all the drivers of this process, so that no two give out the same port."""
    with _sharing:
        pool = _shared.get(uid)
        if pool is None:
            pool = _shared[uid] = Pool(ports)
        return pool


class Pool:
    """Gives out the node's ports one by one, those longest unused first. Safe for threads."""

    def __init__(self, ports: Mapping[int, int]) -> None:
        self._host_port = dict(ports)
        self._free = deque(self._host_port)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._host_port)

    def take(self) -> int:
        """A port of the node that nothing of this driver's uses. Raises LaunchError where none is left."""
        with self._lock:
            if not self._free:
                raise LaunchError(
                    f"all {len(self)} ports of the cluster's pool are in use, so no more instances can be reached",
                    resolution="launch fewer at once, or see `lab clean`",
                )
            return self._free.popleft()

    def give_back(self, port: int) -> None:
        """What used it is gone."""
        with self._lock:
            if port in self._host_port and port not in self._free:
                self._free.append(port)

    def occupy(self, ports: Iterable[int]) -> None:
        """Others use these."""
        with self._lock:
            for port in ports:
                if port in self._free:
                    self._free.remove(port)

    def host_port(self, port: int) -> int | None:
        """The port of 127.0.0.1 that leads to the node's `port`; None where none does."""
        return self._host_port.get(port)
