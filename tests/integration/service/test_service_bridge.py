"""The service's bridge mode: a Runtime API of the tests' own hands it events, however it cuts them, and reads what it
answers."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.launch.waiter import reserve_port

NONCE = "5eed0000000000000000000000000012"
WAIT_S = 30.0
LIMIT_BYTES = 6_291_556


@dataclass
class RuntimeApi:
    """Hands out `events` in order, each in pieces, and keeps what was posted."""

    events: queue.Queue[tuple[str, bytes, int, float]] = field(default_factory=queue.Queue)
    posted: queue.Queue[tuple[str, dict[str, str], bytes]] = field(default_factory=queue.Queue)
    port: int = 0
    count: int = 0
    connections: set[Any] = field(default_factory=set)

    def call(self, event: Any, *, piece: int = 7, left_s: float = 30.0) -> tuple[str, dict[str, str], Any]:
        """What was posted of the call with this event: `response` or `error`, with which headers, and the JSON."""
        raw = event if isinstance(event, bytes) else json.dumps(event).encode()
        self.count += 1
        request = f"request-{self.count}"
        self.events.put((request, raw, piece, time.time() + left_s))
        path, headers, body = self.posted.get(timeout=WAIT_S)
        assert path.startswith(f"/2018-06-01/runtime/invocation/{request}/"), path
        return path.rpartition("/")[2], headers, json.loads(body)


@contextlib.contextmanager
def runtime_api() -> Iterator[RuntimeApi]:
    api = RuntimeApi()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            assert self.path == "/2018-06-01/runtime/invocation/next"
            api.connections.add(self.client_address)
            request, raw, piece, deadline = api.events.get()
            self.send_response(200)
            self.send_header("lambda-runtime-aws-request-id", request)
            self.send_header("LAMBDA-RUNTIME-DEADLINE-MS", str(int(deadline * 1000)))
            if piece:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for at in range(0, len(raw), piece):
                    part = raw[at : at + piece]
                    self.wfile.write(b"%X;ext=1\r\n%b\r\n" % (len(part), part))
                self.wfile.write(b"0\r\nX-Trailer: 1\r\n\r\n")
            else:
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            api.posted.put((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        api.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield api
        server.shutdown()


@contextlib.contextmanager
def bridged(binary: Path, api_port: int, *arguments: str, port: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api_port}",
        "LAB_PORT": str(port or reserve_port()),
        "LAB_HOST": "127.0.0.1",
        "LAB_NONCE": NONCE,
        "LAB_VERSION": "bridge-1",
    }
    process = subprocess.Popen(
        [binary, "bridge", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(WAIT_S)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def request(
    path: str, *, method: str = "GET", query: str = "", headers: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """A Function URL's event, payload format 2.0, with what it has beside that the bridge reads."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "f.lambda-url.test", "x-lab-nonce": NONCE, **(headers or {})},
        "queryStringParameters": {"rawPath": "/no", "headers": '{"\\u0022}]'},
        "requestContext": {"apiId": "f", "http": {"path": "/no", "method": method, "protocol": "HTTP/1.1"}},
        "isBase64Encoded": False,
        **more,
    }


@pytest.fixture(scope="module")
def api(binary: Path) -> Iterator[RuntimeApi]:
    with runtime_api() as api, bridged(binary, api.port) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(3)]
        assert [line[2] for line in lines] == [b"main", b"listening", b"polled"]
        assert {line[1] for line in lines} == {NONCE.encode()}
        assert int(lines[0][3]) < int(lines[1][3]) < int(lines[2][3])
        yield api
        assert process.poll() is None


@pytest.mark.parametrize("piece", [0, 1, 7, 4096])
def test_an_event_is_a_request_to_the_service_however_it_is_cut(api: RuntimeApi, piece: int) -> None:
    what, headers, answer = api.call(request("/clock"), piece=piece)
    assert (what, answer["statusCode"], answer["isBase64Encoded"]) == ("response", 200, False)
    assert headers["content-type"] == "application/json"
    assert json.loads(answer["body"])["nonce"] == NONCE
    assert answer["headers"]["X-Lab-Version"] == "bridge-1"
    assert answer["headers"]["Content-Type"] == "application/json"
    assert not {"connection", "content-length"} & {name.lower() for name in answer["headers"]}


def test_every_call_has_its_number_and_one_connection_serves_them(api: RuntimeApi) -> None:
    before = len(api.connections)
    numbers = [int(api.call(request("/healthz"))[2]["headers"]["x-lab-call"]) for _ in range(3)]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert len(api.connections) == before == 1


def test_headers_keep_their_meaning_in_any_case(api: RuntimeApi) -> None:
    one = request("/clock")
    one["headers"] = {"HOST": "x", "X-LAB-NONCE": NONCE, "Connection": "close", "Content-Length": "99", "x-é": "1"}
    assert api.call(one)[2]["statusCode"] == 200
    one["headers"] = {"host": "x", "x-lab-nonce": "another"}
    assert api.call(one)[2]["statusCode"] == 403
    del one["headers"]
    assert api.call(one)[2]["statusCode"] == 403


@pytest.mark.parametrize("value", ["a\r\nX-Lab-Nonce: b", "a\u0000b", "x" * 9000])
def test_a_header_that_would_be_two_or_is_too_long_is_never_sent(api: RuntimeApi, value: str) -> None:
    what, headers, error = api.call(request("/clock", headers={"x-odd": value}))
    assert what == "error"
    assert headers["lambda-runtime-function-error-type"] == error["errorType"] == "Lab.NoFunctionUrlEvent"


