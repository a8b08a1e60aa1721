"""One address in front of several: each new connection goes to the next of them, as a user's own balancer would do.

For engines that give each replica an address of its own and none in front. It only moves bytes, and what it cannot
connect it closes, so that a client sees a failure where a user would.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from lab.errors import DriverError
from lab.spec import Endpoint

_FOLLOW_S = 0.1
_CONNECT_S = 0.2
_PIECE_BYTES = 65_536


class Spreader:
    """Listens on loopback while its context lasts; `addresses` is asked again every 100 ms."""

    def __init__(self, addresses: Callable[[], Sequence[Endpoint]]) -> None:
        self._ask = addresses
        self._addresses: Sequence[Endpoint] = addresses()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = Endpoint("127.0.0.1", self._listener.getsockname()[1])
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=f"lab-spread{run.__name__}", daemon=True)
            for run in (self._follow, self._forward)
        ]
        self._failure: BaseException | None = None

    def __enter__(self) -> Spreader:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()
        if self._failure is not None and error is None:
            raise self._failure

    def _follow(self) -> None:
        while not self._ended.wait(_FOLLOW_S):
            with contextlib.suppress(DriverError):  # the engine is busy: what it said last still holds
                self._addresses = self._ask()

    def _forward(self) -> None:
        try:
            self._forward_until_ended()
        except BaseException as error:  # told by `__exit__`: what it did not forward was not the service's failure
            self._failure = error

    def _forward_until_ended(self) -> None:
        turn = 0
        with selectors.DefaultSelector() as selector:
            self._listener.setblocking(False)
            selector.register(self._listener, selectors.EVENT_READ, None)
            while not self._ended.is_set():
                for key, _ in selector.select(_FOLLOW_S):
                    if key.data is None:
                        turn += 1
                        self._accept(selector, turn)
                    else:
                        key.data.move(selector, key.fileobj)
            for pair in {key.data for key in selector.get_map().values() if key.data is not None}:
                pair.close(selector)

    def _accept(self, selector: selectors.BaseSelector, turn: int) -> None:
        with contextlib.suppress(BlockingIOError):
            client, _ = self._listener.accept()
            addresses = self._addresses
            try:
                if not addresses:
                    raise ConnectionRefusedError
                to = addresses[turn % len(addresses)]
                # Waiting here holds up the others: an address on this host answers or refuses at once.
                server = socket.create_connection((to.host, to.port), timeout=_CONNECT_S)
            except OSError:
                client.close()
                return
            _Pair(client, server).begin(selector)


@dataclass(slots=True, eq=False)
class _Pair:
    client: socket.socket
    server: socket.socket
    closed: bool = False

    def begin(self, selector: selectors.BaseSelector) -> None:
        for end in (self.client, self.server):
            end.settimeout(1.0)  # a write that blocks longer than a request may take ends the pair
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(end, selectors.EVENT_READ, self)

    def move(self, selector: selectors.BaseSelector, source: object) -> None:
        """Hand on what came; either end's end is the end of both."""
        if self.closed:  # by its other end, in the same look
            return
        reader, writer = (self.client, self.server) if source is self.client else (self.server, self.client)
        try:
            data = reader.recv(_PIECE_BYTES)
            if data:
                writer.sendall(data)
                return
        except OSError:
            pass  # reset by either side: both ends close, which the client sees
        self.close(selector)

    def close(self, selector: selectors.BaseSelector) -> None:
        self.closed = True
        for end in (self.client, self.server):
            selector.unregister(end)
            end.close()
