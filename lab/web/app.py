"""What the page answers, by path, to whoever lab/web/guard.py has let through."""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from lab.errors import BadInput, LabError
from lab.web import pages
from lab.web.commands import Commands, Question, run_id, scenario_name, typed
from lab.web.guard import FRAME, Guard
from lab.web.running import Running

_STATIC = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MOST_PLANS = 16
_RUNS = 200

BUSY = "A run measures on this machine, and the page does nothing else meanwhile: what it did would be in the figures."


class Page:
    """The page's state: the run that goes on, and the plans that were shown. `chosen` are the targets that are ticked
    at first."""

    def __init__(self, commands: Commands, chosen: Sequence[str]) -> None:
        self.running = Running(commands)
        self.frame_token = ""
        self._commands = commands
        self._chosen = chosen
        self._targets: Sequence[Mapping[str, str]] = ()
        self._scenarios: Sequence[Mapping[str, Any]] = ()
        self._plans: OrderedDict[str, Question] = OrderedDict()
        self._static = {path.name: path.read_bytes() for path in _STATIC.iterdir() if path.suffix in _TYPES}

    async def learn(self) -> None:
        """Ask what can be raced, before anybody looks. Raises LabError."""
        self._targets = await self._commands.json("targets")
        self._scenarios = await self._commands.json("scenarios")

    def app(self, token: str, hosts: Collection[str]) -> Guard:
        """The ASGI application, guarded by `token`, which is known as `hosts` (name:port)."""
        routes = [
            Route("/", self._race),
            Route("/static/{name}", self._file),
            Route("/events", self._events),
            Route("/plan", self._plan, methods=["POST"]),
            Route("/start", self._start, methods=["POST"]),
            Route("/stop", self._stop, methods=["POST"]),
            Route("/runs", self._runs),
            Route("/run", self._run),
            Route("/compare", self._compare),
            Route("/history", self._history),
            Route("/doctor", self._doctor),
            Route(f"{FRAME}report", self._framed_report),
            Route(f"{FRAME}history", self._framed_history),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _refused, LabError: _complained})
        app.router.redirect_slashes = False
        guard = Guard(app=app, token=token, hosts=hosts)
        self.frame_token = guard.frame_token
        return guard

    async def _race(self, request: Request) -> Response:  # noqa: ARG002
        return HTMLResponse(pages.race(self._targets, self._scenarios, self._chosen))

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._static:
            raise HTTPException(404)
        return Response(self._static[name], media_type=_TYPES[Path(name).suffix])

    async def _events(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")

        async def told() -> AsyncIterator[bytes]:
            yield b"retry: 1000\n\n"
            async for one in self.running.follow():
                yield one

        return StreamingResponse(told(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def _plan(self, request: Request) -> Response:
        question = Question.read(await _body(request))
        self._require_idle()
        plan = await self._commands.json(*question.words, "--dry-run")
        key = secrets.token_urlsafe(12)
        self._plans[key] = question
        while len(self._plans) > _MOST_PLANS:
            self._plans.popitem(last=False)
        return JSONResponse({"id": key, "typed": typed(question.words), "plan": plan})

    async def _start(self, request: Request) -> Response:
        told = await _body(request)
        question = self._plans.get(str(told.get("id"))) if isinstance(told, dict) else None
        if question is None:
            raise BadInput("that plan is not known: have it shown again")
        await self.running.start(question.words)
        return JSONResponse({"typed": typed(question.words)})

    async def _stop(self, request: Request) -> Response:
        await _body(request)
        self.running.stop()
        return JSONResponse({})

    async def _runs(self, request: Request) -> Response:  # noqa: ARG002
        return await self._shown("Runs", "Runs", lambda: self._commands.json("runs", "--limit", str(_RUNS)), pages.runs)

    async def _run(self, request: Request) -> Response:
        name = run_id(request.query_params.get("id", ""))
        framed = f"../{self.frame_token}{FRAME}report?run={quote(name)}"
        return await self._shown(f"Run {name}", "Runs", _nothing, lambda _: pages.run(name, framed))

    async def _compare(self, request: Request) -> Response:
        a, b = (run_id(request.query_params.get(side, "")) for side in ("a", "b"))
        return await self._shown("Compared", "Runs", lambda: self._commands.json("compare", a, b), pages.compared)

    async def _history(self, request: Request) -> Response:
        chosen = request.query_params.get("scenario", "")
        names = [str(one["scenario"]) for one in self._scenarios]
        framed = f"../{self.frame_token}{FRAME}history?scenario={scenario_name(chosen)}" if chosen else ""
        return await self._shown("History", "History", _nothing, lambda _: pages.history(names, chosen, framed))

    async def _doctor(self, request: Request) -> Response:  # noqa: ARG002
        return await self._shown("Doctor", "Doctor", lambda: self._commands.json("doctor"), pages.doctor)

    async def _framed_report(self, request: Request) -> Response:
        name = run_id(request.query_params.get("run", ""))
        return await self._framed("report", name)

    async def _framed_history(self, request: Request) -> Response:
        return await self._framed("history", scenario_name(request.query_params.get("scenario", "")))

    async def _framed(self, *words: str) -> Response:
        self._require_idle()
        return HTMLResponse(await self._commands.page(*words))

    async def _shown(
        self, title: str, at: str, ask: Callable[[], Awaitable[Any]], show: Callable[[Any], str]
    ) -> Response:
        """What a command tells as a page, or why there is none."""
        try:
            self._require_idle()
            return HTMLResponse(show(await ask()))
        except LabError as error:
            return HTMLResponse(pages.complaint(title, str(error), at=at), status_code=_status(error))

    def _require_idle(self) -> None:
        if self.running.busy:
            raise _Busy(BUSY)


class _Busy(LabError):
    """A run measures."""


async def _nothing() -> None:
    """What needs no command before it is shown."""


async def _body(request: Request) -> Any:
    """The request's JSON. Raises BadInput."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise BadInput("the page sends JSON")
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise BadInput("that is no JSON") from error


def _status(error: LabError) -> int:
    return 409 if isinstance(error, _Busy) else 400 if isinstance(error, BadInput) else 502


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001
    status = error.status_code if isinstance(error, HTTPException) else 500
    return PlainTextResponse("there is nothing here\n" if status == 404 else "not like that\n", status_code=status)


async def _complained(request: Request, error: Exception) -> Response:
    assert isinstance(error, LabError)  # noqa: S101  as registered
    if request.method == "POST":
        return JSONResponse({"error": str(error)}, status_code=_status(error))
    return PlainTextResponse(f"{error}\n", status_code=_status(error))
