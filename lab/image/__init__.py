"""Container images without an engine: the lab's own made, and anyone's read.

`service_archive` makes the image of the lab's service. `fetch_image` finds a user's image, `open_image` reads it
(what `docker save` writes, or an OCI layout in a tar), and `process_of` tells what it would run, as whom and where,
by Docker's rules, so that a virtual machine can run it as a container engine would.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import httpx

from lab.errors import BadInput, DriverUnavailable, Unsupported
from lab.image.archive import machine_architecture, read_archive
from lab.image.layers import Entry, Kind, Layers
from lab.store.place import partial

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What Docker gives a container whose image sets no PATH (moby, `system.DefaultPathEnv`)."""

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
_DEFAULT_SOCKET = "/var/run/docker.sock"
_ENGINE_TIMEOUT_S = 60.0
_COPY_BYTES = 1024 * 1024
_MAX_USERS_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image says of how to run it. `user` is as written: name or number, and perhaps a group."""

    architecture: str
    os: str = "linux"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    working_dir: str = "/"
    exposed_ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "SIGTERM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process as a container engine would start it: `groups` holds `gid` and the supplementary ones."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]


class ImageArchive:
    """An image's config and flattened file system, open until `close`; a context manager."""

    def __init__(self, config: ImageConfig, layers: Layers, files: contextlib.ExitStack) -> None:
        self.config = config
        self._layers = layers
        self._files = files

    def entries(self) -> Iterator[Entry]:
        """Every name but the root's, each directory before what is in it."""
        return iter(self._layers)

    def find(self, path: str) -> Entry | None:
        """What `path` leads to inside the image, symbolic links followed; None when it is not there."""
        return self._layers.find(path)

    def open(self, entry: Entry) -> IO[bytes]:
        """The content of a file, to be read before `close`. Raises BadInput for anything else."""
        return self._layers.open(entry)

    def add_file(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Have root's file of `content` where `path` leads inside the image, whatever stood there."""
        self._layers.add_file(path, content, mode=mode)

    def add_directory(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Have a directory where `path` leads inside the image; one that is there is left as it is."""
        self._layers.add_directory(path, mode=mode, uid=uid, gid=gid)

    def close(self) -> None:
        """Let go of the files. Idempotent."""
        self._files.close()

    def __enter__(self) -> ImageArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def service_archive(binary: Path, *, tag: str, labels: Mapping[str, str]) -> bytes:
    """The one-layer image of the service `binary`, in the form of `docker save`: the same bytes for the same input.

    It holds /service and an empty /tmp. Raises OSError when `binary` cannot be read.
    """
    content = binary.read_bytes()
    layer = _tar([("tmp", None, 0o1777), ("service", content, 0o755)])
    config = {
        "architecture": machine_architecture(),
        "config": {"Entrypoint": ["/service"], "Labels": dict(sorted(labels.items())), "WorkingDir": "/"},
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


def open_image(path: Path) -> ImageArchive:
    """Read the image in the tar file at `path`, checking every digest that the archive tells.

    Raises BadInput for what is no image, holds several, is damaged, or leads out of itself; Unsupported for a
    compression that this Python cannot undo.
    """
    with contextlib.ExitStack() as files:
        config, opened = read_archive(path, files)
        layers = Layers()
        files.callback(layers.close)
        try:
            for layer in opened:
                layers.add(tarfile.open(fileobj=layer, mode="r:"))  # noqa: SIM115 - `layers` closes it
        except (
            tarfile.TarError,
            ValueError,
            OverflowError,
            RecursionError,
        ) as error:  # as tarfile takes hostile headers
            raise BadInput(f"a layer of {path} is not a readable tar: {error}") from error
        return ImageArchive(_config(config), layers, files.pop_all())


def process_of(
    image: ImageArchive, *, command: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> Process:
    """What the image runs by Docker's rules; `command` replaces its command, `environment` adds to its own.

    Raises BadInput when it names no program, or a user or group that it does not have.
    """
    config = image.config
    argv = (*config.entrypoint, *(config.command if command is None else command))
    if not argv:
        raise BadInput("the image names no program to run", resolution="give a command")
    uid, gid, groups, home = resolve_user(image)
    merged = {"PATH": DEFAULT_PATH, **config.environment, **(environment or {})}
    merged.setdefault("HOME", home)
    return Process(argv=argv, environment=merged, cwd=config.working_dir, uid=uid, gid=gid, groups=groups)


def resolve_user(image: ImageArchive) -> tuple[int, int, tuple[int, ...], str]:
    """uid, gid, all groups and home of the image's user, by its own /etc/passwd and /etc/group.

    The rules are those of moby/sys/user `GetExecUser`: a number is always an id, whether the files know it or not; a
    name must be known; supplementary groups only where no group is written. Docker (20.10.18 and later) counts the
    primary group among them. Raises BadInput for an unknown name.
    """
    user, _, group = image.config.user.partition(":")
    user = user or "0"
    passwd = [line for line in _records(image, "/etc/passwd", 7) if _is_id(line[2]) and _is_id(line[3])]
    found = next((line for line in passwd if (line[2] if _is_id(user) else line[0]) == user), None)
    if found is None and not _is_id(user):
        raise BadInput(f"the image's user '{user}' is not in its /etc/passwd")
    uid, gid, home = (int(found[2]), int(found[3]), found[5]) if found else (int(user), 0, "/")
    known = [line for line in _records(image, "/etc/group", 4) if _is_id(line[2])]
    supplementary: list[int] = []
    if group:
        line = next((line for line in known if (line[2] if _is_id(group) else line[0]) == group), None)
        if line is None and not _is_id(group):
            raise BadInput(f"the image's group '{group}' is not in its /etc/group")
        gid = int(line[2]) if line else int(group)
    elif found:
        supplementary = [int(line[2]) for line in known if found[0] in line[3].split(",")]
    return uid, gid, tuple(dict.fromkeys([gid, *supplementary])), home or "/"


def fetch_image(reference: str, cache_dir: Path) -> Path:
    """The archive of the image `reference`: an existing file is taken as it is, else a Docker engine saves it.

    Saved archives are kept in `cache_dir` by image id. Raises BadInput when the engine has no such image, and
    DriverUnavailable when there is no engine to ask.
    """
    given = Path(reference)
    try:
        if given.is_file():
            return given
    except OSError as error:
        raise BadInput(f"'{reference}' cannot be looked at: {error.strerror}") from error
    if not _REFERENCE.fullmatch(reference):
        raise BadInput(f"'{reference}' is neither a file nor an image's name")
    socket_path = engine_socket()
    save_hint = f"docker save -o image.tar {reference}, and give image.tar as the image"
    try:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=socket_path), base_url="http://docker", timeout=_ENGINE_TIMEOUT_S
        ) as engine:
            return _save(engine, reference, cache_dir)
    except httpx.HTTPError as error:
        raise DriverUnavailable(
            f"no Docker engine answers at {socket_path} to give the image '{reference}'",
            details=f"{type(error).__name__}: {error}",
            resolution=f"start Docker, or elsewhere {save_hint}",
        ) from error


def _save(engine: httpx.Client, reference: str, cache_dir: Path) -> Path:
    url = f"/images/{quote(reference, safe='/:@')}"
    answer = engine.get(f"{url}/json")
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise BadInput(
            f"the Docker engine has no image '{reference}'",
            resolution=f"docker pull {reference}, or give a file made by `docker save`",
        )
    answer.raise_for_status()
    path = cache_dir / "images" / f"{answer.json()['Id'].removeprefix('sha256:')}.tar"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial(cache_dir, "image.tar") as part:
        part.touch(mode=0o600)  # the image may hold files that are not for all
        with part.open("wb") as file, engine.stream("GET", f"{url}/get") as saved:
            saved.raise_for_status()
            for block in saved.iter_bytes(_COPY_BYTES):
                file.write(block)
        part.replace(path)
    return path


def engine_socket() -> str:
    """The path of the Docker engine's socket that images are saved from. Raises Unsupported for another host's."""
    host = os.environ.get("DOCKER_HOST", "")
    if not host:
        return _DEFAULT_SOCKET
    if not host.startswith("unix://"):
        raise Unsupported(
            f"images are saved from a Docker engine on this host only, and DOCKER_HOST is '{host}'",
            resolution="docker save -o image.tar IMAGE, and give image.tar as the image",
        )
    return host.removeprefix("unix://")


def _config(config: Mapping[str, Any]) -> ImageConfig:
    run = config.get("config") or {}
    if not all(isinstance(variable, str) for variable in run.get("Env") or ()):
        raise BadInput("the image's environment is not a list of words")
    pairs = [variable.partition("=") for variable in run.get("Env") or ()]
    return ImageConfig(
        architecture=str(config.get("architecture", "")),
        os=str(config.get("os", "linux")),
        entrypoint=_words(run.get("Entrypoint")),
        command=_words(run.get("Cmd")),
        environment={key: value for key, _, value in pairs},
        user=str(run.get("User") or ""),
        working_dir=str(run.get("WorkingDir") or "/"),
        exposed_ports=tuple(run.get("ExposedPorts") or ()),
        labels=dict(run.get("Labels") or {}),
        stop_signal=str(run.get("StopSignal") or "SIGTERM"),
    )


def _words(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    raise BadInput("the image's entrypoint or command is not a list of words")


def _is_id(text: str) -> bool:
    """Whether it is a number that a user or a group can have (Linux has 32 bits for one)."""
    return text.isdecimal() and len(text) <= 10 and int(text) < 2**32 - 1


def _records(image: ImageArchive, path: str, fields: int) -> list[list[str]]:
    """The colon-separated lines of a file of the image, each filled up to `fields`; none when there is no file."""
    entry = image.find(path)
    if entry is None or entry.kind is not Kind.FILE:
        return []
    with image.open(entry) as file:
        lines = file.read(_MAX_USERS_BYTES).decode("utf-8", "surrogateescape").splitlines()
    split = [line.strip().split(":") for line in lines if line.strip() and not line.startswith("#")]
    return [record + [""] * (fields - len(record)) for record in split]


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


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
