"""The errors of Podman's API and of its client, mapped to the lab's in this one place."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager

from lab.errors import DriverError, DriverUnavailable, chain_of, details_of, mapped, one_line

INSTALL = "sudo apt-get install podman, or see https://podman.io/docs/installation"
_IN_USE = re.compile(r"listen tcp4? (\d+\.\d+\.\d+\.\d+:\d+).*address already in use")
_IN_USE_ROOTLESS = re.compile(r"rootlessport .*?(\d+\.\d+\.\d+\.\d+:\d+).*address already in use")
_BAD_COMMAND = re.compile(r'(exec: \\?"[^"]+": [^":]+)')
_NO_RUNTIME = re.compile(r'default OCI runtime "?([^" ]+)"? not found')


def translated(doing: str, kind: type[DriverError] = DriverError) -> AbstractContextManager[None]:
    """Raise what Podman, its client or the connection raises inside as `kind`, as said by `translate`."""
    return mapped(is_podmans, lambda error: translate(error, doing, kind))


def is_podmans(error: BaseException) -> bool:
    """Whether `error` is the engine's, its client's or the connection's, and not a mistake of the lab's own."""
    import podman.errors
    import requests
    import urllib3

    return isinstance(
        error,
        podman.errors.PodmanError
        | podman.errors.DockerException
        | podman.errors.StreamParseError
        | requests.exceptions.RequestException
        | urllib3.exceptions.HTTPError
        | OSError,
    )


def translate(error: BaseException, doing: str, kind: type[DriverError] = DriverError) -> DriverError:
    """The error of class `kind` that tells, in one line, what went wrong while `doing`, and how it is mended."""
    import podman.errors
    import requests
    import urllib3

    details = details_of(error)
    if isinstance(error, podman.errors.APIError) and error.status_code:
        brief, resolution = refusal(str(error.explanation or error), doing)
        return kind(brief, details=details, resolution=resolution)
    silent = requests.exceptions.Timeout | urllib3.exceptions.TimeoutError | TimeoutError
    if any(isinstance(one, silent) for one in chain_of(error)):
        brief = f"Podman gave no answer in time, asked to {doing}"
    elif any(isinstance(one, OSError) for one in chain_of(error)):
        brief = f"Podman's API, which the lab serves by `podman system service`, does not answer, asked to {doing}"
    else:
        return kind(f"Podman could not {doing}: {one_line(error)}", details=details)
    return (DriverUnavailable if kind is DriverError else kind)(brief, details=details)


def refusal(said: str, doing: str) -> tuple[str, str]:
    """What Podman `said` against `doing`, on one line, and what mends it."""
    said = " ".join(said.split())
    for pattern in (_IN_USE, _IN_USE_ROOTLESS):
        if found := pattern.search(said):
            return f"{found[1]} is in use by another program", "leave the port to the lab, or free it: see `ss -ltnp`"
    if found := _NO_RUNTIME.search(said):
        return f"Podman finds no OCI runtime '{found[1]}'", (
            f"install it, or name its program under [engine.runtimes] in containers.conf: {found[1]} = [PATH]"
        )
    if found := _BAD_COMMAND.search(said):
        return f"Podman could not {doing}: {found[1]}", "give a command that the image has"
    return f"Podman could not {doing}: {said}", ""
