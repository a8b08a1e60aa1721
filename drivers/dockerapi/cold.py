"""What a cold launch by a Docker engine is about: the files that it reads, and what else the engine runs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from drivers.dockerapi import images
from drivers.dockerapi.errors import translated

if TYPE_CHECKING:
    from docker import APIClient


def launch_files(api: APIClient, image: str, runtime: str) -> Sequence[Path]:
    """The layers' directories, and the programs that the engine starts. Raises DriverError."""
    with translated("ask the engine what it is"):
        runtimes = api.info().get("Runtimes") or {}
    named = [runtimes.get(runtime, {}).get("path") or runtime, "runc", "containerd-shim-runc-v2", "docker-proxy"]
    programs = [Path(found) for name in dict.fromkeys(named) if (found := shutil.which(name))]
    return [*images.layer_directories(api, image), *programs]


def others_running(api: APIClient) -> Sequence[str]:
    """The names of running containers that are no launch of the lab's. Raises DriverError."""
    with translated("list containers"):
        running = api.containers()
    return [one["Names"][0].removeprefix("/") for one in running if "lab.launch" not in (one["Labels"] or {})]
