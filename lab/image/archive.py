"""The forms in which images travel: what `docker save` writes, and an OCI layout, each as a directory or in a tar.

The tar may be compressed, and its names may begin with `./`; so docker, podman, buildah, skopeo, umoci, kaniko, ko,
Bazel and buildx write them.
Docker: https://github.com/moby/moby/blob/v26.1.0/image/spec/spec.md
OCI: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from lab.errors import BadInput
from lab.image import compression
from lab.image.layers import LayerTar
from lab.image.platform import Platform, emulator_of, host_platforms, machine_architecture, rank
from lab.store.place import FULL

__all__ = ["Contents", "machine_architecture", "read_archive"]

_COPY_BYTES = 1024 * 1024
_MAX_JSON_BYTES = 16 * 1024 * 1024
_MAX_NESTED_INDEXES = 8
_MAX_LINKS = 40
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})(?:\.json)?")
_RESOLUTION = "make one with `docker save -o FILE IMAGE`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """An image as it was written: `config` are the very bytes whose SHA-256 engines know it by, `layers` the
    uncompressed ones, lowest first. `plain` where every engine loads the archive as it stands."""

    config: bytes
    layers: Sequence[IO[bytes]]
    names: Sequence[str]
    plain: bool

    @property
    def digest(self) -> str:
        """`sha256:…` of the config."""
        return f"sha256:{hashlib.sha256(self.config).hexdigest()}"


class _Files(Protocol):
    """Files by name, of a tar or a directory."""

    def open(self, name: str) -> IO[bytes] | None: ...


def read_archive(path: Path, files: contextlib.ExitStack, *, scratch: Path | None = None) -> Contents:
    """The image for this machine in the archive or directory at `path`, each digest checked.

    What has to stay open while the layers are read is put on `files`; what has to be decompressed goes to nameless
    files in `scratch`, by default where temporary files go. Raises BadInput, and OSError where those cannot be written.
    """
    with _told(path):
        found, in_tar = _opened(path, files, scratch)
        config, names, tags, docker = _manifest(found)
        diff_ids = _object(config)["rootfs"]["diff_ids"]
        if len(diff_ids) != len(names):
            raise BadInput(f"{path} names {len(names)} layers and {len(diff_ids)} digests for them")
        layers, compressed = [], False
        for name, diff_id in zip(names, diff_ids, strict=True):
            raw = files.enter_context(_required(found, name))
            if compression.is_compressed(raw):
                compressed = True
                raw = _plain_copy(raw, files, scratch)
            _check(_digest(raw), _hex(str(diff_id)), name)
            layers.append(raw)
    return Contents(config=config, layers=layers, names=tags, plain=docker and in_tar and not compressed)


def _opened(path: Path, files: contextlib.ExitStack, scratch: Path | None) -> tuple[_Files, bool]:
    """The files in `path`, and whether it is an uncompressed tar."""
    if path.is_dir():
        return _Folder(path), False
    file: IO[bytes] = files.enter_context(path.open("rb"))
    compressed = compression.is_compressed(file)
    if compressed:
        file = _plain_copy(file, files, scratch)
    return _Tar(files.enter_context(LayerTar(file))), not compressed


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, name: str) -> IO[bytes] | None:
        if ".." in name.split("/"):
            return None
        try:
            # Not blocking, since a FIFO would wait for a writer.
            file = os.fdopen(os.open(self._path / name.lstrip("/"), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
        return None


class _Tar:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = {_clean(member.name): member for member in archive}

    def open(self, name: str) -> IO[bytes] | None:
        """Follows the links by which engines share equal layers."""
        wanted = _clean(name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(wanted)
            if member is None:
                return None
            if member.issym():
                wanted = _clean(posixpath.join(posixpath.dirname(wanted), member.linkname))
            elif member.islnk():
                wanted = _clean(member.linkname)
            else:
                return self._archive.extractfile(member)
        return None


def _clean(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")


def _manifest(found: _Files) -> tuple[bytes, list[str], list[str], bool]:
    """The config, the names of the layers, lowest first, the image's own names, and whether the form is Docker's.

    A file that has both forms (Docker 25 and later, buildx) is read by its manifest.json, as `docker load` reads it;
    by its index where that tells of no image for this machine.
    """
    has_index = _small(found, "index.json")
    if (text := _small(found, "manifest.json")) is not None:
        entries = json.loads(text)
        if isinstance(entries, dict):  # skopeo's `dir:`, one manifest and its blobs side by side
            config = _required_small(found, _hex(entries["config"]["digest"]))
            _check(_sha256(config), _hex(entries["config"]["digest"]), "the config")
            return config, [_hex(one["digest"]) for one in entries["layers"]], [], False
        if entries or has_index is None:
            return _docker_choice(found, entries)
    if has_index is not None:
        config, layers, tags = _oci_choice(found, _object(has_index))
        return config, layers, tags, False
    raise BadInput("it holds neither a manifest.json nor an index.json", resolution=_RESOLUTION)


def _docker_choice(found: _Files, entries: Sequence[Mapping[str, Any]]) -> tuple[bytes, list[str], list[str], bool]:
    by_config: dict[bytes, tuple[list[str], list[str]]] = {}
    for entry in entries:
        config = _required_small(found, entry["Config"])
        digest = _DIGEST.fullmatch(posixpath.basename(entry["Config"]))
        if digest:
            _check(_sha256(config), digest[1], entry["Config"])
        _, tags = by_config.setdefault(config, ([str(name) for name in entry["Layers"]], []))
        tags += [str(tag) for tag in entry.get("RepoTags") or () if tag not in tags]
    if len(by_config) > 1:  # several images; several platforms of one are told apart by what they are for
        ranked = {config: _rank(_object(config)) for config in by_config}
        fitting = [config for config, ranked_as in ranked.items() if ranked_as is not None]
        same_names = len({tuple(tags) for _, tags in by_config.values()}) == 1
        if len(fitting) != 1 and not (fitting and same_names):
            raise _several([tags[0] if tags else "" for _, tags in by_config.values()])
        by_config = {config: by_config[config] for config in sorted(fitting, key=lambda one: ranked[one] or 0)[:1]}
    if not by_config:
        raise BadInput("it holds no image", resolution=_RESOLUTION)
    ((config, (layers, tags)),) = by_config.items()
    return config, layers, tags, True


def _oci_choice(found: _Files, index: Mapping[str, Any]) -> tuple[bytes, list[str], list[str]]:
    """By containerd's rules (core/images/image.go, `Manifest`): descriptors that tell of this machine first, the best
    match of them, and of equal ones the first; those without a platform are judged by their config."""
    images = _images_of(found, index, depth=0)
    if not images:
        raise BadInput("it holds no image", resolution=_RESOLUTION)
    configs = list(dict.fromkeys(name for _, _, _, name in images if name))
    fitting = [image for image in images if image[0] is not None]
    named = {name for _, _, _, name in fitting if name}
    if len(named) > 1 and len({_sha256(manifest) for _, manifest, _, _ in fitting}) > 1:
        raise _several(sorted(named))
    if not fitting:
        # One that is for another machine is judged by the caller, who knows whether it can be run all the same.
        others = sorted({str(Platform.of(_object(config))) for _, _, config, _ in images})
        emulated = [image for image in images if emulator_of(Platform.of(_object(image[2])).architecture)]
        if len(others) > 1 and len(emulated) != 1:
            raise BadInput(
                f"it is for {', '.join(others)}, this host is {machine_architecture()}",
                resolution=f"save one for {host_platforms()[0]} into the file",
            )
        fitting = [(0, *image[1:]) for image in emulated or images]
    _, manifest, config, _ = min(fitting, key=lambda image: image[0] or 0)  # the first of equals
    layers = [_blob_name(layer["digest"]) for layer in _object(manifest)["layers"]]
    return config, layers, configs


_Image = tuple[int | None, bytes, bytes, str]
"""How well this host serves it, its manifest, its config, and the name that the index gives it."""


def _images_of(found: _Files, index: Mapping[str, Any], *, depth: int, name: str = "") -> list[_Image]:
    """Every image of an index and of those in it, in their order; attestations and artifacts are none."""
    if depth > _MAX_NESTED_INDEXES:
        raise BadInput("its indexes are nested too deep")
    images: list[_Image] = []
    for descriptor in index["manifests"]:
        annotations = descriptor.get("annotations") or {}
        told = descriptor.get("platform") or {}
        if "vnd.docker.reference.type" in annotations or told.get("os") == "unknown":
            continue
        own_name = name or annotations.get("io.containerd.image.name") or annotations.get(_REF_NAME) or ""
        if told and rank(Platform.of(told)) is None and not _has(found, descriptor):
            continue  # an archive of one platform may keep the whole index (docker save --platform, nerdctl)
        content = _blob(found, descriptor)
        value = _object(content)
        if "manifests" in value:
            images += _images_of(found, value, depth=depth + 1, name=own_name)
        elif "layers" in value and "config" in value:
            config = _blob(found, value["config"])
            if "rootfs" in (parsed := _object(config)):
                found_rank = _rank(told or parsed)
                if found_rank is not None and not told:
                    found_rank += _UNTOLD  # after all that an index tells of
                images.append((found_rank, content, config, own_name))
    return images


_UNTOLD = 1000
_REF_NAME = "org.opencontainers.image.ref.name"


def _rank(told: Mapping[str, Any]) -> int | None:
    return rank(Platform.of(told))


def _several(names: Sequence[str]) -> BadInput:
    shown = ", ".join(name or "one without a name" for name in names[:5])
    return BadInput(f"it holds {len(names)} images: {shown}", resolution="save one image into the file")


def _has(found: _Files, descriptor: Mapping[str, Any]) -> bool:
    file = found.open(_blob_name(descriptor["digest"]))
    if file is not None:
        file.close()
    return file is not None


def _blob(found: _Files, descriptor: Mapping[str, Any]) -> bytes:
    name = _blob_name(descriptor["digest"])
    content = _required_small(found, name)
    _check(_sha256(content), _hex(descriptor["digest"]), name)
    return content


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{_hex(digest)}"


def _hex(digest: str) -> str:
    found = re.fullmatch("sha256:([0-9a-f]{64})", digest)
    if found is None:
        raise BadInput(f"'{digest}' is not a SHA-256 digest")
    return found[1]


def _small(found: _Files, name: str) -> bytes | None:
    file = found.open(name)
    if file is None:
        return None
    with file:
        content = file.read(_MAX_JSON_BYTES + 1)
    if len(content) > _MAX_JSON_BYTES:
        raise BadInput(f"'{name}' in it is too large to be a description")
    return content


def _required_small(found: _Files, name: str) -> bytes:
    content = _small(found, name)
    if content is None:
        raise BadInput(f"it lacks '{name}', which its manifest names")
    return content


def _required(found: _Files, name: str) -> IO[bytes]:
    file = found.open(name)
    if file is None:
        raise BadInput(f"it lacks '{name}', which its manifest names")
    return file


def _object(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise BadInput("a description in it is not a JSON object")
    return value


def _plain_copy(file: IO[bytes], files: contextlib.ExitStack, scratch: Path | None) -> IO[bytes]:
    """The plain bytes of `file` in a temporary file, which has no name."""
    copy = files.enter_context(tempfile.TemporaryFile(dir=scratch))  # noqa: SIM115 - ruff does not see the stack
    compression.copy_plain(file, copy)
    copy.seek(0)
    return copy


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(_COPY_BYTES):
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check(found: str, wanted: str, name: str) -> None:
    if found != wanted:
        raise BadInput(
            f"'{name}' in it is damaged: its SHA-256 is not the one written for it",
            details=f"found {found}, wanted {wanted}",
            resolution="save the image again",
        )


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What is wrong with an archive, in one line that names it."""
    try:
        yield
    except BadInput as error:
        brief = error.brief if str(path) in error.brief else f"{path} cannot be used as an image: {error.brief}"
        raise BadInput(brief, details=error.details, resolution=error.resolution or _RESOLUTION) from error
    except (tarfile.TarError, *compression.ERRORS) as error:
        raise BadInput(f"{path} is not a readable image archive: {error}", resolution=_RESOLUTION) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise BadInput(
            f"{path} describes its image in a way that is not understood",
            details=f"{type(error).__name__}: {error}",
            resolution=_RESOLUTION,
        ) from error
    except FileNotFoundError as error:
        raise BadInput(f"there is no image {path}", resolution=_RESOLUTION) from error
    except OSError as error:
        if error.errno in FULL:  # not what is read, but where it is unpacked to
            raise
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
