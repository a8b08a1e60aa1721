"""Who may ask the live page for anything, decided before anything of it is looked at.

Another user of this machine, and every page that a browser here has open, can send requests to a port on loopback. So
each request needs the token that the lab printed, as the first part of its path; the name that it was sent to must be
the server's own (a page elsewhere could have its own name lead here); what changes something must come from the page
itself; and a page elsewhere is not served even with the token. There are no cookies. A report is framed: its scripts
see an address with a token of its own, which opens reports and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FRAME = "/frame/"
"""Below it is what a token of frames opens, and nothing else does."""
MOST_BODY = 16 << 10
_MOST_PATH, _MOST_QUERY, _MOST_HEADERS = 512, 2048, 16 << 10

_PLAIN_PATH = re.compile(rb"/(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*(?:[A-Za-z0-9_-][A-Za-z0-9._-]*)?")
"""No part that is empty or begins with a dot, and nothing that would have to be decoded."""
_READS = frozenset({"GET", "HEAD"})

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FRAME_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
_ALWAYS = (
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
    (b"cache-control", b"no-store"),
)


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Lets through to `app` what has `token` and was sent to one of `hosts` (name:port). The app sees the path without
    the token."""

    app: App
    token: str
    hosts: Collection[str]
    frame_token: str = field(default="")

    def __post_init__(self) -> None:
        if not self.frame_token:
            made = hmac.new(self.token.encode(), b"frames", hashlib.sha256).hexdigest()[:32]
            object.__setattr__(self, "frame_token", made)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        begun = False

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", ()), *_ALWAYS, *_policy(scope)]
            await send(message)

        status, why = next(self._refusals(scope), (0, ""))
        if status:
            await _say(answer, scope, status, why)
            return
        if scope["method"] not in _READS:
            body = await _body(receive)
            if body is None:
                await _say(answer, scope, 413, "the request's body is too large")
                return
            receive = _again(body, receive)
        try:
            await self.app(scope, receive, answer)
        except Exception as error:
            sys.stderr.write(f"lab: the page could not answer: {type(error).__name__}: {str(error)[:200]!r}\n")
            if not begun:
                await _say(answer, scope, 500, "that could not be answered: see where lab serve runs")

    def _refusals(self, scope: Scope) -> Iterator[tuple[int, str]]:
        """Why the request is not let through, by status and words. Where nothing is said, its path is left without the
        token."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        told = {name: value.decode("latin-1") for name, value in headers}
        raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
        first, rest = _parts(raw.partition(b"?")[0])
        is_page = hmac.compare_digest(first, self.token.encode())
        is_frame = hmac.compare_digest(first, self.frame_token.encode())
        path = rest.decode("latin-1")
        if sum(len(name) + len(value) + 4 for name, value in headers) > _MOST_HEADERS:
            yield 431, "too many headers"
        if sum(name == b"host" for name, _ in headers) != 1 or told[b"host"].lower() not in self.hosts:
            yield 421, "this server is not known by that name"
        if not (is_page or is_frame) or len(raw) > _MOST_PATH or not _PLAIN_PATH.fullmatch(rest):
            yield 404, "there is nothing here: use the address that lab serve printed"
        if is_frame is not path.startswith(FRAME) or len(scope.get("query_string", b"")) > _MOST_QUERY:
            yield 404, "there is nothing here"
        if told.get(b"sec-fetch-site", "none") not in ("none", "same-origin") and not is_frame:
            yield 403, "asked for by a page from elsewhere"
        if scope["method"] not in _READS and (is_frame or not self._is_own(told.get(b"origin", ""))):
            yield 403, "only the page itself may ask for that"
        scope["path"], scope["raw_path"], scope["root_path"] = path, rest, ""

    def _is_own(self, origin: str) -> bool:
        return origin in {f"http://{host}" for host in self.hosts}


def _parts(path: bytes) -> tuple[bytes, bytes]:
    """The first part of a path, and what follows with its slash."""
    first, slash, rest = path[1:].partition(b"/")
    return first, slash + rest


async def _body(receive: Receive) -> bytes | None:
    """The request's whole body; None where there is too much of it."""
    taken = b""
    while len(taken) <= MOST_BODY:
        message = await receive()
        taken += message.get("body", b"")
        if not message.get("more_body"):
            return taken if len(taken) <= MOST_BODY else None
    return None


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives what was read, and then what comes."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> MutableMapping[str, Any]:
        return left.pop() if left else await receive()

    return again


def _policy(scope: Scope) -> tuple[tuple[bytes, bytes], ...]:
    if str(scope.get("path", "")).startswith(FRAME):
        return ((b"content-security-policy", _FRAME_POLICY.encode()),)
    return ((b"content-security-policy", _POLICY.encode()), (b"x-frame-options", b"DENY"))


async def _say(send: Send, scope: Scope, status: int, why: str) -> None:
    body = b"" if scope.get("method") == "HEAD" else f"{why}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
