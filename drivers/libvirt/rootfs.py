"""A foreign image's file system as an ext4 disk, with its owners, modes, devices and xattrs, made without privilege.

mke2fs copies a directory (`-d`), in which an ordinary user can neither give files away nor make device nodes; what is
missing is then set inside the image by debugfs. (mke2fs reads a tar only since e2fsprogs 1.47.1.)
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lab.driver import Context
from lab.errors import DriverError, DriverUnavailable, Unsupported
from lab.host.rlimits import granted
from lab.image import ImageArchive, source
from lab.image.layers import Entry, Kind
from lab.image.process import process_of
from lab.image.tree import Tree
from lab.service.guest_config import GuestConfig
from lab.spec import Spec
from lab.store.place import FULL, filling

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
_DEVICES = {Kind.CHARACTER: "c", Kind.BLOCK: "b"}
_ROOT_INODE = 2  # fs/ext4/ext4.h
_DISK = "the guest's root disk"
_TIMEOUT_S = 600
_LONGEST_LINE = 8000
"""debugfs takes what goes beyond its 8,191 bytes, or beyond a line break, as another command, `!` and a shell's
included (debugfs.c, source_file; libss): no image may write one."""
_SBIN = "/usr/sbin:/sbin"


def foreign_root(spec: Spec, disk: Path, context: Context) -> GuestConfig:
    """Write the root disk of `spec.image` to `disk`, unless it is there, and tell how the image is run.

    Raises BadInput for what is no image, Unsupported where it does not suit a guest, DriverUnavailable where it cannot
    be had or e2fsprogs is missing, DriverError where its programs fail, PlaceError where there is no room.
    """
    found = source.find(spec.image, context, command=spec.command)
    if found.emulation:
        raise Unsupported(f"the image is for {found.platform}, and a guest's kernel has no {found.emulation} to run it")
    with source.open_source(found, context) as image:
        process = process_of(image, command=spec.command, environment=spec.environment)
        if not disk.exists():
            write_disk(image, disk)
    return GuestConfig.of(process, scratch_bytes=spec.scratch_bytes, rlimits=granted())


def write_disk(image: ImageArchive, disk: Path) -> None:
    """Write `image`'s files as a raw ext4 disk. Raises as `foreign_root` does."""
    entries = list(image.entries())
    needs = sum(entry.size for entry in entries)
    with (
        filling(_DISK, disk.parent, needs_bytes=2 * needs),
        tempfile.TemporaryDirectory(dir=disk.parent, prefix=".root-") as text,
    ):
        folder = Path(text)
        stage = folder / "stage"
        stage.mkdir()
        try:
            lay_out(image, entries, stage)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise DriverError(f"the image's files cannot be laid out for a guest's disk: {error}") from error
        partial = folder / "disk"
        _make_file_system(stage, partial, entries)
        shutil.rmtree(stage)
        inodes = _inodes(partial, entries, folder)
        if any(entry.kind in _DEVICES for entry in entries):
            _debugfs(partial, folder, _nodes(entries, inodes), write=True)
            inodes = _inodes(partial, entries, folder)
        _debugfs(partial, folder, _commands(entries, inodes, folder), write=True)
        partial.chmod(0o600)  # the image may hold files that are not for all; libvirt gives it to QEMU's user
        partial.replace(disk)


def lay_out(image: ImageArchive, entries: Sequence[Entry], stage: Path) -> None:
    """Write directories, files, links and FIFOs; what needs privilege, and times, are left to debugfs."""
    first_names: dict[int, str] = {}
    with Tree(stage) as tree:
        for entry in entries:
            if entry.kind in _DEVICES or (entry.kind is Kind.SYMLINK and entry.inode in first_names):
                continue  # the latter, since mke2fs would copy it
            with tree.at(entry.path) as path:
                if entry.kind is Kind.DIRECTORY:
                    path.mkdir(mode=0o700)
                elif entry.inode in first_names:
                    with tree.at(first_names[entry.inode]) as first:
                        os.link(first, path, follow_symlinks=False)
                elif entry.kind is Kind.SYMLINK:
                    path.symlink_to(entry.target)
                elif entry.kind is Kind.FIFO:
                    os.mkfifo(path)
                else:
                    with image.open(entry) as content, path.open("xb") as target:
                        shutil.copyfileobj(content, target, 1024 * 1024)
            first_names.setdefault(entry.inode, entry.path)


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


def _inodes(disk: Path, entries: Sequence[Entry], folder: Path) -> dict[str, int]:
    """The number of each entry that is on the disk, "" the root's: by it a file is named to debugfs, whose lines could
    not hold every name. Directories are listed level by level, since each is named by its own number."""
    found, level = {"": _ROOT_INODE}, [""]
    directories = {entry.path for entry in entries if entry.kind is Kind.DIRECTORY}
    while level:
        told = _debugfs(disk, folder, (f"ls -p <{found[path]}>" for path in level))
        # One file a line, `/inode/mode/uid/gid/name/size/`: no name has a slash, so nothing else parts the fields.
        fields = told.split(b"/")[1:]
        listed: list[str] = []
        parent = ""
        for at in range(0, len(fields) - 6, 7):
            number, name = int(fields[at]), os.fsdecode(fields[at + 4])
            if name == ".":
                parent = next(path for path in level if found[path] == number)
            elif name != "..":
                path = f"{parent}/{name}" if parent else name
                found[path] = number
                listed.append(path)
        level = [path for path in listed if path in directories]
    return found


