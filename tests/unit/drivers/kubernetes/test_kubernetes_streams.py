"""Commands and forwarded connections, over WebSockets to a server that speaks Kubernetes' channels."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from drivers.kubernetes.connection.client import connect
from drivers.kubernetes.connection.forward import Forwarder
from drivers.kubernetes.connection.streams import run_in_pod
from lab.errors import DriverError, LaunchError
from lab.features import ExecResult
from lab.launch.waiter import reserve_port
from lab.spec import Endpoint

Serve = Callable[["Peer"], None]


class Peer:
    """The API's side of one WebSocket (RFC 6455)."""

    def __init__(self, connection: socket.socket, path: str) -> None:
        self.path = path
        self._connection = connection

    def send(self, channel: int, data: bytes, opcode: int = 2) -> None:
        payload = bytes([channel]) + data
        size = bytes([len(payload)]) if len(payload) < 126 else struct.pack(">BQ", 127, len(payload))
        self._connection.sendall(bytes([0x80 | opcode]) + size + payload)

    def receive(self) -> bytes:
        head = self._exactly(2)
        size = head[1] & 127
        if size == 126:
            (size,) = struct.unpack(">H", self._exactly(2))
        mask, data = self._exactly(4), self._exactly(size)
        return bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._connection.recv(count - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data


@pytest.fixture
def peer() -> Iterator[Callable[[Serve], Any]]:
    """Starts a server whose every connection `serve` serves; gives an Api of it."""
    servers: list[socketserver.ThreadingTCPServer] = []
    apis: list[Any] = []

    def start(serve: Serve) -> Any:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                path = self.rfile.readline().split()[1].decode()
                headers = {}
                while line := self.rfile.readline().strip():
                    key, _, value = line.decode().partition(": ")
                    headers[key.lower()] = value
                if "refused" in path:
                    body = json.dumps({"kind": "Status", "message": 'pods "refused" not found'}).encode()
                    self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                    return
                magic = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                accept = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()  # noqa: S324  RFC 6455
                self.wfile.write(
                    f"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
                )
                serve(Peer(self.connection, path))

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {}}],
        }
        apis.append(connect(kubeconfig=config))
        return apis[-1]

    yield start
    for api in apis:
        api.close()
    for server in servers:
        server.shutdown()
        server.server_close()


def status(**more: Any) -> bytes:
    return json.dumps({"metadata": {}, "status": "Failure", **more}).encode()


def test_output_and_exit_code_come_back(peer: Any) -> None:
    def serve(one: Peer) -> None:
        assert "command=%2Fservice&command=facts" in one.path or "command=/service&command=facts" in one.path
        one.send(1, b"out\xff\x00")
        one.send(2, b"err")
        one.send(1, b"x" * 70_000)
        one.send(3, status(reason="NonZeroExitCode", details={"causes": [{"reason": "ExitCode", "message": "7"}]}))

    found = run_in_pod(peer(serve), "ns", "pod", "service", ["/service", "facts"], timeout_s=5)
    assert found == ExecResult(7, b"out\xff\x00" + b"x" * 70_000, b"err")


def test_success_is_zero(peer: Any) -> None:
    def serve(one: Peer) -> None:
        one.send(3, json.dumps({"status": "Success"}).encode())
        time.sleep(0.2)

    assert run_in_pod(peer(serve), "ns", "pod", "service", ["true"], timeout_s=5).exit_code == 0


def test_a_program_that_is_not_there_is_told(peer: Any) -> None:
    said = 'error executing command in container: exec: "no": executable file not found in $PATH'

    def serve(one: Peer) -> None:
        one.send(3, status(message=said, reason="InternalError", code=500))
        time.sleep(0.2)

    with pytest.raises(DriverError, match="the pod has no 'no' to run"):
        run_in_pod(peer(serve), "ns", "pod", "service", ["no"], timeout_s=5)


def test_a_command_that_does_not_end_is_left_after_its_time(peer: Any) -> None:
    with pytest.raises(DriverError, match=r"'sleep' did not end in the pod within 0\.3 s"):
        run_in_pod(peer(lambda _: time.sleep(2)), "ns", "pod", "service", ["sleep"], timeout_s=0.3)


def test_a_connection_that_breaks_is_told(peer: Any) -> None:
    with pytest.raises(DriverError) as raised:
        run_in_pod(peer(lambda one: one.send(1, b"half")), "ns", "pod", "service", ["x"], timeout_s=5)
    assert "\n" not in raised.value.brief


def test_a_refused_handshake_tells_the_apis_reason(peer: Any) -> None:
    with pytest.raises(DriverError, match='pods "refused" not found'):
        run_in_pod(peer(lambda _: None), "ns", "refused", "service", ["x"], timeout_s=5)


def test_a_connection_is_carried_to_the_pod(peer: Any) -> None:
    def serve(one: Peer) -> None:
        assert "ports=8080" in one.path
        for channel in (0, 1):
            one.send(channel, (8080).to_bytes(2, "little"))
        asked = one.receive()
        one.send(0, b"answer to " + asked[1:])
        time.sleep(0.3)

    endpoint = Endpoint("127.0.0.1", reserve_port())
    forwarder = Forwarder(peer(serve), "ns", "pod", 8080, endpoint)
    try:
        with socket.create_connection((endpoint.host, endpoint.port), 5) as connection:
            connection.sendall(b"hello")
            assert connection.recv(100) == b"answer to hello"
    finally:
        forwarder.close()
        forwarder.close()
    with pytest.raises(OSError):
        socket.create_connection((endpoint.host, endpoint.port), 1)


def test_a_pod_that_does_not_serve_yet_is_a_closed_connection(peer: Any) -> None:
    endpoint = Endpoint("127.0.0.1", reserve_port())
    forwarder = Forwarder(peer(lambda _: None), "ns", "refused", 8080, endpoint)
    try:
        with socket.create_connection((endpoint.host, endpoint.port), 5) as connection:
            connection.settimeout(5)
            assert connection.recv(100) == b""
    finally:
        forwarder.close()


def test_a_port_in_use_is_one_clear_line(peer: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = Endpoint("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(LaunchError, match=f"{endpoint.port} is in use"):
            Forwarder(peer(lambda _: None), "ns", "pod", 8080, endpoint)
