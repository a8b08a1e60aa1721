"""Which TCP ports an image says that it listens at (EXPOSE), known before anything is prepared."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import quote

import httpx

from lab.errors import LabError
from lab.image import engine_socket, open_image

_TIMEOUT_S = 5.0


def exposed_ports(image: str, *, docker_host: str = "") -> tuple[int, ...]:
    """The ports of `image`, a file or a name that the Docker engine at `docker_host` knows, in order; none where it
    exposes none, or where it is not known here yet: whoever prepares it says what is wrong with it."""
    with contextlib.suppress(LabError, OSError, ValueError, httpx.HTTPError):
        path = Path(image)
        if path.is_file():
            with open_image(path) as opened:
                return tcp_ports(opened.config.exposed_ports)
        socket_path = docker_host.removeprefix("unix://") if docker_host else engine_socket()
        transport = httpx.HTTPTransport(uds=socket_path)
        with httpx.Client(transport=transport, base_url="http://docker", timeout=_TIMEOUT_S) as engine:
            told = engine.get(f"/images/{quote(image, safe='/:@')}/json").raise_for_status().json()
        return tcp_ports(tuple((told.get("Config") or {}).get("ExposedPorts") or ()))
    return ()


def tcp_ports(exposed: tuple[str, ...]) -> tuple[int, ...]:
    """Of an image's words (`80/tcp`, `53/udp`, `8000-8002`) the TCP ports; what is no port is passed over."""
    found: set[int] = set()
    for text in exposed:
        ports, _, protocol = text.partition("/")
        low, _, high = ports.partition("-")
        if protocol in ("", "tcp") and low.isdecimal() and (not high or high.isdecimal()):
            found.update(range(int(low), min(int(high or low), 65_535) + 1))
    return tuple(sorted(port for port in found if 0 < port < 65_536))
