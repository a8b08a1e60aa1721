"""A service that answers slowly is waited for, and not kept busy by what was abandoned."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lab.launch import waiter as waiting
from lab.launch.waiter import Waiter
from lab.spec import Endpoint, Spec
from lab.timeline import SystemClock

SLOW_S = 0.5


@pytest.fixture
def slow() -> Iterator[ThreadingHTTPServer]:
    """Answers every request half a second after it came, as a starved guest may."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(SLOW_S)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # abandoned
                super().handle()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # abandoned

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_answers_later_than_an_attempt_is_waited_for_at_first_is_ready_in_the_end(
    slow: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENT_AFTER_S", 0.5)
    waiter = Waiter(Spec(image="somebody/else", ready_path="/"), SystemClock())
    try:
        waiter.start(Endpoint("127.0.0.1", slow.server_address[1]))
        waiter.attempt()
        answer = waiter.wait(30)
    finally:
        waiter.cancel()
    assert answer.body == b"ok"
    assert answer.received_ns - answer.sent_ns >= SLOW_S * 1e9