def test_path_and_query_reach_the_service_as_they_are(api: RuntimeApi) -> None:
    _, _, answer = api.call(request("/work", query="us=1500"))
    assert json.loads(answer["body"])["requested_us"] == 1500
    for odd in ("/a b", "/ä?x#y", '/"\\', "/a\r\nX: y"):
        assert api.call(request(odd))[2]["statusCode"] == 404, odd


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 65_536])
def test_a_body_arrives_whole(api: RuntimeApi, size: int, encoded: bool) -> None:
    text = 'é\n"\\'[: size % 5] + "x" * max(0, size - 7)
    body = base64.b64encode(text.encode()).decode() if encoded else text
    event = request("/alloc", method="POST", query="mib=0", body=body, isBase64Encoded=encoded)
    what, _, answer = api.call(event, piece=1000)
    assert (what, answer["statusCode"]) == ("response", 200)


def test_a_body_beyond_the_service_s_own_limit_gets_its_answer(api: RuntimeApi) -> None:
    event = request("/alloc", method="POST", query="mib=0", body="é" * 400_000)
    what, _, answer = api.call(event, piece=65_536)
    assert (what, answer["statusCode"]) == ("response", 413)
    assert api.call(request("/healthz"))[2]["statusCode"] == 200


def test_an_event_of_the_largest_size_arrives_whole(api: RuntimeApi) -> None:
    event = request("/function/event", padding="")
    event["padding"] = "x" * (LIMIT_BYTES - len(json.dumps(event)))
    raw = json.dumps(event).encode()
    assert len(raw) == LIMIT_BYTES
    told = json.loads(api.call(raw, piece=65_536, left_s=20)[2]["body"])
    assert told["event_bytes"] == LIMIT_BYTES
    assert 10_000 < told["remaining_ms"] <= 20_000


def test_trials_are_for_who_has_the_nonce(api: RuntimeApi) -> None:
    one = request("/function/event", headers={"x-lab-nonce": "another"})
    assert api.call(one)[2]["statusCode"] == 403
    assert api.call(request("/function/nothing"))[2]["statusCode"] == 404
    assert api.call(request("/function/sleep", query="ms=900001"))[2]["statusCode"] == 404
    assert len(api.call(request("/function/answer", query="bytes=100000"))[2]["body"]) == 100_000
    tmp = json.loads(api.call(request("/function/tmp", query="mib=2"))[2]["body"])
    assert tmp == {"written_bytes": 2 << 20, "errno": 0}
    assert not Path("/tmp/lab-trial").exists()


def test_a_call_s_deadline_is_kept(api: RuntimeApi) -> None:
    began = time.monotonic()
    what, _, error = api.call(request("/work", query="us=5000000"), left_s=0.3)
    assert (what, error["errorType"]) == ("error", "Lab.Deadline")
    assert time.monotonic() - began < 4
    assert api.call(request("/healthz"))[2]["statusCode"] == 200


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"[]",
        b"{",
        b'{"rawPath":"/clock"}',
        b'{"rawPath":"/clock","requestContext":{"http":{}}}',
        b'{"rawPath":1,"requestContext":{"http":{"method":"GET"}}}',
        b'{"rawPath":"/\\ud","requestContext":{"http":{"method":"GET"}}}',
        b'{"rawPath":"/","requestContext":{"http":{"method":"GET /x"}}}',
        b'{"rawPath":"/","body":"?","isBase64Encoded":true,"requestContext":{"http":{"method":"GET"}}}',
        b"[" * 5000,
        b'{"a":' + b"[" * 100 + b"]" * 100 + b"}",
    ],
)
def test_what_is_no_request_is_an_error_of_the_call_and_the_next_is_answered(api: RuntimeApi, event: bytes) -> None:
    what, _, error = api.call(event, piece=0 if not event else 7)
    assert (what, error["errorType"]) == ("error", "Lab.NoFunctionUrlEvent")
    assert api.call(request("/healthz"))[2]["statusCode"] == 200


def test_it_ends_as_its_service_ends(binary: Path) -> None:
    with runtime_api() as api, bridged(binary, api.port, "nothing") as process:
        assert process.wait(WAIT_S) == 0
    with runtime_api() as api, bridged(binary, api.port, "load") as process:
        assert process.wait(WAIT_S) == 2


def test_its_service_ends_with_it(binary: Path) -> None:
    port = reserve_port()
    with runtime_api() as api, bridged(binary, api.port, port=port):
        assert api.call(request("/healthz"))[2]["statusCode"] == 200
    deadline = time.monotonic() + WAIT_S
    while reserve_port_fails(port) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not reserve_port_fails(port)


def reserve_port_fails(port: int) -> bool:
    try:
        reserve_port(port)
    except OSError:
        return True
    return False


def test_without_a_runtime_api_it_says_so_in_one_line(binary: Path) -> None:
    for given in ("", "nowhere", "127.0.0.1:", "a.example:1"):
        environment = {"AWS_LAMBDA_RUNTIME_API": given, "LAB_PORT": "1"}
        ended = subprocess.run([binary, "bridge"], env=environment, capture_output=True, timeout=WAIT_S, check=False)
        assert (ended.returncode, ended.stderr.count(b"\n")) == (2, 1), given
