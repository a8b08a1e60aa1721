"""Images on the nodes of the lab's own cluster.

An image there is named by its content and stays until the cluster goes, so that each is loaded once. On any other
cluster an image is a reference that the nodes pull for themselves.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drivers.kubernetes.cluster.kind import Kind
from lab.driver import Context
from lab.errors import BadInput, DriverError, Unsupported
from lab.image import process, service_archive, source
from lab.service.build import build_service
from lab.spec import Spec
from lab.store.place import filling


def provide(kind: Kind, cluster: str, spec: Spec, context: Context, *, registry: str = "docker.io") -> str:
    """Make sure that every node has the image of `spec`, bit by bit; returns its reference, which names `registry`,
    where nobody asks for it. Raises LabError."""
    if spec.builtin:
        binary = build_service(context.cache_dir)
        tag = hashlib.sha256(binary.read_bytes()).hexdigest()[:16]
        reference = f"{registry}/{spec.image}:b{tag}"
        path = context.run_dir / f"image-{tag}.tar"
        path.write_bytes(service_archive(binary, tag=reference, labels={}))
        try:
            _load(kind, cluster, reference, _config_digest(path), path)
        finally:
            path.unlink()
        return reference
    found = source.find(spec.image, context, command=spec.command)
    reference = f"{registry}/stratalab/image:{found.digest.removeprefix('sha256:')[:16]}"
    path = context.run_dir / f"{found.digest.removeprefix('sha256:')[:16]}.tar"
    try:
        with (
            filling(f"the image {spec.image}", context.run_dir),
            source.open_source(found, context) as image,
            image.loadable(tag=reference, labels={}, scratch=context.run_dir) as blocks,
            path.open("xb") as archive,
        ):
            path.chmod(0o600)  # the image may hold files that are not for all
            for block in blocks:
                archive.write(block)
        _load(kind, cluster, reference, _config_digest(path), path)
    finally:
        path.unlink(missing_ok=True)
    return reference


def has_own_tmp(spec: Spec, context: Context) -> bool:
    """Whether the image of `spec`, which the lab brings to its own cluster, has something at /tmp. Raises LabError."""
    if spec.builtin:
        return False
    found = source.find(spec.image, context, command=spec.command)
    with source.open_source(found, context) as image:
        return process.has_own_tmp(image.config.volumes, image.entries())


def foreign_reference(spec: Spec, service: str) -> str:
    """The reference by which the nodes of a foreign cluster pull the image of `spec`; `service` is that of the lab's
    own service, where the user has pushed it. Raises Unsupported."""
    if spec.builtin and service:
        return service
    if spec.builtin:
        raise Unsupported(
            "the lab's own service is in no registry, and only a registry brings an image to a foreign cluster",
            resolution="push it to one, and give --driver-option service-image=REFERENCE (or LAB_SERVICE_IMAGE)",
        )
    if source.is_path(spec.image):
        raise Unsupported(
            f"{spec.image} is a file, and only a registry brings an image to a foreign cluster",
            resolution="push it to a registry, and give its reference",
        )
    return spec.image


def _load(kind: Kind, cluster: str, reference: str, digest: str, archive: Path) -> None:
    """Load `archive`, unless every node has it; verify that each then has."""
    nodes = kind.nodes(cluster)
    if all(kind.image_config(node, reference) == digest for node in nodes):
        return
    kind.load(cluster, archive)
    for node in nodes:
        if kind.image_config(node, reference) != digest:
            raise DriverError(
                f"the image {reference} is missing on the node {node}, or is another there, after it was loaded",
                resolution="lab cluster down, then lab cluster up",
            )


def _config_digest(path: Path) -> str:
    """The digest of the image's config, by which containerd knows it (and which holds its layers' digests)."""
    with _opened(path) as archive:
        config = archive.extractfile(str(_only_image(archive)["Config"]))
        if config is None:
            raise KeyError("Config")
        return f"sha256:{hashlib.sha256(config.read()).hexdigest()}"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The docker-archive at `path`. What is no such raises BadInput, here or inside."""
    try:
        with tarfile.open(path) as archive:
            yield archive
    except (tarfile.TarError, KeyError, ValueError, EOFError, OSError) as error:
        raise BadInput(
            f"{path} cannot be read as an image: {error}", resolution="give a file that `docker save` wrote"
        ) from error


def _only_image(archive: tarfile.TarFile) -> Mapping[str, Any]:
    manifest = archive.extractfile("manifest.json")
    found = json.load(manifest) if manifest else []
    if len(found) != 1:
        raise BadInput(f"the file holds {len(found)} images", resolution="save one image into the file")
    image: Mapping[str, Any] = found[0]
    return image
