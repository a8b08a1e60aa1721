"""`lab serve`: the live page, until Ctrl-C."""

from __future__ import annotations

import ipaddress
import sys
from importlib.util import find_spec

from lab.cli.command_run import DEFAULT_TARGETS
from lab.errors import BadInput

_NEEDED = ("starlette", "uvicorn")


def serve_page(*, host: str, port: int, beyond: bool, store: str | None) -> None:
    """Serve. Raises BadInput, LabError."""
    _require_address(host, beyond)
    if lacking := [name for name in _NEEDED if find_spec(name) is None]:
        raise BadInput(
            f"lab serve needs {' and '.join(lacking)}, not installed here",
            resolution=f"{sys.executable} -m pip install 'stratalab[serve]'",
        )
    from lab.web.server import serve

    if not ipaddress.ip_address(host).is_loopback:
        _say(
            f"warning: whoever reads the network between here and a viewer reads the address with its token, and can "
            f"then start runs on this machine. It listens at {host}, and not on this host alone."
        )
    serve(
        host,
        port,
        store=store,
        chosen=DEFAULT_TARGETS,
        tell=_tell,
        busy=lambda: _say("a run goes on: it is ended, with what it measured kept, and cleans up"),
    )


def _require_address(host: str, beyond: bool) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise BadInput(f"--host {host}: that is no address", resolution="write one such as 127.0.0.1") from error
    if address.is_unspecified:
        raise BadInput(
            f"--host {host} would be every address of this machine",
            resolution="name the one by which it is to be reached",
        )
    if not address.is_loopback and not beyond:
        raise BadInput(
            f"--host {host} lets others than this host have the page",
            resolution="add --beyond-this-host if that is meant; a tunnel is safer: ssh -L 8765:127.0.0.1:8765 HOST",
        )


def _tell(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    _say("open that address in a browser here; Ctrl-C ends it")


def _say(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr)  # noqa: T201
