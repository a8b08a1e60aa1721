#!/usr/bin/env bash
# systemd 252 (Debian): systemd-socket-activate is no small systemd; it wakes its program once, and is then gone.
#
# systemd-socket-activate(1): 'may be used to launch a socket-activated service program from the command line for
# testing'. A .socket unit starts its service at each first connection, and keeps the socket while that ends.
# Expected: the same on the command line: the program is started anew, with the caller's environment.
# Seen: at the first connection, though it brings no byte, the tool *becomes* the program (its pid is the tool's); of the
# environment only PATH, HOME, TERM and USER are left, unless -E names more; what connects while it runs is accepted by
# the kernel and reset when it ends; what connects after that is refused.
# For a lab: where systemd is not PID 1, somebody else keeps the socket of a function that goes to zero.
# Run on 2026-11-30, on 127.0.0.1.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
debian_packages 'systemd=252.*'

cat >"$work/program.py" <<'EOF'
import os
import socket

listener = socket.socket(fileno=3)
first, _ = listener.accept()
first.sendall(f"{os.getpid()} {sorted(set(os.environ) & {'PATH', 'HOME', 'TERM', 'USER', 'ASKED', 'LOST'})}".encode())
first.recv(1)  # the client says when to end
EOF

TERM=dumb USER=me python3 - "$(command -v systemd-socket-activate)" "$work/program.py" >"$work/seen" 2>"$work/errors" <<'EOF'
import os
import socket
import subprocess
import sys
import time

tool, program = sys.argv[1:]
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]


def connect():
    return socket.create_connection(("127.0.0.1", port), 10)


started = subprocess.Popen(
    [tool, "-E", "ASKED=1", "-l", f"127.0.0.1:{port}", sys.executable, program],
    env={**os.environ, "HOME": "/", "LOST": "1"},
)
for _ in range(500):
    try:
        first = connect()
        break
    except ConnectionRefusedError:
        time.sleep(0.02)
told = first.recv(200).decode().split(" ", 1)  # nothing was sent: the connection alone woke it
print("the program is the tool's own process:", int(told[0]) == started.pid)
print("environment:", told[1])
second = connect()
first.sendall(b".")
started.wait(10)
try:
    print("connected while it ran:", second.recv(1))
except ConnectionResetError:
    print("connected while it ran: reset")
try:
    connect()
    print("connected after it ended: accepted")
except ConnectionRefusedError:
    print("connected after it ended: refused")
EOF

as_recorded <<'EOF'
the program is the tool's own process: True
environment: ['ASKED', 'HOME', 'PATH', 'TERM', 'USER']
connected while it ran: reset
connected after it ended: refused
EOF
