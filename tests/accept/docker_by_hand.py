"""One container, created and started by raw HTTP over the engine's socket, or by the docker command; no code of the
lab's, Python's standard library only.

Reads one JSON object from stdin: socket, image, port (of 127.0.0.1), nonce, labels (an object), command ('' for the
socket, else the path of the docker command), early. Prints one: boot_s, from just before the create request (or the
command) to the first complete 200 of this nonce, requested every 2 ms on new connections; tries; create_s and start_s
(by the socket); container, what the engine says of it. Then removes the container.

The requests begin once `start` (or the command) has returned, or with `early` before the create request. Early ones
disturb what they watch: docker-proxy takes them while the container has no network yet, and the host's search for its
address, once it has failed, is repeated only after a second or so.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).parent))  # isolated mode leaves it out

from requests_by_hand import end_on_sigterm, first_answer

API = "/v1.41"
LISTEN_PORT = 8080
MEMORY_BYTES = 128 * 1024 * 1024
NANO_CPUS = 1_000_000_000
PIDS = 128
TMPFS = "size=16777216,mode=1777"
TIMEOUT_S = 60.0


def main() -> int:
    end_on_sigterm()
    given = json.load(sys.stdin)
    launch, failed = Launch(given), threading.Event()
    thread = threading.Thread(target=launch.run, args=(failed,))
    thread.start()
    try:
        if not given["early"]:
            thread.join()
        ended_ns, tries = first_answer(given["port"], given["nonce"], timeout_s=TIMEOUT_S, failed=failed)
        thread.join()
        told = engine(given["socket"], "GET", f"/containers/{launch.container}/json")
        found = {"boot_s": (ended_ns - launch.begun_ns) / 1e9, "tries": tries, "container": told, **launch.steps}
    finally:
        thread.join()
        remove(given)
    json.dump(found, sys.stdout)
    return 0


class Launch:
    """By two requests, create and start, or by one command."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.container = ""
        self.begun_ns = 0
        self.steps: dict[str, float] = {}
        self._given = given

    def run(self, failed: threading.Event) -> None:
        try:
            if self._given["command"]:
                self._by_command()
            else:
                self._by_socket()
        except BaseException:
            failed.set()
            raise

    def _by_socket(self) -> None:
        path, wanted = self._given["socket"], wanted_container(self._given)
        self.begun_ns = time.monotonic_ns()
        self.container = engine(path, "POST", "/containers/create", wanted)["Id"]
        created_ns = time.monotonic_ns()
        engine(path, "POST", f"/containers/{self.container}/start")
        self.steps = {
            "create_s": (created_ns - self.begun_ns) / 1e9,
            "start_s": (time.monotonic_ns() - created_ns) / 1e9,
        }

    def _by_command(self) -> None:
        given = self._given
        labels = [word for key, value in given["labels"].items() for word in ("--label", f"{key}={value}")]
        environment = [word for entry in service_environment(given) for word in ("--env", entry)]
        limits = ["--cpus", "1", "--memory", str(MEMORY_BYTES), "--memory-swap", str(MEMORY_BYTES)]
        words = ["run", "-d", "--network", "bridge", "--publish", f"127.0.0.1:{given['port']}:{LISTEN_PORT}/tcp"]
        words += [*limits, "--pids-limit", str(PIDS), "--tmpfs", f"/tmp:{TMPFS}", *labels, *environment]
        argv = [given["command"], "-H", f"unix://{given['socket']}", *words, given["image"]]
        self.begun_ns = time.monotonic_ns()
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
        self.container = done.stdout.strip()


def service_environment(given: dict[str, Any]) -> list[str]:
    return ["LAB_HOST=0.0.0.0", f"LAB_PORT={LISTEN_PORT}", f"LAB_NONCE={given['nonce']}"]


def wanted_container(given: dict[str, Any]) -> dict[str, Any]:
    """Docker Engine API 1.41, ContainerCreate."""
    return {
        "Image": given["image"],
        "Env": service_environment(given),
        "AttachStdout": True,
        "AttachStderr": True,
        "Labels": given["labels"],
        "ExposedPorts": {f"{LISTEN_PORT}/tcp": {}},
        "HostConfig": {
            "NetworkMode": "bridge",
            "PortBindings": {f"{LISTEN_PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(given["port"])}]},
            "Memory": MEMORY_BYTES,
            "MemorySwap": MEMORY_BYTES,
            "NanoCpus": NANO_CPUS,
            "PidsLimit": PIDS,
            "Tmpfs": {"/tmp": TMPFS},
            "RestartPolicy": {"Name": "no"},
        },
    }


def engine(path: str, method: str, target: str, body: dict[str, Any] | None = None) -> Any:
    """One request on a connection of its own, its answer decoded. Raises OSError, and ValueError for a refusal."""
    payload = json.dumps(body).encode() if body is not None else b""
    head = f"{method} {API}{target} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(path)
        connection.sendall(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
        answer = b""
        while data := connection.recv(65536):  # HTTP/1.0: the engine closes at the end
            answer += data
    head_bytes, _, content = answer.partition(b"\r\n\r\n")
    status = int(head_bytes.split(None, 2)[1])
    if status >= 400:
        raise ValueError(f"{method} {target}: {status} {content.decode(errors='replace')}")
    return json.loads(content) if content.strip() else None


def remove(given: dict[str, Any]) -> None:
    """Whatever bears this launch's label."""
    filters = quote(json.dumps({"label": [f"lab.launch={given['labels']['lab.launch']}"]}))
    for one in engine(given["socket"], "GET", f"/containers/json?all=1&filters={filters}"):
        engine(given["socket"], "DELETE", f"/containers/{one['Id']}?force=1&v=1")


if __name__ == "__main__":
    sys.exit(main())