def _debugfs(disk: Path, folder: Path, commands: Iterable[str], *, write: bool = False) -> bytes:
    """Have debugfs carry out `commands`; returns what it printed. Raises Unsupported for one that it would misread."""
    script = folder / "script"
    with script.open("wb") as file:
        for command in commands:
            line = os.fsencode(command)
            if len(line) > _LONGEST_LINE or b"\n" in line or b"\r" in line:
                raise Unsupported(
                    "the image has a device, or an extended attribute, whose name holds a line break", details=command
                )
            file.write(line + b"\n")
    argv = ["debugfs", *(["-w"] if write else []), "-f", str(script), str(disk)]
    return _run(argv, "the owners of the image's files could not be set", quiet=True)


def _nodes(entries: Sequence[Entry], inodes: Mapping[str, int]) -> Iterator[str]:
    """debugfs's commands that make the devices, each in its directory and, unlike all else, by its own name."""
    made: set[int] = set()
    for entry in entries:
        if entry.kind in _DEVICES and entry.inode not in made:
            made.add(entry.inode)
            parent, _, last = entry.path.rpartition("/")
            yield f"cd <{inodes[parent]}>"
            yield f"mknod {_quoted(last)} {_DEVICES[entry.kind]} {entry.device[0] % 256} {entry.device[1] % 256}"


def _commands(entries: Sequence[Entry], inodes: Mapping[str, int], folder: Path) -> Iterator[str]:
    """debugfs's commands that give every file its owner, mode, time and extended attributes, and devices and symbolic
    links their other names."""
    yield "sif / mode 040755"
    xattrs = itertools.count()
    links = Counter(entry.inode for entry in entries)
    done: dict[int, str] = {}
    for entry in entries:
        if entry.inode not in done:
            name = done[entry.inode] = f"<{inodes[entry.path]}>"
            yield from _set(entry, name, folder, xattrs)
        elif entry.kind in _DEVICES or entry.kind is Kind.SYMLINK:
            parent, _, last = entry.path.rpartition("/")
            yield f"cd <{inodes[parent]}>"
            yield f"ln {done[entry.inode]} {_quoted(last)}"
            yield f"sif {done[entry.inode]} links_count {links[entry.inode]}"


def _set(entry: Entry, name: str, folder: Path, xattrs: Iterator[int]) -> Iterator[str]:
    yield f"sif {name} uid {entry.uid}"
    yield f"sif {name} gid {entry.gid}"
    yield f"sif {name} mode 0{_TYPES[entry.kind] | entry.mode:o}"
    if max(entry.device) > 255:  # more than debugfs's mknod takes: Linux's newer form (linux/kdev_t.h)
        major, minor = entry.device
        yield f"sif {name} block[0] 0"
        yield f"sif {name} block[1] {minor & 0xFF | major << 8 | (minor & ~0xFF) << 12}"
    seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
    low = (seconds + 2**31) % 2**32 - 2**31  # fs/ext4/ext4.h: two more bits of the seconds lie with the nanoseconds
    yield f"sif {name} mtime @{seconds}"
    yield f"sif {name} mtime_extra {nanoseconds << 2 | (seconds - low) >> 32 & 3}"
    for key, value in sorted(entry.xattrs.items()):
        file = folder / f"xattr-{next(xattrs)}"
        file.write_bytes(value)
        yield f"ea_set -f {_quoted(str(file))} {name} {_quoted(key)}"


def _quoted(text: str) -> str:
    """A word of libss's request lines: in double quotes, a quote doubled."""
    return '"' + text.replace('"', '""') + '"'


def _run(argv: Sequence[str], brief: str, *, quiet: bool = False) -> bytes:
    """Run a program of e2fsprogs; returns what it printed. With `quiet`, any word of it on stderr but its version is a
    failure."""
    path = f"{os.environ.get('PATH', '')}:{_SBIN}"
    environment = {**os.environ, "PATH": path, "LC_ALL": "C", "DEBUGFS_PAGER": "__none__"}
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_TIMEOUT_S, check=False, env=environment)
    except FileNotFoundError as error:
        raise DriverUnavailable(
            f"there is no {argv[0]} to make a guest's disk with", resolution="sudo apt-get install e2fsprogs"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DriverError(brief, details=str(error)) from error
    lines = done.stderr.decode(errors="replace").splitlines()
    said = "\n".join(line for line in lines if not line.startswith(f"{argv[0]} 1."))
    if done.returncode == -signal.SIGXFSZ:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    if os.strerror(errno.ENOSPC) in said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if done.returncode != 0 or (quiet and said):
        raise DriverError(brief, details=said or f"{argv[0]} ended with {done.returncode}")
    return done.stdout
