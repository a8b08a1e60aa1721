"""Images unpacked once for a run, for engines without a store: their files, and what to run of them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivers.barehost.rootfs import unpack
from lab.driver import Context
from lab.errors import BadInput, DriverError
from lab.image import ImageArchive, open_image, service_archive, source
from lab.image.process import TMP, Process, process_of
from lab.image.tree import Tree
from lab.service.build import build_service
from lab.spec import SERVICE_IMAGE, Spec, new_nonce
from lab.store.place import filling


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """An unpacked image, and how to run it; `process` lacks what only a launch knows."""

    files: Path
    process: Process


class Images:
    """Those of one run, in the folder `name` of its directory, with which they go; `places` are directories that the
    engine wants there beside the image's own, `programs` this host's files that it runs there, by their path inside."""

    def __init__(
        self,
        context: Context,
        name: str,
        *,
        places: Sequence[str] = (),
        programs: Callable[[], Mapping[str, Path]] = dict,
    ) -> None:
        self._context = context
        self._name = name
        self._places = places
        self._programs = programs
        self._known: dict[tuple[object, ...], Unpacked] = {}

    def folder(self) -> Path:
        """None but root gets into it: an image may hold set-user-id programs and device nodes, which another user of
        this host must not find there."""
        folder = self._context.run_dir / self._name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def of(self, spec: Spec) -> Unpacked:
        """The image of `spec`, unpacked at the first call. Raises Unsupported, BadInput, DriverError."""
        asked = (spec.image, spec.command, tuple(spec.environment.items()))  # all that its process is made of
        if asked not in self._known:
            self._known[asked] = self._provide(spec)
        return self._known[asked]

    def _provide(self, spec: Spec) -> Unpacked:
        name = "service" if spec.builtin else hashlib.sha256(spec.image.encode()).hexdigest()[:12]
        files = self.folder() / f"image-{name}"
        with self._opened(spec) as image:
            process = process_of(image, command=spec.command, environment=spec.environment)
            if not files.exists():
                unpacked = files.with_name(f".{files.name}-{new_nonce()}")
                try:
                    with filling(f"the image '{spec.image}', unpacked,", self._context.run_dir):
                        open_directory(unpacked)
                        unpack(image, unpacked)
                        self._make_places(process, unpacked)
                        unpacked.rename(files)
                except OSError as error:
                    raise DriverError(f"the image '{spec.image}' cannot be unpacked: {error}") from error
                finally:
                    shutil.rmtree(unpacked, ignore_errors=True)
            return Unpacked(files=files, process=process)

    def _opened(self, spec: Spec) -> ImageArchive:
        if not spec.builtin:
            return source.open_source(source.find(spec.image, self._context, command=spec.command), self._context)
        archive = self.folder() / "service.tar"
        if not archive.exists():
            with filling("the service's image", self._context.run_dir):
                made = service_archive(build_service(self._context.cache_dir), tag=SERVICE_IMAGE, labels={})
                archive.write_bytes(made)
        return open_image(archive)

    def _make_places(self, process: Process, root: Path) -> None:
        """The image's VOLUMEs and working directory, where they are missing, as Docker makes them. Raises BadInput."""
        volumes = (("volume", path) for path in process.volumes)
        places = (("directory", path) for path in self._places)
        with Tree(root) as tree:
            for what, path in (*volumes, ("working directory", process.cwd), *places):
                try:
                    tree.make_directory(path)
                except (FileExistsError, NotADirectoryError) as error:
                    raise BadInput(f"the image's {what} '{path}' is no directory in it") from error
            for path, program in self._programs().items():
                tree.write(path, program.read_bytes(), mode=0o755)
            if not process.own_tmp:
                # A runtime gives the tmpfs the mode of the directory that it lies on.
                tree.make_directory(TMP)
                there = tree.open(TMP, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fchmod(there, 0o1777)
                finally:
                    os.close(there)


def open_directory(path: Path) -> None:
    """A new directory that everybody may pass through, whatever the umask says: a service need not be root's."""
    path.mkdir()
    path.chmod(0o755)
