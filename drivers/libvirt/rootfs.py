"""A foreign image's file system as an ext4 disk, with its owners, modes, devices and xattrs, made without privilege.

mke2fs copies a directory (`-d`), in which an ordinary user can neither give files away nor make device nodes; what is
missing is then set inside the image by debugfs. (mke2fs reads a tar only since e2fsprogs 1.47.1.)
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.errors import DriverError, DriverUnavailable, Unsupported
from lab.image import ImageArchive, fetch_image, open_image, process_of
from lab.image.layers import Entry, Kind
from lab.image.tree import Tree
from lab.service.guest_config import GuestConfig
from lab.spec import Spec

_FREE_BYTES = 256 * 1024 * 1024
"""Room for the service to write; the disk's file is sparse, and each launch's layer over it is thrown away."""
_BLOCK = 4096
_INODE_BYTES = 256
_SPARE_INODES = 4096
_TYPES = {
    Kind.DIRECTORY: 0o040000,
    Kind.FILE: 0o100000,
    Kind.SYMLINK: 0o120000,
    Kind.CHARACTER: 0o020000,
    Kind.BLOCK: 0o060000,
    Kind.FIFO: 0o010000,
}
_NODE_LETTERS = {Kind.CHARACTER: "c", Kind.BLOCK: "b", Kind.FIFO: "p"}
_TIMEOUT_S = 600
_LONGEST_LINE = 8000
"""debugfs takes what goes beyond its 8,191 bytes, or beyond a line break, as another command, `!` and a shell's
included (debugfs.c, source_file; libss): no image may write one."""
_SBIN = "/usr/sbin:/sbin"
_HOSTS = b"127.0.0.1\tlocalhost\n::1\tlocalhost\n"


def foreign_root(spec: Spec, disk: Path, cache_dir: Path) -> GuestConfig:
    """Write the root disk of `spec.image` to `disk`, unless it is there, and tell how the image is run.

    Raises BadInput for what is no image, Unsupported where it does not suit a guest, DriverUnavailable where it cannot
    be had or e2fsprogs is missing, DriverError where its programs fail.
    """
    with open_image(fetch_image(spec.image, cache_dir)) as image:
        if image.config.architecture not in ("amd64", "") or image.config.os != "linux":
            raise Unsupported(
                f"the image is for {image.config.os}/{image.config.architecture}, and the guest is linux/amd64"
            )
        process = process_of(image, command=spec.command, environment=spec.environment)
        if not disk.exists():
            write_disk(image, disk)
    return GuestConfig(
        argv=process.argv,
        environment=process.environment,
        cwd=process.cwd,
        uid=process.uid,
        gid=process.gid,
        groups=process.groups,
        scratch_bytes=spec.scratch_bytes,
    )


def write_disk(image: ImageArchive, disk: Path) -> None:
    """Write `image`'s files as a raw ext4 disk, with the lab's own /etc/hosts. Raises as `foreign_root` does."""
    image.add_file("/etc/hosts", _HOSTS)  # every engine gives a container its own
    entries = list(image.entries())
    with tempfile.TemporaryDirectory(dir=disk.parent, prefix=".root-") as text:
        folder = Path(text)
        stage = folder / "stage"
        stage.mkdir()
        try:
            lay_out(image, entries, stage)
        except OSError as error:
            raise DriverError(f"the image's files cannot be laid out for a guest's disk: {error}") from error
        partial = folder / "disk"
        _make_file_system(stage, partial, entries)
        _run(
            ["debugfs", "-w", "-f", str(_script(entries, folder)), str(partial)],
            "the owners of the image's files could not be set",
            quiet=True,
        )
        partial.chmod(0o600)  # the image may hold files that are not for all; libvirt gives it to QEMU's user
        partial.replace(disk)


def lay_out(image: ImageArchive, entries: Sequence[Entry], stage: Path) -> None:
    """Write directories, files, links and times; what needs privilege is left to `_script`."""
    first_names: dict[int, str] = {}
    with Tree(stage) as tree:
        for entry in entries:
            with tree.at(entry.path) as path:
                if entry.kind is Kind.DIRECTORY:
                    path.mkdir(mode=0o700)
                elif entry.inode in first_names and entry.kind not in _NODE_LETTERS:
                    with tree.at(first_names[entry.inode]) as first:
                        os.link(first, path, follow_symlinks=False)
                elif entry.kind is Kind.SYMLINK:
                    path.symlink_to(entry.target)
                elif entry.kind is Kind.FILE:
                    with image.open(entry) as source, path.open("xb") as target:
                        shutil.copyfileobj(source, target, 1024 * 1024)
            if entry.inode:
                first_names.setdefault(entry.inode, entry.path)
        for entry in reversed(entries):  # a directory's time after all that is in it
            if entry.kind not in _NODE_LETTERS:
                with tree.at(entry.path) as path:
                    os.utime(path, (entry.mtime_s, entry.mtime_s), follow_symlinks=False)


def _make_file_system(stage: Path, disk: Path, entries: Sequence[Entry]) -> None:
    blocks = sum(-(-entry.size // _BLOCK) + 2 for entry in entries)
    inodes = len(entries) + _SPARE_INODES
    size = blocks * _BLOCK * 105 // 100 + inodes * _INODE_BYTES + _FREE_BYTES
    options = ["-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-I", str(_INODE_BYTES), "-N", str(inodes), "-m", "0"]
    features = ["-O", "^has_journal", "-E", "root_owner=0:0,lazy_itable_init=0"]
    _run(
        ["mke2fs", *options, *features, "-d", str(stage), str(disk), f"{size // 1024}k"],
        "the guest's root disk could not be made",
    )


def _script(entries: Sequence[Entry], folder: Path) -> Path:
    """debugfs's commands that give every file its owner, mode, device numbers and extended attributes."""
    path = folder / "script"
    with path.open("wb") as script:
        commands = (_commands(entry, folder, place) for place, entry in enumerate(entries))
        for command in itertools.chain(["sif / mode 040755"], *commands):
            line = os.fsencode(command)
            if len(line) > _LONGEST_LINE or b"\n" in line or b"\r" in line:
                raise Unsupported(
                    "the image has a file whose name is too long for a guest's disk, or holds a line break",
                    details=command,
                )
            script.write(line + b"\n")
    return path


