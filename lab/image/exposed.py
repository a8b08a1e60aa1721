"""Which TCP ports an image says that it listens at (EXPOSE), known before anything is prepared."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lab.errors import LabError
from lab.image import open_image
from lab.image.engine import Engine, engine_address
from lab.image.source import is_path


def exposed_ports(image: str, *, docker_host: str = "") -> tuple[int, ...]:
    """The ports of `image`, a file or a name that the Docker engine at `docker_host` knows, in order; none where it
    exposes none, or where it is not known here yet: whoever prepares it says what is wrong with it."""
    with contextlib.suppress(LabError, OSError, ValueError):
        if is_path(image):
            with open_image(Path(image).expanduser()) as opened:
                return tcp_ports(opened.config.exposed_ports)
        with Engine(engine_address({"docker-host": docker_host} if docker_host else {})) as engine:
            known = engine.inspect(image)
        return tcp_ports(tuple(known.config.get("ExposedPorts") or ())) if known is not None else ()
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
