"""Where a run takes a user's image from: a file, a directory, or one Docker engine, found out once for all its targets.

What was found is kept in the run's directory, so that every target of a run gets the same image, whatever its name
comes to mean meanwhile, and in whatever order targets are named.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lab.driver import Context
from lab.errors import BadInput, DriverError
from lab.image import ImageArchive, config_of, open_image
from lab.image.archive import Contents, read_archive
from lab.image.engine import Engine, EngineImage, engine_address
from lab.image.platform import Platform, require_runnable
from lab.image.program import HEAD_BYTES, program_architecture
from lab.image.writing import plain_blocks
from lab.store.place import filling, labels_in, partial, partial_folder

_REFERENCE = "[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}"
_PATHS = ("/", "./", "../", "~/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A user's image, found: `digest` is what engines know it by; `origin` tells in words where it was taken from.

    `file` is the path that the user gave, `engine_id` what the engine knows it by: one of the two is set. `archive` is
    a plain docker-archive of it, where there is one already. `emulation` is how this host runs it, "" by itself.
    """

    reference: str
    digest: str
    origin: str
    platform: str
    emulation: str = ""
    file: str = ""
    engine_id: str = ""
    archive: str = ""
    size_bytes: int = 0

    def facts(self) -> dict[str, Any]:
        """For the record of each target."""
        return {
            "reference": self.reference,
            "digest": self.digest,
            "taken_from": self.origin,
            "platform": self.platform,
        }


def find(reference: str, context: Context, *, command: Sequence[str] | None = None) -> Source:
    """The image `reference`: a file or a directory, else what the run's engine has by that name, else what it pulls.

    Raises BadInput for what is no image, and for one that this host does not run; DriverError.
    """
    kept = _memo(reference, context)
    if kept.exists():
        return Source(**json.loads(kept.read_text()))
    path = _path_of(reference)
    if path is not None:
        found = _from_file(reference, path, context, command)
    else:
        with Engine(engine_address(context.options)) as engine:
            image = engine.inspect(reference)
            if image is None:
                context.say(f"the Docker engine at {engine.address} has no image '{reference}': pulling it")
                engine.pull(reference, context.say)
                image = engine.inspect(reference)
            if image is None:
                raise DriverError(f"the image '{reference}' was pulled and is not there")
            found = _from_engine(reference, engine, image, context, command)
    with partial(context.run_dir, kept.name) as made:
        made.write_text(json.dumps(asdict(found)))
        made.replace(kept)
    return found


def look(reference: str, context: Context, *, command: Sequence[str] | None = None) -> Source | None:
    """As `find`, but pulls nothing: None where the engine would have to."""
    if _path_of(reference) is None:
        with Engine(engine_address(context.options)) as engine:
            if engine.inspect(reference) is None:
                return None
    return find(reference, context, command=command)


def origin_of(reference: str, context: Context) -> str:
    """In words, where `reference` is taken from."""
    path = _path_of(reference)
    return _file_origin(path) if path is not None else _engine_origin(Engine(engine_address(context.options)))


def open_source(source: Source, context: Context) -> ImageArchive:
    """The image's config and files, as `open_image` gives them; an engine's is saved once, and kept in the cache by
    its id. Raises BadInput, DriverError."""
    path = Path(source.archive) if source.archive else _saved(source, context)
    image = open_image(path, scratch=partial_folder(context.cache_dir))
    if source.file and image.digest != source.digest:
        image.close()
        raise BadInput(f"{source.file} is another image than it was at the run's beginning")
    return image


def images_folder(cache_dir: Path) -> Path:
    """Where archives of images are kept, by their digest."""
    return cache_dir / "images"


def is_path(reference: str) -> bool:
    """Whether a user's `reference` names a file or a directory, there or not."""
    return reference.startswith(_PATHS) or _path_of(reference) is not None


def _path_of(reference: str) -> Path | None:
    given = Path(reference).expanduser() if reference.startswith("~/") else Path(reference)
    try:
        if given.is_file() or _is_image_folder(given) or (reference.startswith(_PATHS) and given.is_dir()):
            return given
    except (OSError, ValueError) as error:
        raise BadInput(f"'{reference}' cannot be looked at: {error}") from error
    if reference.startswith(_PATHS):
        raise BadInput(
            f"there is no file {reference}", resolution="give the path of a `docker save` file, or a reference"
        )
    if not re.fullmatch(_REFERENCE, reference):
        raise BadInput(f"'{reference}' is neither a file nor an image's name")
    return None


