"""Container images without an engine: the lab's own made, and anyone's read.

`service_archive` makes the image of the lab's service. `source.find` finds a user's image, `open_image` reads one (what
`docker save` writes, or an OCI layout), and `process.process_of` tells what it would run, as whom and where, by
Docker's rules, so that a virtual machine can run it as a container engine would.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from lab.errors import BadInput
from lab.image.archive import Contents, read_archive
from lab.image.config import ImageConfig, config_of
from lab.image.layers import Entry, Layers
from lab.image.writing import labelled_blocks, service_archive, temporary_file

__all__ = ["ImageArchive", "ImageConfig", "config_of", "open_image", "service_archive"]


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
