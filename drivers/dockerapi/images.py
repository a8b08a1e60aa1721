"""Images of one run in the engine: the lab's own service, and a user's image from a file or the engine itself."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivers.dockerapi.client import LOAD_TIMEOUT_S, connect, label_filter
from drivers.dockerapi.container import Remnant
from drivers.dockerapi.errors import translated
from lab.driver import Context, bears
from lab.errors import DriverError, Unsupported
from lab.image import service_archive, source
from lab.service.build import build_service
from lab.spec import SERVICE_IMAGE, Spec
from lab.store.place import filling, partial_folder

if TYPE_CHECKING:
    from docker import APIClient

_NAMELESS = "<none>:<none>"
_OWN_REPOSITORY = re.compile(r"(?:^|/)stratalab/(?:service|file-[0-9a-f]{12})$")


def run_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of an image: all but those of one target or launch, since a run's Docker targets share it."""
    return {key: value for key, value in labels.items() if key not in ("lab.target", "lab.launch")}


def provide(context: Context, spec: Spec) -> str:
    """Make sure that the engine has the image of `spec`: the lab's own service, a file's, one that it has, or else its
    registry's. Returns what the engine knows it by. Raises LabError."""
    if spec.builtin:
        with contextlib.closing(connect(context, timeout_s=LOAD_TIMEOUT_S)) as api:
            return provide_service(api, spec, context)
    found = source.find(spec.image, context, command=spec.command)
    if found.engine_id:
        return found.engine_id
    with contextlib.closing(connect(context, timeout_s=LOAD_TIMEOUT_S)) as api:
        return provide_file(api, found, spec, context)


def provide_service(api: APIClient, spec: Spec, context: Context) -> str:
    """Load the lab's own service, unless the engine has this run's copy; returns its tag. Raises LabError."""
    tag = f"{SERVICE_IMAGE}:{_run(spec)}"
    if not layers(api, tag):
        load(api, service_archive(build_service(context.cache_dir), tag=tag, labels=run_labels(spec.labels)))
    return tag


def provide_file(api: APIClient, found: source.Source, spec: Spec, context: Context) -> str:
    """Load a user's file as an image of this run's own, unless the engine has it; returns its tag. Raises LabError."""
    tag = f"stratalab/file-{found.digest.removeprefix('sha256:')[:12]}:{_run(spec)}"
    if not layers(api, tag):
        scratch = partial_folder(context.cache_dir)
        with (
            filling(f"the image {found.reference}", context.cache_dir),
            source.open_source(found, context) as image,
            image.loadable(tag=tag, labels=run_labels(spec.labels), scratch=scratch) as blocks,
        ):
            load(api, blocks)
    return tag


def layers(api: Any, image: str) -> list[str]:
    """The digests of the image's layers; empty when the engine has no such image. Raises DriverError."""
    import docker.errors

    with translated(f"inspect the image '{image}'"):
        try:
            return list(api.inspect_image(image)["RootFS"].get("Layers", ()))
        except docker.errors.ImageNotFound:
            return []


def layer_directories(api: Any, image: str) -> list[Path]:
    """Where overlay2 keeps the image's layers on this host. Raises DriverError, and Unsupported for another store."""
    with translated(f"inspect the image '{image}'"):
        data = (api.inspect_image(image).get("GraphDriver") or {}).get("Data") or {}
    if "UpperDir" not in data:
        raise Unsupported(
            "Docker does not tell where it keeps the image's layers", resolution="use the storage driver overlay2"
        )
    return [Path(path) for path in [data["UpperDir"], *filter(None, data.get("LowerDir", "").split(":"))]]


def remnants(api: Any, labels: Mapping[str, str]) -> list[Remnant]:
    """The names that the lab gave to images which bear `labels`, and images of the lab's without any name.

    An engine knows equal bytes as one image, under every name and label that it has: what a user has tagged stays, and
    so does what a user built on an image of the lab's, which inherits its labels. Raises DriverError.
    """
    with translated("list images"):
        listed = api.images(filters={"label": label_filter(labels)})
    found: list[Remnant] = []
    for one in listed:
        own = one["Labels"] or {}
        names = [name for name in one.get("RepoTags") or () if name != _NAMELESS]
        if not names and not one.get("ParentId"):  # its load was broken off
            names = [one["Id"]]
        found += [
            Remnant("image", name, own, api.remove_image) for name in names if name == one["Id"] or _is_own(name, own)
        ]
    return [one for one in found if bears(one.labels, labels)]


def _is_own(name: str, labels: Mapping[str, str]) -> bool:
    """Whether `name` is one that `provide` gave for the run in `labels`; podman puts a registry before it."""
    repository, _, tag = name.rpartition(":")
    return tag == labels.get("lab.run") and bool(_OWN_REPOSITORY.search(repository))


def load(api: Any, archive: bytes | Iterator[bytes]) -> None:
    """Load a docker-archive. Raises DriverError."""
    with translated("load the image"):
        problems = [told["error"] for told in api.load_image(archive) or () if "error" in told]
    if problems:
        raise DriverError(f"Docker could not load the image: {problems[0]}")


def _run(spec: Spec) -> str:
    return spec.labels.get("lab.run", "none")
