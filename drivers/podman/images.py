"""Images of one run in Podman's own store: the lab's service, and a user's image from where the run takes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drivers.dockerapi.surroundings import Tmp, tmp_in
from drivers.podman.api import Api, run_label
from drivers.podman.errors import translated
from lab.driver import Context, bears
from lab.errors import CleanupError, DriverUnavailable, Unsupported
from lab.image import process, service_archive, source
from lab.image.config import volumes_of
from lab.service.build import build_service
from lab.spec import SERVICE_IMAGE, Spec
from lab.store.place import filling, partial_folder

_OWN = re.compile(r"localhost/stratalab/(?:service|file-[0-9a-f]{12})")


class OwnImage:
    """A name that the lab gave to an image in Podman's store, or an image of the lab's without any."""

    kind = "image"

    def __init__(self, api: Api, name: str, labels: Mapping[str, str]) -> None:
        self.id = name
        self.labels = labels
        self._api = api

    def delete(self) -> None:
        """Remove it; Podman answers when it is gone. Raises CleanupError."""
        with translated(f"remove the image {self.id}", CleanupError):
            if self._api.image(self.id) is not None:
                self._api.remove_image(self.id)


def provide(api: Api, spec: Spec, context: Context) -> str:
    """Make sure that Podman has the image of `spec`: the lab's own service, a file's, the run's Docker engine's; and
    where there is no such engine, one that Podman has, or else its registry's. Returns what Podman knows it by. Raises
    LabError."""
    if spec.builtin:
        return _provide_service(api, spec, context)
    try:
        found = source.find(spec.image, context, command=spec.command)
    except DriverUnavailable:
        if source.is_path(spec.image):
            raise
        return _provide_own(api, spec.image, context)
    return _provide_found(api, found, spec, context)


def layers(api: Api, image: str) -> list[str]:
    """The digests of its layers; empty where Podman has no such image. Raises DriverError."""
    with translated(f"inspect the image '{image}'"):
        told = api.image(image) or {}
    return list((told.get("RootFS") or {}).get("Layers") or ())


def layer_directories(api: Api, image: str) -> list[Path]:
    """Where overlay keeps its layers on this host. Raises DriverError, and Unsupported for another store."""
    with translated(f"inspect the image '{image}'"):
        told = api.image(image) or {}
    data = (told.get("GraphDriver") or {}).get("Data") or {}
    if "UpperDir" not in data:
        raise Unsupported(
            "Podman does not tell where it keeps the image's layers", resolution="use the storage driver overlay"
        )
    return [Path(path) for path in [data["UpperDir"], *filter(None, data.get("LowerDir", "").split(":"))]]


def remnants(api: Api, labels: Mapping[str, str]) -> list[OwnImage]:
    """The names that the lab gave to images which bear `labels`; what a user has named, or built on one, stays. Raises
    DriverError."""
    with translated("list images"):
        listed = api.images(run_label(labels))
    found: list[OwnImage] = []
    for one in listed:
        own = one.get("Labels") or {}
        names = one.get("RepoTags") or ()
        mine = [name for name in names if _is_own(name, own)]
        found += [OwnImage(api, name, own) for name in (mine if names or one.get("ParentId") else [one["Id"]])]
    return [one for one in found if bears(one.labels, labels)]


def tmp_of(api: Api, image: str, spec: Spec) -> Tmp:
    """What `image` has at /tmp, asked by way of a container that is never started. Raises DriverError."""
    if spec.builtin:
        return Tmp.NOTHING
    import podman.errors

    with translated(f"look into the image '{image}'"):
        told = api.image(image) or {}
        if process.has_own_tmp(volumes_of((told.get("Config") or {}).get("Volumes") or ())):
            return Tmp.OWN
        made = api.create(
            {"image": image, "command": ["/never-started"], "labels": dict(spec.for_launch().labels)},
        )
        try:
            return tmp_in(*api.client.containers.get(made).get_archive(process.TMP))
        except podman.errors.NotFound:
            return Tmp.NOTHING
        finally:
            api.remove(made)


def _provide_service(api: Api, spec: Spec, context: Context) -> str:
    tag = f"localhost/{SERVICE_IMAGE}:{_run(spec)}"
    if not layers(api, tag):
        _load(api, service_archive(build_service(context.cache_dir), tag=tag, labels=_labels(spec)))
    return tag


def _provide_found(api: Api, found: source.Source, spec: Spec, context: Context) -> str:
    tag = f"localhost/stratalab/file-{found.digest.removeprefix('sha256:')[:12]}:{_run(spec)}"
    if not layers(api, tag):
        scratch = partial_folder(context.cache_dir)
        with (
            filling(f"the image {found.reference}", context.cache_dir),
            source.open_source(found, context) as image,
            image.loadable(tag=tag, labels=_labels(spec), scratch=scratch) as blocks,
        ):
            _load(api, blocks)
    return tag


def _provide_own(api: Api, reference: str, context: Context) -> str:
    with translated(f"get the image '{reference}'"):
        if api.image(reference) is None:
            context.say(f"Podman has no image '{reference}': pulling it")
            api.client.images.pull(reference)
        told = api.image(reference) or {}
    return str(told.get("Id") or reference)


def _load(api: Api, archive: Any) -> None:
    with translated("load the image"):
        api.load(archive)


def _labels(spec: Spec) -> dict[str, str]:
    """Of an image: all but those of one target or launch, since a run's targets by Podman share it."""
    return {key: value for key, value in spec.labels.items() if key not in ("lab.target", "lab.launch")}


def _is_own(name: str, labels: Mapping[str, str]) -> bool:
    repository, _, tag = name.rpartition(":")
    return tag == labels.get("lab.run") and bool(_OWN.fullmatch(repository))


def _run(spec: Spec) -> str:
    return spec.labels.get("lab.run", "none")
