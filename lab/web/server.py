"""The live page's server: one socket, one loop, and an end at which nothing is left running."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from lab.errors import BadInput
from lab.web.app import Page
from lab.web.commands import Commands
from lab.web.guard import new_token

_MOST_CONNECTIONS = 64
_MOST_HEADERS = 32 << 10
_TO_END_S = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(
    host: str,
    port: int,
    *,
    store: str | None,
    chosen: Sequence[str],
    tell: Callable[[str], None],
    busy: Callable[[], None],
) -> None:
    """Serve until Ctrl-C, SIGTERM or SIGHUP. `tell` is given the page's address once it answers; `busy` is called where
    a run has to be ended first. Raises BadInput where the address cannot be had, LabError."""
    with _listening(host, port) as listening:
        asyncio.run(_serve(listening, host, Page(Commands(store), chosen), tell, busy))


async def _serve(
    listening: socket.socket, host: str, page: Page, tell: Callable[[str], None], busy: Callable[[], None]
) -> None:
    await page.learn()
    port = listening.getsockname()[1]
    names = {host, "127.0.0.1", "localhost"} if host.startswith("127.") else {host}
    token = new_token()
    shown = f"[{host}]" if ":" in host else host
    app = page.app(token, {f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in names})
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        h11_max_incomplete_event_size=_MOST_HEADERS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_TO_END_S,
    )
    server = _Server(config)
    ended = asyncio.Event()
    with _signals(ended.set):
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        tell(f"http://{shown}:{port}/{token}/")
        asked = asyncio.create_task(ended.wait())
        await asyncio.wait([serving, asked], return_when=asyncio.FIRST_COMPLETED)
        if page.running.busy:
            busy()
        await page.running.close()
        server.should_exit = True
        await serving
        asked.cancel()


class _Server(uvicorn.Server):
    """Uvicorn's, but that the lab hears the signals itself: a run that goes on is ended first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _signals(heard: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    numbers = [number for number in _SIGNALS if before[number] is not signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, heard)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        made = socket.socket(found[0][0], socket.SOCK_STREAM)
    except (OSError, OverflowError) as error:
        raise BadInput(f"--host {host}: that is no address", resolution="write one such as 127.0.0.1") from error
    with made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(found[0][4])
            made.listen(128)
        except OSError as error:
            raise BadInput(
                f"port {port} at {host} cannot be had: {error.strerror}",
                resolution="give another --port, or --port 0 for a free one",
            ) from error
        yield made
