"""An answer is what curl takes as one, and nothing else is."""

from __future__ import annotations

import shutil
import socket
import subprocess

import pytest
from raw_server import serving

from lab.errors import BadInput, ReadyTimeout
from lab.launch.attempt import Place, request_of
from lab.launch.waiter import Waiter
from lab.spec import Endpoint, Spec
from lab.timeline import SystemClock

BIG = b"x" * (3 << 20)
ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "longer than 1 MiB": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BIG), BIG),
    "longer than 1 MiB, to the end": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BIG,
    "to the end": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
    "neither length nor close": b"HTTP/1.1 200 OK\r\n\r\nok",
    "no body at all": b"HTTP/1.1 200 OK\r\n\r\n",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks with extensions and trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2;a=b\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
    ),
    "1xx before": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    ),
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nok",
    "HTTP/1.0 with a length": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "bare newlines": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "a space before the colon": b"HTTP/1.1 200 OK\r\nX-Odd : 1\r\nContent-Length: 2\r\n\r\nok",
    "a name with an odd character": b"HTTP/1.1 200 OK\r\nX(Odd): 1\r\n\r\nok",
    "bytes that are no ASCII": b"HTTP/1.1 200 \xc3\x96K\r\nX-Name: \xff\r\nContent-Length: 2\r\n\r\nok",
    "large headers": b"HTTP/1.1 200 OK\r\n"
    + b"Set-Cookie: %b\r\n" % (b"c" * 4000) * 20
    + b"Content-Length: 2\r\n\r\nok",
}
NONE = {
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
    "cut off within a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok",
    "no end of chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    "nothing": b"",
    "no HTTP": b"220 ready\r\n",
    "HTTP/0.9": b"<html>ok</html>",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_what_curl_takes_is_an_answer(answer: bytes) -> None:
    assert _status(answer) == 200


@pytest.mark.parametrize("answer", NONE.values(), ids=NONE)
def test_what_curl_does_not_take_is_none(answer: bytes) -> None:
    assert _status(answer) == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl to ask")
@pytest.mark.parametrize("answer", [*ANSWERS.values(), *NONE.values()], ids=[*ANSWERS, *NONE])
def test_curl_says_the_same(answer: bytes) -> None:
    with serving(lambda connection: _answer(connection, answer)) as endpoint:
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{endpoint}/"]
        told = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert (told.returncode == 0 and told.stdout == b"200") == (answer in ANSWERS.values())


@pytest.mark.parametrize("piece", [1, 7])
def test_an_answer_in_small_pieces_is_the_same(piece: int) -> None:
    for name in ("chunks with extensions and trailers", "1xx before", "a space before the colon", "bare newlines"):
        assert _status(ANSWERS[name], piece=piece) == 200, name


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_needs_none(status: int) -> None:
    head = b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status if status == 304 else b"HTTP/1.1 204 X\r\n\r\n"
    assert _status(head, accepted=((204, 204), (304, 304))) == status


def _status(answer: bytes, *, piece: int = 0, accepted: tuple[tuple[int, int], ...] = ((200, 200),)) -> int:
    """The status of the first answer; 0 where there was none within a moment."""
    spec = Spec(image="somebody/else", ready_path="/", ready_status=accepted)
    with serving(lambda connection: _answer(connection, answer, piece)) as endpoint:
        waiter = Waiter(spec, SystemClock())
        try:
            waiter.start(Endpoint(endpoint.host, endpoint.port))
            waiter.attempt()
            return waiter.wait(3 if accepted[0][0] == 200 and answer in ANSWERS.values() else 0.15).status
        except ReadyTimeout:
            return 0
        finally:
            waiter.cancel()


def _answer(connection: socket.socket, answer: bytes, piece: int = 0) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.recv(4096)
    for start in range(0, len(answer), piece or max(1, len(answer))):
        connection.sendall(answer[start : start + piece] if piece else answer)


def test_a_service_is_asked_by_the_name_that_its_platform_serves_it_under() -> None:
    by_name = request_of(Place.of(Endpoint("127.0.0.1", 8080, authority="f.example.test:81")), Spec())
    by_address = request_of(Place.of(Endpoint("127.0.0.1", 8080)), Spec())
    assert b"\r\nHost: f.example.test:81\r\n" in by_name
    assert by_name.count(b"Host:") == 1
    assert b"\r\nHost: 127.0.0.1:8080\r\n" in by_address


@pytest.mark.parametrize("text", ["a b", "a\r\nX: y", "-a", "a/b", "a:b", "é"])
def test_what_names_no_host_is_never_sent_as_one(text: str) -> None:
    with pytest.raises(BadInput, match="names no host"):
        Endpoint("127.0.0.1", 8080, authority=text)
