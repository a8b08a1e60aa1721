"""Images of one run: the lab's own service, and a user's image from a file, a registry or the engine itself."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from drivers.dockerapi.client import LOAD_TIMEOUT_S, connect, label_filter
from drivers.dockerapi.container import Remnant
from drivers.dockerapi.errors import translated
from lab.driver import Context, bears
from lab.errors import BadInput, DriverError, Unsupported
from lab.image import service_archive
from lab.service.build import build_service
from lab.spec import SERVICE_IMAGE, Spec

if TYPE_CHECKING:
    from docker import APIClient

_NAMELESS = "<none>:<none>"
_OWN_REPOSITORY = re.compile(r"(?:^|/)stratalab/(?:service|file-[0-9a-f]{12})$")


def run_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of an image: all but those of one target or launch, since a run's Docker targets share it."""
    return {key: value for key, value in labels.items() if key not in ("lab.target", "lab.launch")}


def is_file(image: str) -> bool:
    """Whether a user's `image` names a file and not a reference. Raises BadInput for the path of none."""
    path = Path(image)
    if image.startswith(("/", "./", "../", "~/")) and not path.is_file():
        raise BadInput(f"there is no file {image}", resolution="give the path of a `docker save` file, or a reference")
    return path.is_file()


def provide(context: Context, spec: Spec) -> str:
    """Make sure that the engine has the image of `spec`: the lab's own service, a file that `docker save` wrote, one
    that it has, or else its registry's. Returns what the engine knows it by. Raises LabError."""
    with contextlib.closing(connect(context, timeout_s=LOAD_TIMEOUT_S)) as api:
        if spec.builtin:
            return provide_service(api, spec, context)
        if is_file(spec.image):
            return provide_file(api, spec, context)
        if not layers(api, spec.image):
            pull(api, spec.image)
    return spec.image


def provide_service(api: APIClient, spec: Spec, context: Context) -> str:
    """Load the lab's own service, unless the engine has this run's copy; returns its tag. Raises LabError."""
    tag = f"{SERVICE_IMAGE}:{_run(spec)}"
    if not layers(api, tag):
        load(api, service_archive(build_service(context.cache_dir), tag=tag, labels=run_labels(spec.labels)))
    return tag


def provide_file(api: APIClient, spec: Spec, context: Context) -> str:
    """Load a user's file as an image of this run's own, unless the engine has it; returns its tag. Raises LabError."""
    path = Path(spec.image)
    status = path.stat()
    identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    tag = f"stratalab/file-{hashlib.sha256(identity.encode()).hexdigest()[:12]}:{_run(spec)}"
    if not layers(api, tag):
        copy = context.run_dir / "image.tar"
        copy.touch(mode=0o600)  # before it has content: the image may hold files that are not for all
        try:
            relabel(path, copy, tag=tag, labels=run_labels(spec.labels))
            with copy.open("rb") as archive:
                load(api, archive)
        finally:
            copy.unlink(missing_ok=True)
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


def load(api: Any, archive: bytes | IO[bytes]) -> None:
    """Load a docker-archive. Raises DriverError."""
    with translated("load the image"):
        problems = [told["error"] for told in api.load_image(archive) or () if "error" in told]
    if problems:
        raise DriverError(f"Docker could not load the image: {problems[0]}")


def pull(api: APIClient, reference: str) -> None:
    """Fetch `reference` from its registry. It stays with the engine afterwards, as after `docker pull`. Raises
    DriverError."""
    import docker.errors

    name, tag = _split(reference)
    try:
        with translated(f"pull the image '{reference}'"):
            for told in api.pull(name, tag=tag, stream=True, decode=True):
                if "error" in told:
                    raise docker.errors.ImageNotFound(told["error"], explanation=told["error"])
    except DriverError as error:
        raise DriverError(
            f"the image '{reference}' is not here, and {error.brief}",
            details=error.details,
            resolution=error.resolution or "name an image of `docker images`, or the path of a `docker save` file",
        ) from error


def relabel(path: Path, target: Path, *, tag: str, labels: Mapping[str, str]) -> None:
    """Write to `target` the image of the docker-archive at `path`, named `tag` and with `labels` beside its own, so
    that what a run brought into the engine is found and removed by label. Its layers are the same bytes.

    Raises BadInput, Unsupported.
    """
    try:
        with tarfile.open(path) as source, tarfile.open(target, "w") as out:
            entry = _only_image(source, path)
            config = json.load(_content(source, entry["Config"]))
            section = config.setdefault("config", {})
            section["Labels"] = {**(section.get("Labels") or {}), **labels}
            _add(out, "config.json", json.dumps(config).encode())
            _add(out, "manifest.json", json.dumps([{**entry, "Config": "config.json", "RepoTags": [tag]}]).encode())
            for name in dict.fromkeys(entry["Layers"]):
                content = _content(source, name)
                info = tarfile.TarInfo(name)
                info.size = content.seek(0, io.SEEK_END)
                content.seek(0)
                out.addfile(info, content)
    except (tarfile.TarError, ValueError, KeyError, EOFError, OSError) as error:
        raise BadInput(
            f"{path} cannot be read as an image: {error}", resolution="give a file that `docker save` wrote"
        ) from error


def _run(spec: Spec) -> str:
    return spec.labels.get("lab.run", "none")


def _only_image(source: tarfile.TarFile, path: Path) -> dict[str, Any]:
    names = source.getnames()
    if "manifest.json" not in names:
        raise Unsupported(
            f"{path} is no docker-archive: it has no manifest.json", resolution="write it with `docker save`"
        )
    manifest = json.load(_content(source, "manifest.json"))
    if len(manifest) != 1:
        raise BadInput(f"{path} holds {len(manifest)} images", resolution="save one image into the file")
    entry: dict[str, Any] = manifest[0]
    return entry


def _content(source: tarfile.TarFile, name: str) -> IO[bytes]:
    content = source.extractfile(name)  # follows the links with which older engines write a layer that is there twice
    if content is None:
        raise ValueError(f"'{name}' is no file")
    return content


def _add(out: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    out.addfile(info, io.BytesIO(content))


def _split(reference: str) -> tuple[str, str | None]:
    """The name and the tag that the pull call takes; 'latest' where none is given, and digests stay with the name."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    head, colon, tag = reference.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (reference, "latest")
