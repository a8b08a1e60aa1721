"""Image layers laid over one another: whiteouts, opaque directories and hard links applied, nothing left of the order.

Names are made safe on the way in: leading slashes go, a `..` is refused, and a symbolic link that stands where a
later layer expects a directory is followed inside the image only (as containerd's `fs.RootPath` does).
Whiteouts: https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
"""

from __future__ import annotations

import enum
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any

from lab.errors import BadInput

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_META = ".wh..wh."
_XATTR = "SCHILY.xattr."
_XATTR_SPACES = tuple(f"{_XATTR}{space}." for space in ("user", "security", "system"))
"""Not `trusted`: those are an engine's own notes on its layers, such as overlay's redirects, which no image is let
write; containerd leaves them out as well (archive/tar_unix.go, setxattr). What is in no space no kernel takes."""
_MAX_LINKS = 40  # as the kernel's MAXSYMLINKS
_MAX_ID = 2**32 - 2  # the last one stands for "leave it" (chown(2))
_MAX_MAJOR, _MAX_MINOR = 2**12 - 1, 2**20 - 1  # linux/kdev_t.h


class Kind(enum.StrEnum):
    """What a name stands for."""

    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"
    CHARACTER = "character"
    BLOCK = "block"
    FIFO = "fifo"


_KINDS = {
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.GNUTYPE_SPARSE: Kind.FILE,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.CHRTYPE: Kind.CHARACTER,
    tarfile.BLKTYPE: Kind.BLOCK,
    tarfile.FIFOTYPE: Kind.FIFO,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name of the flattened file system.

    `path` is relative, without `.` or `..`. `mode` are the permission bits, set-id and sticky included. Names of one
    file (hard links) share `inode`. `target` is a symbolic link's text; `device` (major, minor) of a device node.
    `layer` is the layer that its name came from, counted from the lowest; -1 for a directory that no layer names.
    `member` in the layer `source` is where its content lies; `content` is that of a file which the lab adds.
    """

    path: str
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    size: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    inode: int = 0
    layer: int = -1
    source: int = -1
    member: tarfile.TarInfo | None = None
    content: bytes | None = None


class Layers:
    """The open layers of one image, lowest first, and the names that they make together."""

    def __init__(self) -> None:
        self._archives: list[tarfile.TarFile] = []
        self._entries: dict[str, Entry] = {}
        self._children: dict[str, set[str]] = {}
        self._inodes = 0

    def add(self, archive: tarfile.TarFile) -> None:
        """Lay a layer over the others. Raises BadInput for names that would lead out of the image."""
        layer = len(self._archives)
        self._archives.append(archive)
        for member in archive:
            path = safe_path(member.name)
            parent, _, name = path.rpartition("/")
            directory = self.resolve(parent)
            if name == _OPAQUE:
                for child in list(self._children.get(directory, ())):
                    self._remove(child, below=layer)
            elif name.startswith(_META):
                continue
            elif name.startswith(_WHITEOUT):
                hidden = name.removeprefix(_WHITEOUT)
                if hidden in ("", ".", ".."):
                    raise BadInput(f"the image holds the whiteout {member.name!r}, which names no entry")
                self._remove(_join(directory, hidden), below=layer)
            elif path:
                self._put(self._entry(member, _join(directory, name), layer))

    def add_file(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Have root's file of `content` where `path` leads inside the image; it takes the place of what is there."""
        self._add(path, Kind.FILE, mode=mode, size=len(content), content=content)

    def add_directory(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Have a directory where `path` leads inside the image; one that is there is left as it is."""
        found = self._entries.get(self.resolve(path))
        if found is None or found.kind is not Kind.DIRECTORY:
            self._add(path, Kind.DIRECTORY, mode=mode, uid=uid, gid=gid)

    def __iter__(self) -> Iterator[Entry]:
        """Every name but the root, each directory before what is in it."""
        return (self._entries[path] for path in sorted(self._entries, key=lambda path: path.split("/")))

    def find(self, path: str) -> Entry | None:
        """What `path` names, its last component followed too if it is a symbolic link."""
        return self._entries.get(self.resolve(safe_path(path)))

    def open(self, entry: Entry) -> IO[bytes]:
        """The content of a file. Raises BadInput for anything else."""
        if entry.content is not None:
            return io.BytesIO(entry.content)
        content = self._archives[entry.source].extractfile(entry.member) if entry.member else None
        if content is None or entry.kind is not Kind.FILE:
            raise BadInput(f"'{entry.path}' in the image is no file but a {entry.kind}")
        return content

    def close(self) -> None:
        """Close every layer."""
        for archive in self._archives:
            archive.close()

    def resolve(self, path: str) -> str:
        """`path` with symbolic links followed inside the image. Raises BadInput for a loop."""
        followed = 0
        rest = [part for part in path.split("/") if part not in ("", ".")]
        done: list[str] = []
        while rest:
            part = rest.pop(0)
            if part == "..":
                del done[-1:]  # above the root is the root
                continue
            entry = self._entries.get("/".join([*done, part]))
            if entry is None or entry.kind is not Kind.SYMLINK:
                done.append(part)
                continue
            followed += 1
            if followed > _MAX_LINKS:
                raise BadInput(f"symbolic links of the image run in a circle at '{path}'")
            if entry.target.startswith("/"):
                done = []
            rest = [step for step in entry.target.split("/") if step not in ("", ".")] + rest
        return "/".join(done)

    def _add(self, path: str, kind: Kind, **fields: Any) -> None:
        resolved = self.resolve(path)
        if not resolved:
            return  # the root is there
        self._inodes += 1
        self._put(Entry(path=resolved, kind=kind, inode=self._inodes, layer=len(self._archives), **fields))

    def _entry(self, member: tarfile.TarInfo, path: str, layer: int) -> Entry:
        if member.islnk():
            target_path = safe_path(member.linkname)
            parent, _, name = target_path.rpartition("/")
            target = self._entries.get(_join(self.resolve(parent), name))
            if target is None or target.kind is Kind.DIRECTORY:
                raise BadInput(f"'{path}' in the image is a hard link to '{member.linkname}', which is not there")
            # Content and inode stay the target's; the name is this layer's, lest its own whiteouts take it.
            return replace(target, path=path, layer=layer)
        kind = _KINDS.get(member.type)
        if kind is None:
            raise BadInput(f"'{path}' in the image is of the unknown tar type {member.type!r}")
        if "\0" in member.linkname:
            raise BadInput(f"'{path}' in the image is a link to {member.linkname!r}, which no link can hold")
        self._inodes += 1
        return Entry(
            path=path,
            kind=kind,
            mode=member.mode & 0o7777,
            uid=_number(member, "uid", _MAX_ID),
            gid=_number(member, "gid", _MAX_ID),
            mtime_s=int(member.mtime),
            size=member.size if kind is Kind.FILE else 0,
            target=member.linkname if kind is Kind.SYMLINK else "",
            device=(_number(member, "devmajor", _MAX_MAJOR), _number(member, "devminor", _MAX_MINOR))
            if kind in (Kind.CHARACTER, Kind.BLOCK)
            else (0, 0),
            xattrs={
                # tarfile gives these as text; surrogateescape brings the bytes back whole.
                key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
                for key, value in member.pax_headers.items()
                if key.startswith(_XATTR_SPACES)
            },
            inode=self._inodes,
            layer=layer,
            source=layer,
            member=member,
        )

    def _put(self, entry: Entry) -> None:
        old = self._entries.get(entry.path)
        if old is not None and not (old.kind is Kind.DIRECTORY and entry.kind is Kind.DIRECTORY):
            self._remove(entry.path, below=len(self._archives) + 1)
        parent = entry.path.rpartition("/")[0]
        if parent and (parent not in self._entries or self._entries[parent].kind is not Kind.DIRECTORY):
            self._inodes += 1
            self._put(Entry(path=parent, kind=Kind.DIRECTORY, mode=0o755, inode=self._inodes))
        self._entries[entry.path] = entry
        self._children.setdefault(parent, set()).add(entry.path)

    def _remove(self, path: str, *, below: int) -> None:
        """Take `path` and all in it away, as far as it came from a layer lower than `below`."""
        for child in list(self._children.get(path, ())):
            self._remove(child, below=below)
        entry = self._entries.get(path)
        if entry is None or entry.layer >= below or self._children.get(path):
            return
        del self._entries[path]
        self._children.pop(path, None)
        self._children[path.rpartition("/")[0]].discard(path)


def safe_path(name: str) -> str:
    """`name` relative to the image's root, `""` for the root. Raises BadInput for one with `..` or a NUL."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise BadInput(f"the image holds the name {name!r}, which leads out of it", resolution="use another image")
    return "/".join(parts)


def _number(member: tarfile.TarInfo, field: str, most: int) -> int:
    value: int = getattr(member, field)
    if not 0 <= value <= most:
        raise BadInput(f"'{member.name}' in the image has the {field} {value}, and {most} is the highest there can be")
    return value


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name
