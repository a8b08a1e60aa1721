"""What a user says of the endpoint, by `-o`: which one, and whether a cloud may be called."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from lab.errors import BadInput, DriverUnavailable, Unsupported

CALLS = ("CreateFunction", "CreateFunctionUrlConfig", "PutFunctionConcurrency", "UpdateFunctionConfiguration")
"""What each launch asks of the API at least, beside DeleteFunction and its polling."""

KEEP_ALIVE_S = 300
_MOST_KEEP_ALIVE_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`endpoint` is the URL of the user's own, empty for the lab's; the lab's lets idle workers go after
    `keep_alive_s`."""

    endpoint: str
    keep_alive_s: int


def read(options: Mapping[str, str]) -> Options:
    """Raises BadInput for what cannot be meant, and Unsupported for a cloud that the user did not allow."""
    text = options.get("lambda-keep-alive", str(KEEP_ALIVE_S)).removesuffix("s")
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= _MOST_KEEP_ALIVE_S:
        raise BadInput(
            f"-o lambda-keep-alive: '{text}' is no number of seconds from 1 to {_MOST_KEEP_ALIVE_S}",
            resolution="such as -o lambda-keep-alive=60",
        )
    endpoint = options.get("lambda-endpoint", "")
    if endpoint:
        _require_allowed(endpoint, options)
    return Options(endpoint=endpoint, keep_alive_s=int(text))


def address_of(endpoint: str) -> tuple[str, int]:
    """Host and port of an endpoint's URL. Raises BadInput."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError as error:
        raise BadInput(f"-o lambda-endpoint: '{endpoint}' is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"-o lambda-endpoint: '{endpoint}' is no URL", resolution="such as http://127.0.0.1:4566")
    return parts.hostname, port


def is_cloud(host: str) -> bool:
    """Whether `host` is AWS's own, or is reached beyond this host and its private networks. Raises DriverUnavailable
    for a name that stands for no address."""
    if f".{host.lower().rstrip('.')}".endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".on.aws")):
        return True
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DriverUnavailable(
            f"-o lambda-endpoint: '{host}' stands for no address: {error}", resolution="correct the URL"
        ) from error
    addresses = [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]
    return any(not (one.is_loopback or one.is_private or one.is_link_local) for one in addresses)


def _require_allowed(endpoint: str, options: Mapping[str, str]) -> None:
    host, _ = address_of(endpoint)
    cloud = is_cloud(host)
    if cloud and options.get("allow-cloud") != "yes":
        raise Unsupported(
            f"'{host}' is not this host's nor a private network's, and may cost money: each launch would make "
            f"{len(CALLS) + 1} calls to its API and at least one call of the function, each round one launch or more",
            resolution="give -o allow-cloud=yes, or leave out -o lambda-endpoint for an emulator on this host",
        )
    if urlsplit(endpoint).scheme == "https":
        raise Unsupported(
            f"functions of '{host}' answer by TLS, and the lab asks in plain HTTP, so that no figure holds a handshake",
            resolution="give an http:// endpoint",
        )
