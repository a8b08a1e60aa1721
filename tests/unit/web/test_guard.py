"""Whoever is not let in gets a refusal and nothing else, whatever they send: the ASGI application itself, by requests
that no client would make, and by httpx."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lab.web import guard as guarding
from lab.web.app import Page
from lab.web.commands import Commands
from lab.web.guard import Guard

TOKEN = "t" * 32
HOST = "127.0.0.1:8765"
OWN = {"host": HOST, "origin": f"http://{HOST}", "sec-fetch-site": "same-origin", "content-type": "application/json"}


class Fake(Commands):
    """Commands that tell something at once, and what they were asked."""

    asked: list[tuple[str, ...]]

    async def json(self, *words: str) -> Any:
        self.asked.append(words)
        match words[0]:
            case "targets":
                return [{"target": "process", "about": "<b>bare</b>"}]
            case "scenarios":
                return [{"scenario": "boot", "question": "How long?", "parameters": {}}]
            case "runs":
                return []
        return {"targets": [], "skipped": [], "changes": [], "others": []}

    async def page(self, *words: str) -> bytes:
        self.asked.append(words)
        return b"<!DOCTYPE html><p>report</p>"


@dataclass
class Made:
    """The application, and what it was seen to do."""

    page: Page
    guard: Guard
    commands: Fake
    started: list[Any] = field(default_factory=list)

    def ask(self, raw_path: bytes, *, method: str = "GET", **told: Any) -> tuple[int, dict[str, str], bytes]:
        return asyncio.run(_ask(self.guard, raw_path, method, **told))


@pytest.fixture(scope="module")
def made() -> Made:
    commands = Fake()
    commands.asked = []
    page = Page(commands, ["process"])
    asyncio.run(page.learn())
    found = Made(page, page.app(TOKEN, {HOST, "localhost:8765"}), commands)

    async def start(words: Any) -> None:
        found.started.append(words)

    page.running.start = start  # type: ignore[method-assign]
    return found


async def _ask(
    app: Callable[..., Awaitable[None]],
    raw_path: bytes,
    method: str,
    *,
    headers: Mapping[str, str] | list[tuple[bytes, bytes]] | None = None,
    body: bytes = b"",
    query: bytes = b"",
) -> tuple[int, dict[str, str], bytes]:
    given_ = headers if headers is not None else {"host": HOST}
    pairs = given_ if isinstance(given_, list) else [(k.encode(), v.encode("latin-1")) for k, v in given_.items()]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http"}
    scope |= {"raw_path": raw_path, "path": raw_path.decode("latin-1"), "query_string": query, "root_path": ""}
    scope |= {"headers": pairs, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8765)}
    sent: list[Mapping[str, Any]] = []
    pieces = [body[place : place + 8192] for place in range(0, max(1, len(body)), 8192)]

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0) if pieces else b"", "more_body": bool(pieces)}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["type"] == "http.response.start"
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(one.get("body", b"") for one in sent[1:])


def path(rest: str = "", token: str = TOKEN) -> bytes:
    return f"/{token}/{rest}".encode("latin-1")


def test_the_page_is_served_with_a_policy_that_runs_nothing_of_others(made: Made) -> None:
    status, headers, body = made.ask(path())
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy and "frame-ancestors 'none'" in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert not {"set-cookie", "access-control-allow-origin", "server"} & set(headers)
    assert b"&lt;b&gt;bare&lt;/b&gt;" in body and b"<b>bare</b>" not in body
    assert b"style=" not in body and b"<script>" not in body and TOKEN.encode() not in body


@pytest.mark.parametrize(
    "rest", ["", "events", "static/page.css", "static/race.js", "runs", "run?id=x", "doctor", "plan"]
)
def test_every_path_needs_the_token(made: Made, rest: str) -> None:
    for token in ("", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), made.guard.frame_token):
        status, _, body = made.ask(path(rest, token))
        assert status == 404 and b"Stratalab" not in body


@pytest.mark.parametrize(
    "host", ["evil.test:8765", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:8765.evil.test", "", "localhost"]
)
def test_a_name_that_is_not_the_servers_is_refused(made: Made, host: str) -> None:
    assert made.ask(path(), headers={"host": host})[0] == 421


def test_two_hosts_or_none_are_refused(made: Made) -> None:
    assert made.ask(path(), headers=[(b"host", HOST.encode()), (b"host", HOST.encode())])[0] == 421
    assert made.ask(path(), headers=[])[0] == 421


@pytest.mark.parametrize("changes", [{"origin": "null"}, {"origin": "http://evil.test"}, {"origin": ""},
                                     {"origin": "http://127.0.0.1:1"}, {"sec-fetch-site": "cross-site"},
                                     {"sec-fetch-site": "same-site"}])  # fmt: skip
def test_only_the_page_itself_starts_a_run(made: Made, changes: dict[str, str]) -> None:
    for rest in ("plan", "start", "stop"):
        assert made.ask(path(rest), method="POST", headers={**OWN, **changes}, body=b"{}")[0] == 403


def test_a_page_elsewhere_reads_nothing_even_with_the_token(made: Made) -> None:
    assert made.ask(path("runs"), headers={"host": HOST, "sec-fetch-site": "cross-site"})[0] == 403


def test_a_reports_own_address_opens_reports_and_nothing_else(made: Made) -> None:
    frame = made.guard.frame_token
    status, headers, _ = made.ask(path("frame/report", frame), query=b"run=20260101-aaaa")
    assert status == 200
    assert headers["content-security-policy"].startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in headers["content-security-policy"]
    assert made.ask(path("frame/report"), query=b"run=20260101-aaaa")[0] == 404
    for rest in ("", "runs", "events", "frame/", "frame/../runs"):
        assert made.ask(path(rest, frame))[0] == 404
    assert made.ask(path("frame/report", frame), method="POST", headers=OWN)[0] == 403


@pytest.mark.parametrize(
    "method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "GET\r\n", "X" * 9000]
)
def test_other_methods_are_refused(made: Made, method: str) -> None:
    assert made.ask(path(), method=method)[0] in (403, 405)
    assert made.ask(path(), method=method, headers=OWN)[0] == 405


@pytest.mark.parametrize(
    ("rest", "status"), [("plan", 405), ("start", 405), ("stop", 405), ("nothing", 404), ("static/none.css", 404)]
)
def test_what_is_not_there_or_not_to_be_read_is_refused(made: Made, rest: str, status: int) -> None:
    assert made.ask(path(rest))[0] == status


def test_a_body_or_headers_that_are_too_large_are_refused(made: Made) -> None:
    assert made.ask(path("plan"), method="POST", headers=OWN, body=b"x" * (guarding.MOST_BODY + 1))[0] == 413
    assert made.ask(path(), headers={"host": HOST, "x": "y" * 20_000})[0] == 431
    assert made.ask(path("runs"), query=b"x" * 4000)[0] == 404


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"1", b'"x"', b"[" * 9000, b"\xff", b'{"id": ["x"]}', b'{"id": {}}']
)
def test_what_is_no_plan_starts_nothing(made: Made, body: bytes) -> None:
    for rest in ("plan", "start"):
        status, _, told = made.ask(path(rest), method="POST", headers=OWN, body=body)
        assert status == 400 and set(json.loads(told)) == {"error"}
    assert not made.started


def test_a_run_is_what_its_plan_was(made: Made) -> None:
    question = {"scenario": "boot", "targets": ["process", "docker:host"], "rounds": 7}
    status, _, body = made.ask(path("plan"), method="POST", headers=OWN, body=json.dumps(question).encode())
    told = json.loads(body)
    assert (status, told["typed"]) == (200, "lab run boot --targets process,docker:host --rounds 7")
    assert made.commands.asked[-1][-1] == "--dry-run"
    begun = made.ask(path("start"), method="POST", headers=OWN, body=json.dumps({"id": told["id"]}).encode())
    assert begun[0] == 200
    assert made.started == [("run", "boot", "--targets", "process,docker:host", "--rounds", "7")]
    made.started.clear()


words = st.one_of(st.text(max_size=40), st.none(), st.integers(), st.lists(st.text(max_size=20), max_size=3))


@given(scenario=words, targets=st.one_of(words, st.lists(words, max_size=40)), rounds=st.one_of(words, st.floats()))
@example(scenario="boot", targets=["--store=x"], rounds=1)
@example(scenario="--events", targets=["process"], rounds=1)
@example(scenario="boot", targets=["process,docker"], rounds=1)
@example(scenario="boot", targets=["process"], rounds=True)
@example(scenario="boot", targets=["process\n"], rounds=1)
def test_nothing_that_is_asked_becomes_an_option(made: Made, scenario: Any, targets: Any, rounds: Any) -> None:
    before = len(made.commands.asked)
    body = json.dumps({"scenario": scenario, "targets": targets, "rounds": rounds}).encode()
    status, _, _ = made.ask(path("plan"), method="POST", headers=OWN, body=body[: guarding.MOST_BODY])
    assert status in (200, 400)
    for asked in made.commands.asked[before:]:
        assert asked[0] == "run" and not any(word.startswith("-") for word in (asked[1], asked[3], asked[5]))


parts = st.one_of(
    st.sampled_from(
        ["..", ".", "%2e%2e", "%00", "\0", "", "static", "frame", "run", TOKEN, "\\", "%5c", "etc", "passwd"]
    ),
    st.text(max_size=20),
    st.just("a" * 5000),
)


@settings(max_examples=300)
@given(
    told=st.lists(parts, max_size=6),
    token=st.sampled_from([TOKEN, "", "x"]),
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "\0"]),
    headers=st.dictionaries(
        st.sampled_from(["origin", "sec-fetch-site", "host", "content-type", "content-length", "x", "range"]),
        st.text(alphabet=st.characters(max_codepoint=255), max_size=60),
    ),
    body=st.binary(max_size=200),
    query=st.binary(max_size=100),
)
def test_no_request_is_answered_with_more_than_it_may_have(
    made: Made, told: list[str], token: str, method: str, headers: dict[str, str], body: bytes, query: bytes
) -> None:
    if method == "GET" and told == ["events"]:
        return
    raw = "/".join(["", token, *told]).encode("utf-8", "surrogatepass")
    status, given_, answer = made.ask(raw, method=method, headers={"host": HOST, **headers}, body=body, query=query)
    assert status in (200, 400, 403, 404, 405, 409, 413, 421, 431)
    assert b"Traceback" not in answer and b"root:" not in answer
    assert "content-security-policy" in given_
    if token != TOKEN and made.guard.frame_token.encode() not in raw:
        assert status in (404, 421, 431)
    assert not made.started


def test_httpx_is_refused_like_anybody(made: Made) -> None:
    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app=made.guard)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}", trust_env=False) as client:
            places = [
                "/",
                f"/{TOKEN}",
                f"/{TOKEN}/../x",
                f"/{TOKEN}/%2e%2e/x",
                f"/{TOKEN}/static/%2e%2e%2fapp.py",
                f"/{TOKEN}/",
            ]
            return [(await client.get(place)).status_code for place in places]

    assert asyncio.run(ask()) == [404, 404, 404, 404, 404, 200]


def test_a_defect_is_one_line_and_no_traceback(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a\nsecret")

    guard = Guard(app=broken, token=TOKEN, hosts={HOST})
    status, _, body = asyncio.run(_ask(guard, path(), "GET"))
    assert (status, body) == (500, b"that could not be answered: see where lab serve runs\n")
    assert capsys.readouterr().err.count("\n") == 1


def test_no_socket_of_another_kind_is_opened(made: Made) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    asyncio.run(made.guard({"type": "websocket", "path": "/"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.fixture(autouse=True)
def _nothing_started(made: Made) -> Iterator[None]:
    made.started.clear()
    yield
