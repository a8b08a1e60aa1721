"""Images written as docker-archives, the one form that every engine loads."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lab.image.archive import Contents, machine_architecture

_BLOCK = tarfile.BLOCKSIZE
_COPY_BYTES = 1024 * 1024


def service_archive(
    binary: Path,
    *,
    tag: str,
    labels: Mapping[str, str],
    entrypoint: Sequence[str] = ("/service",),
    beside: Mapping[str, Path] | None = None,
) -> bytes:
    """The one-layer image of the service `binary`, in the form of `docker save`: the same bytes for the same input.

    It holds /service, an empty /tmp, and the programs `beside` it by their names in its root. Raises OSError when one
    cannot be read.
    """
    programs = {"service": binary, **(beside or {})}
    content = [(name, path.read_bytes(), 0o755) for name, path in programs.items()]
    layer = _tar([("tmp", None, 0o1777), *content])
    config = {
        "architecture": machine_architecture(),
        "config": {"Entrypoint": list(entrypoint), "Labels": dict(sorted(labels.items())), "WorkingDir": "/"},
        "created": "1970-01-01T00:00:00Z",
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "lab"}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    config_json = _json(config)
    config_name = f"{hashlib.sha256(config_json).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}]
    return _tar(
        [(config_name, config_json, 0o644), ("layer.tar", layer, 0o644), ("manifest.json", _json(manifest), 0o644)]
    )


def plain_blocks(contents: Contents, *, tags: Sequence[str]) -> Iterator[bytes]:
    """The image as it is, as a docker-archive with uncompressed layers, piece by piece. Raises OSError."""
    return _blocks(contents.config, contents.layers, tags)


def labelled_blocks(
    contents: Contents, rewritten: Mapping[int, IO[bytes]], *, tag: str, labels: Mapping[str, str]
) -> Iterator[bytes]:
    """The image named `tag` and with `labels` beside its own, so that what a run brought into an engine is found and
    removed by label; its layers are the same bytes, but for the `rewritten` ones, by their place."""
    config = json.loads(contents.config)
    section = config.get("config") or {}
    config["config"] = {**section, "Labels": {**(section.get("Labels") or {}), **labels}}
    layers = [rewritten.get(index, layer) for index, layer in enumerate(contents.layers)]
    for index in rewritten:
        config["rootfs"]["diff_ids"][index] = f"sha256:{_sha256_of(layers[index])}"
    return _blocks(_json(config), layers, [tag])


def temporary_file(folder: Path) -> IO[bytes]:
    """A nameless file in `folder`, gone once closed. Raises OSError."""
    return tempfile.TemporaryFile(dir=folder)


def _blocks(config: bytes, layers: Sequence[IO[bytes]], tags: Sequence[str]) -> Iterator[bytes]:
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"{index}/layer.tar" for index in range(len(layers))]
    manifest = _json([{"Config": config_name, "RepoTags": list(tags) or None, "Layers": names}])
    for name, content in ((config_name, config), ("manifest.json", manifest)):
        yield _header(name, len(content)) + content + b"\0" * (-len(content) % _BLOCK)
    for name, layer in zip(names, layers, strict=True):
        size = layer.seek(0, io.SEEK_END)
        layer.seek(0)
        yield _header(name, size)
        while block := layer.read(_COPY_BYTES):
            yield block
        yield b"\0" * (-size % _BLOCK)
    yield b"\0" * (2 * _BLOCK)


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def _sha256_of(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(_COPY_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _tar(files: Sequence[tuple[str, bytes | None, int]]) -> bytes:
    """A tar of files and, where the content is None, directories: root's, of 1970."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content, mode in files:
            member = tarfile.TarInfo(name)
            member.mode = mode
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
