"""The real server: what it refuses on a real socket, the run that it starts and ends, and how it ends itself."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab_command
import psutil
import pytest
from page_server import PageServer, page_server

from lab.store.database import Store
from lab.store.record import RunStatus
from lab.web.running import LEAST_BETWEEN_S

BAD_REQUESTS = 10_000


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return lab_command.make_environment(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def server(environment: dict[str, str]) -> Iterator[PageServer]:
    with page_server(environment) as made:
        yield made
        code, said = made.end()
        assert code == 0
        assert "Traceback" not in said and len(said.splitlines()) == 1, said


def states(server: PageServer, *, until: str) -> list[dict[str, Any]]:
    """What a viewer is told, until the run is in that state."""
    found = []
    with server.client() as client, client.stream("GET", "events") as told:
        assert told.headers["content-type"].startswith("text/event-stream")
        for line in told.iter_lines():
            if line.startswith("data: ") and (state := json.loads(line.removeprefix("data: "))):
                found.append(state)
                if state["state"] == until:
                    return found
    raise AssertionError(found)


def status_of(environment: dict[str, str], run: str) -> RunStatus:
    with Store.open(str(Path(environment["XDG_STATE_HOME"]) / "stratalab" / "lab.db")) as store:
        return store.load(run).run.status


def begin(server: PageServer, rounds: int, target: str = "fake") -> dict[str, Any]:
    question = {"scenario": "boot", "targets": [target], "rounds": rounds}
    with server.client() as client:
        plan = client.post("plan", json=question)
        assert plan.status_code == 200, plan.text
        assert client.post("start", json={"id": plan.json()["id"]}).status_code == 200
        again = client.post("start", json={"id": plan.json()["id"]})
        assert again.status_code == 502 and "a run goes on" in again.json()["error"]
        return dict(plan.json())


def test_a_run_of_the_page_is_an_ordinary_one_that_all_see_alike(
    server: PageServer, environment: dict[str, str]
) -> None:
    plan = begin(server, rounds=7)
    assert plan["typed"] == "lab run boot --targets fake --rounds 7"
    with server.client() as client:
        busy = client.get("doctor")
        assert busy.status_code == 409 and "measures on this machine" in busy.text
    last = states(server, until="done")[-1]
    assert last == states(server, until="done")[-1]
    [lane] = last["lanes"]
    assert (lane["n"], last["podium"]["places"][0]["n"], last["code"]) == (7, 7, 0)
    assert [one["phase"] for one in lane["service"]] == ["main", "listening", "ready"]
    assert status_of(environment, last["run"]) is RunStatus.DONE
    with server.client() as client:
        assert last["run"] in client.get("runs").text
        page = client.get(f"run?id={last['run']}").text
        framed = page.partition('<iframe src="../')[2].partition('"')[0]
        report = client.get(f"{server.origin}/{framed}")
        assert f"run {last['run']}" in report.text and "sandbox" in report.headers["content-security-policy"]
        unknown = client.get("compare?a=nothing&b=nothing")
        assert unknown.status_code == 502 and "no run" in unknown.text


def test_a_viewer_is_told_a_few_times_a_second_at_most_and_the_page_stops_its_run_as_ctrl_c_does(
    server: PageServer,
) -> None:
    begin(server, rounds=1000)
    first = states(server, until="measuring")[-1]
    with server.client() as client, client.stream("GET", "events") as told:
        begun, count = time.monotonic(), 0
        for line in told.iter_lines():
            count += line.startswith("data: ")
            if count == 6:
                break
        assert (time.monotonic() - begun) > 5 * LEAST_BETWEEN_S
    with server.client() as client:
        assert client.post("stop", json={}).status_code == 200
    last = states(server, until="stopped")[-1]
    assert (last["code"], last["run"]) == (130, first["run"])


def test_what_the_run_complains_of_is_shown(server: PageServer) -> None:
    question = {"scenario": "boot", "targets": ["nowhere"], "rounds": 1}
    with server.client() as client:
        told = client.post("plan", json=question)
    assert told.status_code == 502 and "nowhere" in told.json()["error"]


def test_ten_thousand_bad_requests_are_refused_without_a_trace(server: PageServer) -> None:
    chance = random.Random(7)
    process = psutil.Process(server.process.pid)
    before_bytes = process.memory_info().rss
    token = server.address.split("/")[3]
    answered = 0
    for _ in range(BAD_REQUESTS // 50):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            sent = [_bad(chance, token, f"127.0.0.1:{server.port}") for _ in range(50)]
            for one in sent:
                try:
                    connection.sendall(one)
                    answer = connection.recv(65536)
                except OSError:  # hung up on, after what is no HTTP
                    break
                answered += 1
                assert not answer.startswith(b"HTTP/1.1 2") and b"Traceback" not in answer
                if not answer or b"connection: close" in answer.lower():
                    connection.close()
                    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)  # noqa: PLW2901
    assert answered > BAD_REQUESTS / 2
    assert process.memory_info().rss < before_bytes + (64 << 20)
    with server.client() as client:
        assert client.get("").status_code == 200


def _bad(chance: random.Random, token: str, host: str) -> bytes:
    wrong = "".join(chance.choices("abcXYZ019-_", k=len(token)))
    kind = chance.randrange(8)
    method, path, named, body = "GET", f"/{token}/", host, b""
    more = ""
    match kind:
        case 0:
            path = f"/{wrong}/"
        case 1:
            named = chance.choice(["evil.test", "localhost", "127.0.0.1:1", "[::1]:80"])
        case 2:
            path = f"/{token}/" + chance.choice(
                ["../../etc/passwd", "%2e%2e/x", "static/..%2fapp.py", "%00", "//x", "x" * 600]
            )
        case 3:
            method = chance.choice(["PUT", "DELETE", "TRACE", "BREW"])
        case 4:
            method, path, more = "POST", f"/{token}/start", "Origin: http://evil.test\r\n"
            body = b'{"id": "x"}'
        case 5:
            more = "Sec-Fetch-Site: cross-site\r\n"
        case 6:
            more = f"X: {'y' * chance.choice([17_000, 70_000])}\r\n"
        case 7:
            return chance.choice(
                [b"\x16\x03\x01\x02\r\n\r\n", b"\0" * 50 + b"\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"x\r\n\r\n"]
            )
    more += f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {named}\r\n{more}\r\n".encode() + body


def test_a_run_that_goes_on_is_ended_with_the_server(environment: dict[str, str], server: PageServer) -> None:
    with page_server(environment) as made:
        assert made.address.split("/")[3] != server.address.split("/")[3], "the token is drawn anew"
        begin(made, rounds=1000)
        run = states(made, until="measuring")[-1]["run"]
        [child] = [one for one in psutil.Process(made.process.pid).children() if "--events" in one.cmdline()]
        code, said = made.end(signal.SIGTERM)
        assert code == 0
        assert "a run goes on: it is ended" in said
        assert not child.is_running()
    assert status_of(environment, run) is RunStatus.INTERRUPTED


def test_a_run_goes_on_though_the_server_was_killed(environment: dict[str, str]) -> None:
    with page_server(environment) as made:
        begin(made, rounds=60)
        run = states(made, until="measuring")[-1]["run"]
        [child] = [one for one in psutil.Process(made.process.pid).children() if "--events" in one.cmdline()]
        made.process.kill()
        child.wait(60)
    assert status_of(environment, run) is RunStatus.DONE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "{taken}"], "port {taken} at 127.0.0.1 cannot be had: Address already in use"),
        (["--host", "0.0.0.0"], "would be every address of this machine"),  # noqa: S104
        (["--host", "192.0.2.7"], "add --beyond-this-host"),
        (["--host", "192.0.2.7", "--beyond-this-host"], "cannot be had"),
        (["--host", "nowhere.test"], "that is no address"),
    ],
)
def test_bad_input_is_one_line(environment: dict[str, str], arguments: list[str], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ran = _serve(environment, *(one.format(taken=taken) for one in arguments))
    assert ran.returncode == 2
    assert said.format(taken=taken) in ran.stderr and "Traceback" not in ran.stderr and not ran.stdout


def test_without_its_packages_it_says_how_to_have_them(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['uvicorn'] = None\n")
    path = f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"
    ran = _serve({**environment, "PYTHONPATH": path})
    assert ran.returncode == 2
    assert "pip install 'stratalab[serve]'" in ran.stderr and "Traceback" not in ran.stderr


def _serve(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lab", "serve", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
