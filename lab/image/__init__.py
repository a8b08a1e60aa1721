"""Container images without an engine: the lab's own made, and anyone's read.

`service_archive` makes the image of the lab's service. `source.find` finds a user's image, `open_image` reads one (what
`docker save` writes, or an OCI layout), and `process_of` tells what it would run, as whom and where, by Docker's rules,
so that a virtual machine can run it as a container engine would.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lab.errors import BadInput
from lab.image.archive import Contents, read_archive
from lab.image.layers import Entry, Kind, Layers
from lab.image.writing import labelled_blocks, service_archive, temporary_file

__all__ = [
    "DEFAULT_PATH",
    "ImageArchive",
    "ImageConfig",
    "Process",
    "config_of",
    "open_image",
    "process_of",
    "resolve_user",
    "service_archive",
]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What Docker gives a container whose image sets no PATH (moby, `system.DefaultPathEnv`)."""

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

    @property
    def full_environment(self) -> Mapping[str, str]:
        """With the PATH that every engine gives where the image has none."""
        return {"PATH": DEFAULT_PATH, **self.environment}


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

    def __init__(self, contents: Contents, layers: Layers, files: contextlib.ExitStack) -> None:
        self.config = config_of(json.loads(contents.config))
        self.digest = contents.digest
        self._contents = contents
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

    @contextlib.contextmanager
    def loadable(self, *, tag: str, labels: Mapping[str, str], scratch: Path) -> Iterator[Iterator[bytes]]:
        """The image as every engine loads it, piece by piece: a docker-archive named `tag` with `labels` beside its
        own. A layer that Docker would refuse, and that can be said otherwise, is written anew in `scratch`. Raises
        OSError."""
        with contextlib.ExitStack() as files:
            rewritten: dict[int, IO[bytes]] = {}
            for index, irregular in enumerate(self._layers.irregular):
                if irregular:
                    rewritten[index] = files.enter_context(temporary_file(scratch))
                    self._layers.write_layer(index, rewritten[index])
            yield labelled_blocks(self._contents, rewritten, tag=tag, labels=labels)

    def close(self) -> None:
        """Let go of the files. Idempotent."""
        self._files.close()

    def __enter__(self) -> ImageArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_image(path: Path, *, scratch: Path | None = None) -> ImageArchive:
    """Read the image for this machine in the file or directory at `path`, checking every digest that it tells.

    What is compressed goes to nameless files in `scratch`, by default where temporary files go. Raises BadInput for
    what is no image, holds several, is damaged, or leads out of itself; OSError where `scratch` is full.
    """
    with contextlib.ExitStack() as files:
        contents = read_archive(path, files, scratch=scratch)
        layers = Layers()
        files.callback(layers.close)
        try:
            for layer in contents.layers:
                layers.add(layer)
        # As tarfile takes hostile headers.
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise BadInput(f"a layer of {path} is not a readable tar: {error}") from error
        try:
            return ImageArchive(contents, layers, files.pop_all())
        except (ValueError, TypeError, AttributeError) as error:
            raise BadInput(f"the config of {path} is not understood: {error}") from error


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


def config_of(config: Mapping[str, Any]) -> ImageConfig:
    """What an image's `config`, as its JSON or an engine gives it, says. Raises BadInput."""
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
