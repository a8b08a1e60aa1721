"""A port of 127.0.0.1 whose connections the lab carries to a pod through the cluster's API."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading

from drivers.kubernetes.connection.client import Api
from drivers.kubernetes.connection.errors import is_cluster_error
from lab.errors import DriverError, LaunchError
from lab.spec import Endpoint

_AT_ONCE = 4
_PIECE_BYTES = 65_536
_IDLE_S = 60.0
_JOIN_TIMEOUT_S = 5.0


class Forwarder:
    """Listens at `endpoint` until `close`. Where the pod does not take a connection, it is closed at once.

    Four connections are carried at a time: the lab's waiter tries again and again until the pod serves, and each
    attempt costs the API a WebSocket.
    """

    def __init__(self, api: Api, namespace: str, pod: str, port: int, endpoint: Endpoint) -> None:
        self._api = api
        self._namespace = namespace
        self._pod = pod
        self._port = port
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        try:
            self._listener = socket.create_server((endpoint.host, endpoint.port))
        except OSError as error:
            reason = "is in use by another program" if error.errno == errno.EADDRINUSE else str(error.strerror)
            raise LaunchError(f"{endpoint} {reason}", resolution="leave the port to the lab") from error
        self._thread = threading.Thread(target=self._accept, name=f"forward to {pod}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        with contextlib.suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_JOIN_TIMEOUT_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            if not self._slots.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._carry, args=(connection,), daemon=True).start()

    def _carry(self, connection: socket.socket) -> None:
        from kubernetes.stream import portforward

        core = self._api.own_client()
        try:
            with connection:
                forward = portforward(
                    core.connect_get_namespaced_pod_portforward, self._pod, self._namespace, ports=str(self._port)
                )
                with contextlib.closing(forward.socket(self._port)) as remote:
                    _pump(connection, remote)
        except Exception as error:
            if not isinstance(error, DriverError) and not is_cluster_error(error):
                raise
            # The pod does not serve yet, or no more: the closed connection says so to whoever asked.
        finally:
            core.api_client.close()
            self._slots.release()


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until either end has said all, or nothing moves for a minute."""
    peer = {one: other, other: one}
    while True:
        ready, _, _ = select.select([one, other], [], [], _IDLE_S)
        if not ready:
            return
        for source in ready:
            data = source.recv(_PIECE_BYTES)
            if not data:
                return
            peer[source].sendall(data)
