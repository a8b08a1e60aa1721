"""The two forms in which images travel as one tar file: what `docker save` writes, and an OCI layout.

Docker: https://github.com/moby/moby/blob/v26.1.0/image/spec/spec.md
OCI: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import platform
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from lab.errors import BadInput, Unsupported

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_COPY_BYTES = 1024 * 1024
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_MAX_JSON_BYTES = 16 * 1024 * 1024
_MAX_NESTED_INDEXES = 3
_RESOLUTION = "make one with `docker save -o FILE IMAGE`"


def machine_architecture() -> str:
    """This machine's architecture as images name it: `amd64`, `arm64`, ..."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def read_archive(path: Path, files: contextlib.ExitStack) -> tuple[dict[str, Any], list[IO[bytes]]]:
    """The image config and the uncompressed layers, lowest first, of the archive at `path`, each digest checked.

    What has to stay open while the layers are read is put on `files`. Raises BadInput, Unsupported.
    """
    try:
        plain = _decompressed(files.enter_context(path.open("rb")), str(path), files)
        with tarfile.open(fileobj=plain, mode="r:") as outer:
            config, names = _manifest(outer)
            diff_ids = config["rootfs"]["diff_ids"]
            if len(diff_ids) != len(names):
                raise BadInput(f"{path} names {len(names)} layers and {len(diff_ids)} digests for them")
            layers = [_decompressed(_member(outer, name), name, files) for name in names]
        for layer, diff_id, name in zip(layers, diff_ids, names, strict=True):
            _check(_digest(layer), diff_id.removeprefix("sha256:"), name)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path} is not a readable image archive: {error}", resolution=_RESOLUTION) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadInput(
            f"{path} describes its image in a way that is not understood",
            details=f"{type(error).__name__}: {error}",
            resolution=_RESOLUTION,
        ) from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    return config, layers


def _manifest(outer: tarfile.TarFile) -> tuple[dict[str, Any], list[str]]:
    """The config and the names of the layers, lowest first, by manifest.json or else by the OCI index."""
    names = set(outer.getnames())
    if "manifest.json" in names:
        manifests = json.loads(_small(outer, "manifest.json"))
        if len(manifests) != 1:
            raise BadInput(f"the archive holds {len(manifests)} images", resolution="save one image into the file")
        name = manifests[0]["Config"]
        content = _small(outer, name)
        digest = name.removesuffix(".json").rpartition("/")[2]
        if re.fullmatch("[0-9a-f]{64}", digest):
            _check(hashlib.sha256(content).hexdigest(), digest, name)
        return _object(content), list(manifests[0]["Layers"])
    if "index.json" in names:
        manifest = _choose(outer, _object(_small(outer, "index.json")), depth=0)
        layer_names = [_blob_name(layer["digest"]) for layer in manifest["layers"]]
        return _object(_blob(outer, manifest["config"])), layer_names
    raise BadInput("the file holds neither a manifest.json nor an index.json", resolution=_RESOLUTION)


def _choose(outer: tarfile.TarFile, index: dict[str, Any], *, depth: int) -> dict[str, Any]:
    """The manifest for this machine in an OCI index, nested ones followed."""
    descriptors = [
        entry
        for entry in index["manifests"]
        if entry.get("platform", {}).get("architecture", machine_architecture()) == machine_architecture()
    ]
    if len(descriptors) != 1 or depth > _MAX_NESTED_INDEXES:
        raise BadInput(
            f"the archive holds {len(descriptors)} images for {machine_architecture()}",
            resolution="save one image, for this machine, into the file",
        )
    found = _object(_blob(outer, descriptors[0]))
    return _choose(outer, found, depth=depth + 1) if "manifests" in found else found


def _blob(outer: tarfile.TarFile, descriptor: Mapping[str, Any]) -> bytes:
    name = _blob_name(descriptor["digest"])
    content = _small(outer, name)
    _check(hashlib.sha256(content).hexdigest(), descriptor["digest"].removeprefix("sha256:"), name)
    return content


def _blob_name(digest: str) -> str:
    if not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        raise BadInput(f"'{digest}' is not a SHA-256 digest")
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _small(outer: tarfile.TarFile, name: str) -> bytes:
    content = _member(outer, name).read(_MAX_JSON_BYTES + 1)
    if len(content) > _MAX_JSON_BYTES:
        raise BadInput(f"'{name}' in the archive is too large to be a description")
    return content


def _member(outer: tarfile.TarFile, name: str) -> IO[bytes]:
    try:
        file = outer.extractfile(name)  # follows the links by which `docker save` shares equal layers
    except KeyError:
        file = None
    if file is None:
        raise BadInput(f"the archive lacks '{name}', which its manifest names")
    return file


def _object(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise BadInput("a description in the archive is not a JSON object")
    return value


def _decompressed(file: IO[bytes], name: str, files: contextlib.ExitStack) -> IO[bytes]:
    """`file` itself when it is not compressed, else a temporary file of its content, which has no name."""
    magic = file.read(4)
    file.seek(0)
    if magic == _ZSTD:
        raise Unsupported(
            f"'{name}' is compressed with zstd, which is not read here",
            resolution="docker pull the image and docker save it, which writes plain layers",
        )
    if magic[:2] != _GZIP:
        return file
    plain = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - ruff does not see the stack
    with gzip.GzipFile(fileobj=file) as source:
        shutil.copyfileobj(source, plain, _COPY_BYTES)
    plain.seek(0)
    return plain


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(_COPY_BYTES):
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()


def _check(found: str, wanted: str, name: str) -> None:
    if found != wanted:
        raise BadInput(
            f"'{name}' in the image archive is damaged: its SHA-256 is not the one written for it",
            details=f"found {found}, wanted {wanted}",
            resolution="save the image again",
        )
