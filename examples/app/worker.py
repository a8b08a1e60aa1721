"""Counts each request in the store before it answers: no answer without the store."""

import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

HOST, _, PORT = os.environ["STORE"].rpartition(":")


def counted() -> int:
    """How often this was asked, by the store's count. Raises OSError, ValueError."""
    with socket.create_connection((HOST, int(PORT)), timeout=2) as store:
        store.sendall(b"*2\r\n$4\r\nINCR\r\n$8\r\nrequests\r\n")  # https://valkey.io/topics/protocol/
        answer = store.makefile("rb").readline()
    if not answer.startswith(b":"):
        raise ValueError(answer)
    return int(answer[1:])


class Worker(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        try:
            status, body = 200, f"request {counted()}\n".encode()
        except (OSError, ValueError) as error:
            status, body = 503, f"no store: {error}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 64


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container has no default for it
Server(("", 8080), Worker).serve_forever()
