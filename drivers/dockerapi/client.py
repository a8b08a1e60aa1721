"""Connections to a Docker engine, and whether it is this host's."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from drivers.dockerapi.errors import translated
from lab.driver import Context
from lab.errors import DriverUnavailable
from lab.image.engine import DEFAULT_HOST, Address, engine_address

if TYPE_CHECKING:
    from docker import APIClient
    from docker.tls import TLSConfig

TIMEOUT_S = 60
LOAD_TIMEOUT_S = 900
"""For images, which may be large or come from far away."""


def connect(context: Context, *, timeout_s: int = TIMEOUT_S) -> APIClient:
    """The engine that all targets of a run share (`lab.image.engine`). Raises DriverUnavailable, BadInput."""
    try:
        import docker
        from docker.auth import AuthConfig
    except ImportError as error:
        raise DriverUnavailable(
            "the Docker SDK for Python is not installed",
            details=str(error),
            resolution="pip install 'stratalab[docker]'",
        ) from error
    address = engine_address(context.options)
    with reached(context, "reach the engine"):
        api = docker.DockerClient(base_url=address.host, tls=_tls(address), timeout=timeout_s).api
    # Images are pulled by the lab. The SDK would ask a registry's credentials helper at every service that it creates,
    # and fail where the helper is gone.
    vars(api)["_auth_configs"] = AuthConfig({"auths": {"": {}}})
    return api


@contextlib.contextmanager
def reached(context: Context, doing: str) -> Iterator[None]:
    """As `translated`, for the first question to an engine: where a user named its address, and nobody answers there,
    the DriverUnavailable says who named which."""
    try:
        with translated(doing, DriverUnavailable):
            yield
    except DriverUnavailable as error:
        named = _named(context)
        if named is None or error.__cause__ is None or isinstance(error.__cause__, DriverUnavailable):
            raise  # nobody named it, the engine was not even asked, or it is said already
        address, by = named
        raise DriverUnavailable(
            f"no Docker engine answers at {address}, which {by} names: {error.brief}",
            details=error.details,
            resolution=f"correct {by}, or leave it unset",
        ) from error


def _named(context: Context) -> tuple[str, str] | None:
    """The engine's address as a user gave it, and by what; None where nobody gave one."""
    address = engine_address(context.options)
    return None if address.host == DEFAULT_HOST else (address.host, address.named_by)


def is_remote(api: APIClient) -> bool:
    """Whether the engine is reached over a network (the SDK calls a Unix socket 'localhost')."""
    return urlsplit(api.base_url).hostname not in ("localhost", "127.0.0.1", "::1")


def is_podman(api: APIClient) -> bool:
    """Whether Podman answers, which speaks Docker's API: with no daemon, conmon for a shim, and events of its own."""
    with translated("ask the engine what it is", DriverUnavailable):
        parts = api.version(api_version=False).get("Components") or ()
    return any(str(part.get("Name", "")).startswith("Podman") for part in parts)


def is_local(api: APIClient, told: Mapping[str, Any]) -> bool:
    """Whether the processes of the engine that `told` this of itself are this host's: not so on another machine, nor
    in Docker Desktop's VM."""
    same = told.get("Name") == platform.node() and told.get("KernelVersion") == platform.release()
    return same and not is_remote(api)


def _tls(address: Address) -> TLSConfig | bool:
    if address.tls is None:
        return False
    import docker.tls

    files = {name: address.tls / f"{name}.pem" for name in ("ca", "cert", "key")}
    pair = (str(files["cert"]), str(files["key"])) if files["cert"].is_file() else None
    authority = str(files["ca"]) if files["ca"].is_file() else None
    return docker.tls.TLSConfig(client_cert=pair, ca_cert=authority, verify=address.verify)


def label_filter(labels: Mapping[str, str]) -> list[str]:
    """The API's filter for what bears all `labels`; with none, for all of the lab's. A key stands once: where it does
    twice, with a value and without, Podman (4.3) finds nothing."""
    named = [f"{key}={value}" for key, value in labels.items()]
    return named if "lab.run" in labels else ["lab.run", *named]
