"""One function of a Lambda API made cold, called, and called again, by plain HTTP, with containers told by the docker
command; no code of the lab's, Python's standard library only.

Reads a line with one JSON object from stdin: host, port (of the API and of the function's URL), name, authority (the
URL's host), nonce, environment (an object, the function's), label (KEY=VALUE, which its workers bear), warm (how many
calls after the cold one). Prints one: cold_s, warm_s (a list), each from just before `connect` to the end of the
answer; workers, the ids of the containers that were created meanwhile; calls, the how-manieth call each was, by the
function's count. With `each` true it only calls, once for each further line, and prints a line for each: took_s
and call.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # isolated mode leaves it out

from requests_by_hand import end_on_sigterm

API = "/2015-03-31/functions"
TIMEOUT_S = 60.0
SETTLE_S = 0.3


def main() -> int:
    end_on_sigterm()
    given = json.loads(sys.stdin.readline())
    if given["each"]:
        for _ in sys.stdin:
            took_s, number = call(given)
            sys.stdout.write(json.dumps({"took_s": took_s, "call": number}) + "\n")
            sys.stdout.flush()
        return 0
    make_cold(given)
    events = subprocess.Popen(
        ["docker", "events", "--filter", "event=create", "--filter", f"label={given['label']}", "--format", "{{.ID}}"],
        stdout=subprocess.PIPE,
    )
    try:
        time.sleep(SETTLE_S)  # until it follows
        cold_s, cold = call(given)
        warm = [call(given) for _ in range(given["warm"])]
        time.sleep(SETTLE_S)
    finally:
        events.terminate()
        output, _ = events.communicate(timeout=TIMEOUT_S)
    found = {
        "cold_s": cold_s,
        "warm_s": [took_s for took_s, _ in warm],
        "workers": output.decode().split(),
        "calls": [cold, *(number for _, number in warm)],
    }
    json.dump(found, sys.stdout)
    return 0


def make_cold(given: dict[str, Any]) -> None:
    """Change the function's environment, and wait until that is done and no container of it is there."""
    path = f"{API}/{given['name']}/configuration"
    variables = {**given["environment"], "BY_HAND": secrets.token_hex(8)}
    api(given, "PUT", path, {"Environment": {"Variables": variables}})
    deadline = time.monotonic() + TIMEOUT_S
    while api(given, "GET", path).get("LastUpdateStatus") == "InProgress" or containers(given):
        if time.monotonic() > deadline:
            raise TimeoutError("the function does not become cold")
        time.sleep(0.05)


def containers(given: dict[str, Any]) -> list[str]:
    words = ["docker", "ps", "-aq", "--no-trunc", "--filter", f"label={given['label']}"]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=TIMEOUT_S).stdout.split()


def api(given: dict[str, Any], method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    connection = http.client.HTTPConnection(given["host"], given["port"], timeout=TIMEOUT_S)
    try:
        content = json.dumps(body) if body is not None else None
        # An emulator wants a signature's form, and checks none.
        scope = "Credential=test/20260101/us-east-1/lambda/aws4_request"
        signed = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"
        connection.request(method, path, content, {"Content-Type": "application/json", "Authorization": signed})
        answer = connection.getresponse()
        told = answer.read()
        if answer.status >= 300:
            raise ValueError(f"{method} {path}: {answer.status} {told.decode(errors='replace')}")
        found: dict[str, Any] = json.loads(told)
        return found
    finally:
        connection.close()


def call(given: dict[str, Any]) -> tuple[float, int]:
    """One request on a connection of its own: how long it took, and the how-manieth call it was."""
    request = (
        f"GET /clock HTTP/1.1\r\nHost: {given['authority']}\r\nX-Lab-Nonce: {given['nonce']}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        begun = time.monotonic()
        connection.connect((given["host"], given["port"]))
        connection.sendall(request)
        answer, length = b"", -1
        while length < 0 or len(answer) < length:
            data = connection.recv(65536)
            if not data:
                break
            answer += data
            length = whole(answer) if length < 0 else length
        took_s = time.monotonic() - begun
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200" not in head.split(b"\r\n")[0] or json.loads(body)["nonce"] != given["nonce"]:
        raise ValueError(f"the function answered: {answer[:500]!r}")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return took_s, int(fields[b"x-lab-call"])


def whole(answer: bytes) -> int:
    """The length of the whole answer, once its head tells; else -1."""
    head, blank, _ = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n") if blank else ():
        if line.startswith(b"content-length:"):
            return len(head) + 4 + int(line.partition(b":")[2])
    return -1


if __name__ == "__main__":
    sys.exit(main())
