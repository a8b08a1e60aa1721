"""Images for tests, made entry by entry: layers with what tar writers do, and the archives that builders write."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.image.archive import machine_architecture

Member = tuple[tarfile.TarInfo, bytes]
Blob = tuple[str, bytes]


def member(name: str, content: bytes = b"", **fields: Any) -> Member:
    """A file, or with `type` anything else; `xattrs` holds bytes by name, `pax` further records."""
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    xattrs: Mapping[str, bytes] = fields.pop("xattrs", {})
    info.pax_headers = {
        **{f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in xattrs.items()},
        **fields.pop("pax", {}),
    }
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def directory(name: str, **fields: Any) -> Member:
    return member(name, **{"type": tarfile.DIRTYPE, "mode": 0o755, **fields})


def symlink(name: str, target: str, **fields: Any) -> Member:
    return member(name, **{"type": tarfile.SYMTYPE, "linkname": target, "mode": 0o777, **fields})


def hardlink(name: str, target: str, **fields: Any) -> Member:
    return member(name, **{"type": tarfile.LNKTYPE, "linkname": target, **fields})


def layer(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def config_json(layers: Sequence[bytes], *, platform: Mapping[str, str] | None = None, **run: Any) -> bytes:
    """An image's config for the uncompressed `layers`; `run` is its "config" section."""
    return json.dumps(
        {
            **(platform or {"architecture": machine_architecture(), "os": "linux"}),
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(content)}" for content in layers]},
        }
    ).encode()


def docker_archive(
    layers: Sequence[bytes],
    *,
    tags: Sequence[str] = ("made/image:1",),
    compress: Callable[[bytes], bytes] = bytes,
    prefix: str = "",
    platform: Mapping[str, str] | None = None,
    **run: Any,
) -> bytes:
    """What `docker save` writes; `prefix` such as './' stands before every name."""
    config = config_json(layers, platform=platform, **run)
    names = [f"{index}/layer.tar" for index in range(len(layers))]
    manifest = [{"Config": f"{sha256(config)}.json", "RepoTags": list(tags), "Layers": names}]
    blobs = [compress(content) for content in layers]
    files = {f"{sha256(config)}.json": config, "manifest.json": json.dumps(manifest).encode()}
    return files_tar({**files, **dict(zip(names, blobs, strict=True))}, prefix=prefix)


def files_tar(files: Mapping[str, bytes], *, prefix: str = "") -> bytes:
    return layer(*(member(prefix + name, content) for name, content in files.items()))


class Layout:
    """An OCI image layout, built blob by blob."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(self, content: bytes, **more: Any) -> dict[str, Any]:
        """Add a blob; returns its descriptor."""
        self.files[f"blobs/sha256/{sha256(content)}"] = content
        return {"digest": f"sha256:{sha256(content)}", "size": len(content), **more}

    def image(
        self,
        layers: Sequence[bytes],
        *,
        compress: Callable[[bytes], bytes] = gzip.compress,
        platform: Mapping[str, str] | None = None,
        told: bool = True,
        **run: Any,
    ) -> dict[str, Any]:
        """Add an image; returns its manifest's descriptor, which names the platform unless `told` is false."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(
                config_json(layers, platform=platform, **run), mediaType="application/vnd.oci.image.config.v1+json"
            ),
            "layers": [
                self.blob(compress(content), mediaType="application/vnd.oci.image.layer.v1.tar") for content in layers
            ],
        }
        here = platform or {"architecture": machine_architecture(), "os": "linux"}
        named: dict[str, Any] = {"platform": dict(here)} if told else {}
        return self.blob(json.dumps(manifest).encode(), mediaType=manifest["mediaType"], **named)

    def index(self, *descriptors: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Add an index as a blob; returns its descriptor."""
        return self.blob(_index(descriptors), mediaType="application/vnd.oci.image.index.v1+json", **more)

    def tar(self, *descriptors: Mapping[str, Any], prefix: str = "") -> bytes:
        """The layout in a tar, its index.json of `descriptors`."""
        return files_tar({**self.files, "index.json": _index(descriptors)}, prefix=prefix)

    def write(self, folder: Path, *descriptors: Mapping[str, Any]) -> Path:
        """The layout as a directory."""
        for name, content in {**self.files, "index.json": _index(descriptors)}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder


def _index(descriptors: Sequence[Mapping[str, Any]]) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": [dict(one) for one in descriptors]}).encode()
