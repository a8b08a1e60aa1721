"""Answers every request on the Unix socket of its argument as a Docker API answers a ping, until it is ended."""

import contextlib
import signal
import socket
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
while True:
    connection, _ = listener.accept()
    with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")
