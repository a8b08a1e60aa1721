"""A port of this host handed on into a container's own network namespace, for services that listen on all addresses.

Where no daemon has made a bridge, only a process inside the namespace reaches it: here a thread of the lab's own,
which listens outside and connects inside. It connects to an address that no loopback interface has by itself, so that
a service which listens on its own loopback only is not reached, as it is not through any engine's bridge.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import selectors
import socket
import struct
import threading

from lab.errors import LaunchError
from lab.spec import Endpoint

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_CHUNK_BYTES = 65_536
_JOIN_TIMEOUT_S = 5.0
_ATTEMPT_TIMEOUT_S = 5.0
_SIOCSIFADDR, _SIOCSIFNETMASK = 0x8916, 0x891C  # linux/sockios.h
_ERROR = (socket.SOL_SOCKET, socket.SO_ERROR)
_RESET = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 s
_libc = ctypes.CDLL(None, use_errno=True)

ADDRESS = "192.0.2.2"
"""The container's own address, within its network: of a block that no network uses (RFC 5737)."""


class Relay:
    """Listens at `endpoint` until `close`; hands each connection on to `port` inside the network of process `pid`. A
    connection that finds nobody listening there is reset."""

    def __init__(self, endpoint: Endpoint, pid: int, port: int) -> None:
        self._port = port
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._listener = _listen(endpoint)
        self._wake_in, self._wake_out = socket.socketpair()
        # Opened here, so that the process may not be gone before the thread looks.
        self._namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._inside = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"relay to {pid}", daemon=True)
        self._thread.start()
        self._inside.wait(_JOIN_TIMEOUT_S)  # the service may listen at its own name, whose address must be there

    def close(self) -> None:
        """End the thread and its connections. Idempotent."""
        with contextlib.suppress(OSError):  # it is closed already
            self._wake_in.send(b"\0")
        self._thread.join(_JOIN_TIMEOUT_S)
        self._wake_in.close()

    def _run(self) -> None:
        with contextlib.ExitStack() as open_until_end:
            open_until_end.enter_context(self._wake_out)
            open_until_end.enter_context(self._listener)
            try:
                # Only this thread moves (setns(2)); the listener stays where it was made.
                if _libc.setns(self._namespace, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
                _give_address()
            finally:
                self._inside.set()
                os.close(self._namespace)
            selector = open_until_end.enter_context(selectors.DefaultSelector())
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake_out, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    source = key.fileobj
                    assert isinstance(source, socket.socket)  # noqa: S101  nothing else is registered
                    if source is self._wake_out:
                        for one in self._pairs:
                            one.close()
                        return
                    if source is self._listener:
                        self._accept(selector)
                    elif source in self._pairs:
                        self._pass_on(source, selector)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        outside, _ = self._listener.accept()
        inside = _connected((ADDRESS, self._port))
        if inside is None:  # nobody listens there yet: the client is to learn it as if it had connected by itself
            outside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            outside.close()
            return
        self._pairs |= {outside: inside, inside: outside}
        for one in (outside, inside):
            one.settimeout(_ATTEMPT_TIMEOUT_S)
            selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket, selector: selectors.BaseSelector) -> None:
        target = self._pairs[source]
        try:
            data = source.recv(_CHUNK_BYTES)
            target.sendall(data)
            if data:
                return
            selector.unregister(source)
            target.shutdown(socket.SHUT_WR)
            if target in selector.get_map():
                return  # the other direction is still open
        except OSError:  # either side went away, and with it the connection
            pass
        for one in (source, target):
            if one in selector.get_map():
                selector.unregister(one)
            del self._pairs[one]
            one.close()


def _connected(address: tuple[str, int]) -> socket.socket | None:
    """A connection within this thread's network; None where nobody takes it. Most of a launch nobody does, so that this
    way costs no more than it must: the lab's CPU is watched as well."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        found.connect_ex(address)
        found.send(b"")  # how it went: on this host that is known when `connect` returns
    except BlockingIOError:  # or the service's queue is full
        if not select.select([], [found], [], _ATTEMPT_TIMEOUT_S)[1] or found.getsockopt(*_ERROR):
            found.close()
            return None
    except OSError:
        found.close()
        return None
    return found


def _give_address() -> None:
    """Give this thread's network `ADDRESS`, on a second name of its loopback: there is no other interface in it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, address in ((_SIOCSIFADDR, ADDRESS), (_SIOCSIFNETMASK, "255.255.255.255")):
            where = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, request, struct.pack("16s16s", b"lo:lab", where))


def _listen(endpoint: Endpoint) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((endpoint.host, endpoint.port))
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise LaunchError(
                f"{endpoint} is in use by another program",
                resolution="leave the port to the lab, or free it: see `ss -ltnp`",
            ) from error
        raise LaunchError(f"nothing can listen at {endpoint}: {error.strerror}") from error
    return listener