def _is_image_folder(path: Path) -> bool:
    return (path / "oci-layout").is_file() or (path / "manifest.json").is_file()


def _from_file(reference: str, path: Path, context: Context, command: Sequence[str] | None) -> Source:
    with contextlib.ExitStack() as files:
        with filling(f"{path}, unpacked,", context.cache_dir):
            contents = read_archive(path, files, scratch=partial_folder(context.cache_dir))
        archive = path if contents.plain else _keep_plain(contents, context)
    with open_image(archive, scratch=partial_folder(context.cache_dir)) as image:
        platform = _platform(image, json.loads(contents.config), command)
    return Source(
        reference=reference,
        digest=contents.digest,
        origin=_file_origin(path),
        platform=str(platform),
        emulation=require_runnable(platform, reference),
        file=str(path.resolve()),
        archive=str(archive.resolve()),
    )


def _from_engine(
    reference: str, engine: Engine, image: EngineImage, context: Context, command: Sequence[str] | None
) -> Source:
    told = Platform.of(image.platform)
    config = config_of({**image.platform, "config": image.config})
    argv = (*config.entrypoint, *(config.command if command is None else command))
    with engine.files_of(image.id, labels_in(context.run_dir)) as head:
        architecture, _ = program_architecture(head, argv, config.full_environment, config.working_dir)
    platform = _by_program(told, architecture)
    return Source(
        reference=reference,
        digest=image.id,
        origin=_engine_origin(engine),
        platform=str(platform),
        emulation=require_runnable(platform, reference),
        engine_id=image.id,
        size_bytes=image.size_bytes,
    )


def _saved(source: Source, context: Context) -> Path:
    path = images_folder(context.cache_dir) / f"{source.engine_id.removeprefix('sha256:')}.tar"
    if path.exists():
        return path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    what = f"the image '{source.reference}'"
    with (
        Engine(engine_address(context.options)) as engine,
        partial(context.cache_dir, "image.tar", what=what, needs_bytes=source.size_bytes) as part,
    ):
        part.touch(mode=0o600)  # the image may hold files that are not for all
        with part.open("wb") as file:
            engine.save(source.engine_id, file, context.say)
        with contextlib.ExitStack() as files:
            contents = read_archive(part, files, scratch=partial_folder(context.cache_dir))
            if contents.plain:
                part.replace(path)
            else:
                _write(contents, path, context)
    return path


def _keep_plain(contents: Contents, context: Context) -> Path:
    path = images_folder(context.cache_dir) / f"{contents.digest.removeprefix('sha256:')}.tar"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(contents, path, context)
    return path


def _write(contents: Contents, path: Path, context: Context) -> None:
    with partial(context.cache_dir, path.name, what="the image, unpacked,") as part:
        part.touch(mode=0o600)
        with part.open("wb") as file:
            for block in plain_blocks(contents, tags=contents.names):
                file.write(block)
        part.replace(path)


def _platform(image: ImageArchive, config: Mapping[str, Any], command: Sequence[str] | None) -> Platform:
    own = image.config
    argv = (*own.entrypoint, *(own.command if command is None else command))
    architecture, _ = program_architecture(lambda path: _head(image, path), argv, own.full_environment, own.working_dir)
    return _by_program(Platform.of(config), architecture)


def _by_program(told: Platform, architecture: str) -> Platform:
    """Old builders wrote the architecture of the host that they ran on: the program's header decides."""
    if not architecture or architecture == told.architecture:
        return told
    return replace(told, architecture=architecture, variant="v7" if architecture == "arm" else "")


def _head(image: ImageArchive, path: str) -> bytes | None:
    try:
        entry = image.find(path)
        if entry is None or entry.kind != "file":
            return None
        with image.open(entry) as file:
            return file.read(HEAD_BYTES)
    except BadInput:  # a name that leads nowhere: the launch will say so
        return None


def _memo(reference: str, context: Context) -> Path:
    return context.run_dir / f"image-{hashlib.sha256(reference.encode()).hexdigest()[:12]}.json"


def _file_origin(path: Path) -> str:
    return f"the {'directory' if path.is_dir() else 'file'} {path.resolve()}"


def _engine_origin(engine: Engine) -> str:
    return f"the Docker engine at {engine.address} ({engine.address.named_by})"
