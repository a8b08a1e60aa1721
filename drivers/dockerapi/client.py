"""Connections to a Docker engine, and whether it is this host's."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from drivers.dockerapi.errors import translated
from lab.driver import Context
from lab.errors import DriverUnavailable

if TYPE_CHECKING:
    from docker import APIClient

TIMEOUT_S = 60
LOAD_TIMEOUT_S = 900
"""For images, which may be large or come from far away."""


def connect(context: Context, *, timeout_s: int = TIMEOUT_S) -> APIClient:
    """The engine of the option `docker-host`, else of DOCKER_HOST or of the current context. Raises
    DriverUnavailable."""
    try:
        import docker
    except ImportError as error:
        raise DriverUnavailable(
            "the Docker SDK for Python is not installed",
            details=str(error),
            resolution="pip install 'stratalab[docker]'",
        ) from error
    host = context.options.get("docker-host")
    with reached(context, "reach the engine"):
        environment = {**os.environ, "DOCKER_HOST": host} if host else None
        return docker.from_env(timeout=timeout_s, environment=environment).api


@contextlib.contextmanager
def reached(context: Context, doing: str) -> Iterator[None]:
    """As `translated`, for the first question to an engine: where a user named its address, and nobody answers there,
    the DriverUnavailable says who named which."""
    try:
        with translated(doing, DriverUnavailable):
            yield
    except DriverUnavailable as error:
        named = _named(context)
        if named is None or not isinstance(error.__cause__, Exception):
            raise
        address, by = named
        raise DriverUnavailable(
            f"no Docker engine answers at {address}, which {by} names: {error.brief}",
            details=error.details,
            resolution=f"correct {by}, or leave it unset",
        ) from error


def _named(context: Context) -> tuple[str, str] | None:
    """The engine's address as a user gave it, and by what."""
    if host := context.options.get("docker-host"):
        return host, "-o docker-host"
    host = os.environ.get("DOCKER_HOST")
    return (host, "DOCKER_HOST") if host else None


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


def label_filter(labels: Mapping[str, str]) -> list[str]:
    """The API's filter for what bears all `labels`; with none, for all of the lab's. A key stands once: where it does
    twice, with a value and without, Podman (4.3) finds nothing."""
    named = [f"{key}={value}" for key, value in labels.items()]
    return named if "lab.run" in labels else ["lab.run", *named]
