"""The Docker SDK's exceptions, mapped to the lab's in this one place."""

from __future__ import annotations

import getpass
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from lab.errors import DriverError, DriverUnavailable, chain_of, details_of, mapped, one_line

_IN_USE = re.compile(
    r"(?:Bind for|listen tcp4?|bind host port for|exposing port TCP) (\d+\.\d+\.\d+\.\d+:\d+)"
    r".*already (?:allocated|in use)"
)
_BAD_COMMAND = re.compile(r'(exec: \\?"[^"]+": [^"]+?)(?:: unknown)?$')


def translated(doing: str, kind: type[DriverError] = DriverError) -> AbstractContextManager[None]:
    """Raise what the engine or its SDK raises inside as `kind`, as said by `translate`."""
    return mapped(is_engine_error, lambda error: translate(error, doing, kind))


def is_engine_error(error: BaseException) -> bool:
    """Whether `error` is the engine's, its SDK's or its connection's, and not a mistake of the lab's own."""
    import docker.errors
    import docker.utils.socket
    import requests
    import urllib3

    return isinstance(
        error,
        docker.errors.DockerException
        | docker.errors.StreamParseError
        | docker.utils.socket.SocketError
        | requests.exceptions.RequestException
        | urllib3.exceptions.HTTPError
        | urllib3.exceptions.ProxySchemeUnsupported
        | OSError,
    )


def translate(error: BaseException, doing: str, kind: type[DriverError] = DriverError) -> DriverError:
    """The error of class `kind` that tells, in one line, what went wrong while `doing`, and how it is mended.

    An engine that cannot be reached is a DriverUnavailable where `kind` leaves that open.
    """
    import docker.errors

    chain = chain_of(error)
    details = details_of(error)
    if isinstance(error, docker.errors.APIError):
        brief, resolution = _refusal(error, doing)
        return kind(brief, details=details, resolution=resolution)
    # The general error of a connection holds the one that says why, so that is looked for first.
    told = [_why(one, doing) for one in chain] + [_broken(one, doing) for one in chain]
    reason = next(filter(None, told), None)
    if reason is None:
        return kind(f"Docker could not {doing}: {one_line(error)}", details=details)
    brief, resolution = reason
    return (DriverUnavailable if kind is DriverError else kind)(brief, details=details, resolution=resolution)


def start_remedy() -> str:
    """The command that starts dockerd on this host, or that installs it."""
    if shutil.which("dockerd") is None:
        return "install Docker: sudo apt-get install docker.io, or see https://docs.docker.com/engine/install/"
    return (
        "start it: sudo systemctl start docker" if Path("/run/systemd/system").is_dir() else "start it: sudo dockerd &"
    )


def _refusal(error: BaseException, doing: str) -> tuple[str, str]:
    said = " ".join(str(getattr(error, "explanation", "") or error).split())
    if found := _IN_USE.search(said):
        return f"{found[1]} is in use by another program", "leave the port to the lab, or free it: see `ss -ltnp`"
    if "apparmor_parser" in said:
        return f"Docker could not {doing}: this host has AppArmor on and its parser missing", (
            "sudo apt-get install apparmor"
        )
    if "unable to apply caps" in said:  # runc's words: the kernel gives no process what its bounding set lacks
        return (
            f"Docker could not {doing}: it asks for a capability that dockerd's own bounding set lacks",
            "run dockerd with every capability (`grep CapBnd /proc/$(pidof dockerd)/status` tells), or leave this out",
        )
    if found := _BAD_COMMAND.search(said):
        return f"Docker could not {doing}: {found[1]}", "give a command that the image has"
    return f"Docker could not {doing}: {said}", ""


def _why(error: BaseException, doing: str) -> tuple[str, str] | None:
    """What one link of a chain of errors says of an engine that cannot be talked to, and the remedy."""
    import docker.errors
    import requests
    import urllib3

    settings = (
        docker.errors.TLSParameterError
        | docker.errors.InvalidConfigFile
        | docker.errors.ContextException
        | docker.errors.ContextNotFound
        | docker.errors.MissingContextParameter
    )
    silent = requests.exceptions.Timeout | urllib3.exceptions.TimeoutError | TimeoutError
    if isinstance(error, settings):
        return f"Docker's settings cannot be used: {one_line(error)}", "see DOCKER_HOST, DOCKER_CONTEXT and ~/.docker"
    if isinstance(error, PermissionError):
        return f"Docker refuses user '{_user()}'", f"sudo usermod -aG docker {_user()}, then log in again; or use sudo"
    if isinstance(error, FileNotFoundError):
        return "Docker's socket is not there: dockerd does not run", start_remedy()
    if isinstance(error, silent):
        return f"dockerd gave no answer in time, asked to {doing}", "look at its log: journalctl -u docker"
    return None


def _broken(error: BaseException, doing: str) -> tuple[str, str] | None:
    import docker.utils.socket
    import requests
    import urllib3

    broken = (
        requests.exceptions.ConnectionError
        | requests.exceptions.ChunkedEncodingError
        | urllib3.exceptions.ProtocolError
        | docker.utils.socket.SocketError
        | ConnectionError
    )
    return (f"dockerd does not answer, asked to {doing}", start_remedy()) if isinstance(error, broken) else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return "$USER"