def _commands(entry: Entry, folder: Path, place: int) -> Iterator[str]:
    name = _quoted("/" + entry.path)
    if letter := _NODE_LETTERS.get(entry.kind):
        parent, _, last = entry.path.rpartition("/")
        numbers = "" if letter == "p" else f" {entry.device[0]} {entry.device[1]}"
        yield f"cd {_quoted('/' + parent)}"
        yield f"mknod {_quoted(last)} {letter}{numbers}"
        yield "cd /"
        yield f"sif {name} mtime @{entry.mtime_s}"
    yield f"sif {name} uid {entry.uid}"
    yield f"sif {name} gid {entry.gid}"
    yield f"sif {name} mode 0{_TYPES[entry.kind] | entry.mode:o}"
    for number, (key, value) in enumerate(sorted(entry.xattrs.items())):
        file = folder / f"xattr-{place}-{number}"
        file.write_bytes(value)
        yield f"ea_set -f {_quoted(str(file))} {name} {_quoted(key)}"


def _quoted(text: str) -> str:
    """A word of libss's request lines: in double quotes, a quote doubled."""
    return '"' + text.replace('"', '""') + '"'


def _run(argv: Sequence[str], brief: str, *, quiet: bool = False) -> None:
    """Run a program of e2fsprogs; with `quiet`, any word of it on stderr but its version is a failure."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_SBIN}", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False, env=environment
        )
    except FileNotFoundError as error:
        raise DriverUnavailable(
            f"there is no {argv[0]} to make a guest's disk with", resolution="sudo apt-get install e2fsprogs"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DriverError(brief, details=str(error)) from error
    said = "\n".join(line for line in done.stderr.splitlines() if not line.startswith(f"{argv[0]} 1."))
    if done.returncode != 0 or (quiet and said):
        raise DriverError(brief, details=said or f"{argv[0]} ended with {done.returncode}")
