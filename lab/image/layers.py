"""Image layers laid over one another, as overlay2 shows them: each is what it would be alone in an empty directory.

So a directory that a layer does not name, and that it has something in, is a new one of root's (0755) which stands over
the lower one's owner and mode; a symbolic link of a lower layer is no way into it; whiteouts hide what is below only
(moby, pkg/archive/archive.go `Unpack` and archive_linux.go; https://docs.kernel.org/filesystems/overlayfs.html).
What Docker refuses in a layer, and other tools write, is read by the letter of the image specification instead, and
makes the layer `irregular`: a hard link to a lower layer's file, a whiteout after the name that it stands for, a name
that is there twice, GNU's old sparse files.

Names are made safe on the way in: leading slashes go, a `..` is refused, and a symbolic link that stands where a
layer expects a directory is followed inside the image only.
Whiteouts: https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
"""

from __future__ import annotations

import enum
import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import IO, Any

from lab.errors import BadInput

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_MAX_LINKS = 40  # as the kernel's MAXSYMLINKS
_MAX_ID = 2**32 - 2  # the last one stands for "leave it" (chown(2))
_MAX_MAJOR, _MAX_MINOR = 2**12 - 1, 2**20 - 1  # linux/kdev_t.h
_MAX_XATTR_NAME, _MAX_XATTR_BYTES = 255, 65536  # linux/limits.h
_MAX_NAME_BYTES = 255  # linux/limits.h
_MAX_TIME_NS = 2**63 - 1
"""Docker gives what is before 1970 or after this the time 0 (moby, pkg/system/chtimes.go), but for links."""
_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]*)?")
_IRREGULAR = frozenset({tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE})


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

    `path` is relative, without `.` or `..`, for the file system's own functions (os.fsencode gives its bytes). `mode`
    are the permission bits, set-id and sticky included. Names of one file (hard links) share `inode`. `target` is a
    symbolic link's text; `device` (major, minor) of a device node. `implied` is a directory that its layer does not
    name. `member` in the layer `source` is where its content lies; `content` is that of a file which the lab adds.
    """

    path: str
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    inode: int = 0
    implied: bool = False
    source: int = -1
    member: tarfile.TarInfo | None = None
    content: bytes | None = None


@dataclass(slots=True)
class _Layer:
    """One layer alone; `opaque` directories hide all that is below them, `hidden` names are whiteouts."""

    entries: dict[str, Entry] = field(default_factory=dict)
    opaque: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    irregular: bool = False


class LayerTar(tarfile.TarFile):
    """A layer's tar. A global header says nothing of files here, as with Docker (moby leaves it out)."""

    def __init__(self, file: IO[bytes]) -> None:
        start = file.tell()
        self._end = file.seek(0, os.SEEK_END)
        file.seek(start)
        self._last: tarfile.TarInfo | None = None
        super().__init__(fileobj=file, mode="r", encoding="utf-8", errors="surrogateescape")

    @property
    def pax_headers(self) -> dict[str, str]:
        return {}

    @pax_headers.setter
    def pax_headers(self, _: object) -> None: ...

    def next(self) -> tarfile.TarInfo | None:
        """As the base class, but that a layer may end with its last file's content, not filled up to a whole block: so
        umoci's `insert` leaves it, and so Docker takes it (Go, archive/tar/reader.go `tryReadFull`). Content that is
        itself cut short stays an error."""
        base: Any = self  # typeshed knows neither of these attributes rightly
        last: Any = self._last
        if last is not None and base.firstmember is None:
            parts: list[tuple[int, int]] | None = last.sparse
            held = last.size if parts is None else sum(size for _, size in parts)
            if last.offset_data + (held if last.isreg() else 0) <= self._end < self.offset:
                return None
        self._last = super().next()
        return self._last


class Layers:
    """The open layers of one image, lowest first, and the names that they make together."""

    def __init__(self) -> None:
        self._archives: list[tarfile.TarFile] = []
        self._layers: list[_Layer] = []
        self._entries: dict[str, Entry] = {}
        self._children: dict[str, set[str]] = {}
        self._inodes = 0

    def add(self, file: IO[bytes]) -> None:
        """Lay the uncompressed layer in `file` over the others; one of no bytes has nothing in it, as with Docker.

        Raises BadInput for names that would lead out of the image, and for what no file system takes; TarError.
        """
        layer = _Layer()
        self._layers.append(layer)
        start = file.tell()
        if not file.read(1):
            return
        file.seek(start)
        archive = LayerTar(file)
        self._archives.append(archive)
        seen: set[str] = set()
        for member in archive:
            name = safe_path(member.name)
            layer.irregular |= name in seen or member.type in _IRREGULAR
            seen.add(name)
            if name:
                self._read(layer, member, name)
        self._lay(layer)

    @property
    def irregular(self) -> list[bool]:
        """Of each layer, lowest first, whether Docker would refuse it."""
        return [layer.irregular for layer in self._layers]

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
        return iter(_in_order(self._entries))

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

    def write_layer(self, index: int, target: IO[bytes]) -> None:
        """Write layer `index` (counted from the lowest) anew to `target` as a tar that every engine takes. Raises
        OSError."""
        layer, first_names = self._layers[index], dict[int, str]()
        with tarfile.open(
            fileobj=target, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        ) as out:
            for entry in _in_order(layer.entries):
                info = _tar_info(entry, first_names)
                out.addfile(info, self.open(entry) if info.isreg() else None)
                if entry.path in layer.opaque:
                    out.addfile(tarfile.TarInfo(f"{_name(entry.path)}/{_OPAQUE}"))
            if "" in layer.opaque:
                out.addfile(tarfile.TarInfo(_OPAQUE))
            for path in sorted(layer.hidden):
                parent, _, last = _name(path).rpartition("/")
                out.addfile(tarfile.TarInfo(_join(parent, _WHITEOUT + last)))

    def close(self) -> None:
        """Close every layer."""
        for archive in self._archives:
            archive.close()

    def resolve(self, path: str) -> str:
        """`path` with symbolic links followed inside the image. Raises BadInput for a loop."""
        return _resolve(self._entries, path)

    def _add(self, path: str, kind: Kind, **fields: Any) -> None:
        resolved = self.resolve(path)
        if not resolved:
            return  # the root is there
        parents = resolved.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            parent = "/".join(parents[:depth])
            if (found := self._entries.get(parent)) is None or found.kind is not Kind.DIRECTORY:
                self._put(Entry(path=parent, kind=Kind.DIRECTORY, mode=0o755, inode=self._new_inode()))
        self._put(Entry(path=resolved, kind=kind, inode=self._new_inode(), **fields))

    def _read(self, layer: _Layer, member: tarfile.TarInfo, name: str) -> None:
        parent, _, last = name.rpartition("/")
        directory = _resolve(layer.entries, parent)
        self._imply(layer, directory, through_link=directory != parent)
        path = _join(directory, last)
        if last == _OPAQUE:
            layer.opaque.add(directory)
        elif last.startswith(_WHITEOUT):
            hidden = last.removeprefix(_WHITEOUT)
            if hidden in ("", ".", ".."):
                raise BadInput(f"the image holds the whiteout {member.name!r}, which names no entry")
            _hide(layer, _join(directory, hidden))
        elif member.ischr() and (member.devmajor, member.devminor) == (0, 0):
            _hide(layer, path)  # overlay's own form of a whiteout
        else:
            linked = self._linked(layer, member, path) if member.islnk() else None
            _put_alone(layer, linked or self._entry(member, path))
            if linked is not None:
                _give(layer, linked, member)

    def _imply(self, layer: _Layer, directory: str, *, through_link: bool) -> None:
        parts = directory.split("/") if directory else []
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            found = layer.entries.get(path)
            if found is None:
                layer.hidden.discard(path)
                layer.irregular |= through_link
                layer.entries[path] = Entry(
                    path=path, kind=Kind.DIRECTORY, mode=0o755, inode=self._new_inode(), implied=True
                )
            elif found.kind is not Kind.DIRECTORY:
                raise BadInput(f"the image has something in '{path}', which is no directory but a {found.kind}")

    def _linked(self, layer: _Layer, member: tarfile.TarInfo, path: str) -> Entry:
        parent, _, last = safe_path(member.linkname).rpartition("/")
        target = layer.entries.get(_join(_resolve(layer.entries, parent), last))
        if target is None:
            target = self._copied_up(layer, _join(self.resolve(parent), last))
        if target is None or target.kind is Kind.DIRECTORY:
            raise BadInput(f"'{path}' in the image is a hard link to '{member.linkname}', which is not there")
        return replace(target, path=path)  # content and inode stay the target's

    def _copied_up(self, layer: _Layer, path: str) -> Entry | None:
        """The file `path` of a lower layer brought into `layer`, as overlay does where it is linked to."""
        lower = self._entries.get(path)
        if lower is None or lower.kind is Kind.DIRECTORY or path in layer.hidden:
            return None
        layer.irregular = True
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            layer.entries.setdefault(above, self._entries[above])
        layer.entries[path] = replace(lower, inode=self._new_inode())
        return layer.entries[path]

    def _entry(self, member: tarfile.TarInfo, path: str) -> Entry:
        kind = _KINDS.get(member.type)
        if kind is None:
            raise BadInput(f"'{path}' in the image is of the unknown tar type {member.type!r}")
        if "\0" in member.linkname:
            raise BadInput(f"'{path}' in the image is a link to {member.linkname!r}, which no link can hold")
        return Entry(
            path=path,
            kind=kind,
            mode=member.mode & 0o7777,
            uid=_number(member, "uid", _MAX_ID),
            gid=_number(member, "gid", _MAX_ID),
            mtime_ns=_mtime_ns(member),
            size=member.size if kind is Kind.FILE else 0,
            target=_own(member.linkname) if kind is Kind.SYMLINK else "",
            device=(_number(member, "devmajor", _MAX_MAJOR), _number(member, "devminor", _MAX_MINOR))
            if kind in (Kind.CHARACTER, Kind.BLOCK)
            else (0, 0),
            xattrs=_xattrs(member, kind),
            inode=self._new_inode(),
            source=len(self._archives) - 1,
            member=member,
        )

    def _new_inode(self) -> int:
        self._inodes += 1
        return self._inodes

    def _lay(self, layer: _Layer) -> None:
        for path in layer.hidden:
            self._remove(path)
        for path in layer.opaque:
            for child in list(self._children.get(path, ())):
                self._remove(child)
        for entry in _in_order(layer.entries):
            self._put(entry)

    def _put(self, entry: Entry) -> None:
        old = self._entries.get(entry.path)
        if old is not None and not (old.kind is Kind.DIRECTORY and entry.kind is Kind.DIRECTORY):
            self._remove(entry.path)
        self._entries[entry.path] = entry
        self._children.setdefault(entry.path.rpartition("/")[0], set()).add(entry.path)

    def _remove(self, path: str) -> None:
        for child in list(self._children.get(path, ())):
            self._remove(child)
        self._children.pop(path, None)
        if self._entries.pop(path, None) is not None:
            self._children[path.rpartition("/")[0]].discard(path)


def safe_path(name: str) -> str:
    """`name` relative to the image's root, `""` for the root. Raises BadInput for one with `..` or a NUL, and for what
    is longer than a file's name can be."""
    parts = [part for part in _own(name).split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise BadInput(f"the image holds the name {name!r}, which leads out of it", resolution="use another image")
    for part in parts:
        if len(os.fsencode(part)) > _MAX_NAME_BYTES and not part.startswith(_WHITEOUT):
            raise BadInput(f"the image holds a name of more than {_MAX_NAME_BYTES} bytes: {part[:40]!r}…")
    return "/".join(parts)


def _own(text: str) -> str:
    """A tar's text as this process's file system functions take it, whatever its locale: the same bytes."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def _name(path: str) -> str:
    """The reverse of `_own`."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def _resolve(entries: Mapping[str, Entry], path: str) -> str:
    followed = 0
    rest = [part for part in path.split("/") if part not in ("", ".")]
    done: list[str] = []
    while rest:
        part = rest.pop(0)
        if part == "..":
            del done[-1:]  # above the root is the root
            continue
        entry = entries.get("/".join([*done, part]))
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


def _hide(layer: _Layer, path: str) -> None:
    """A whiteout hides what is below; what the layer itself has there stays."""
    own = layer.entries.get(path)
    if own is None:
        layer.hidden.add(path)
        return
    layer.irregular = True
    if own.kind is Kind.DIRECTORY:
        layer.opaque.add(path)


def _put_alone(layer: _Layer, entry: Entry) -> None:
    layer.hidden.discard(entry.path)  # Docker takes the whiteout away, and so uncovers a lower directory
    old = layer.entries.get(entry.path)
    if old is not None and not (old.kind is Kind.DIRECTORY and entry.kind is Kind.DIRECTORY):
        layer.irregular = True
        inside = entry.path + "/"
        for path in [path for path in layer.entries if path.startswith(inside)]:
            del layer.entries[path]
        layer.opaque.discard(entry.path)
    layer.entries[entry.path] = entry


def _give(layer: _Layer, linked: Entry, member: tarfile.TarInfo) -> None:
    """What a hard link's own header says goes to the file, and so to all of its names (moby, `createTarFile`)."""
    own: dict[str, Any] = {"uid": _number(member, "uid", _MAX_ID), "gid": _number(member, "gid", _MAX_ID)}
    # The kernel takes a file's capabilities away where its owner is set.
    kept = {key: value for key, value in linked.xattrs.items() if key != "security.capability"}
    own["xattrs"] = kept | _xattrs(member, linked.kind)
    if linked.kind is not Kind.SYMLINK:
        own |= {"mode": member.mode & 0o7777, "mtime_ns": _mtime_ns(member)}
    for path, entry in layer.entries.items():
        if entry.inode == linked.inode:
            layer.entries[path] = replace(entry, **own)


def _in_order(entries: Mapping[str, Entry]) -> list[Entry]:
    return [entries[path] for path in sorted(entries, key=lambda path: path.split("/"))]


def _number(member: tarfile.TarInfo, field: str, most: int) -> int:
    value: int = getattr(member, field)
    if not 0 <= value <= most:
        raise BadInput(f"'{member.name}' in the image has the {field} {value}, and {most} is the highest there can be")
    return value


def _mtime_ns(member: tarfile.TarInfo) -> int:
    # tarfile's own is a float, which has no nanoseconds so far from 1970.
    text = member.pax_headers.get("mtime") or str(int(member.mtime))
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"'{text[:40]}' is no time")
    found = int(Decimal(text) * 1_000_000_000)
    if member.issym():
        return max(-(2**31) * 1_000_000_000, min(found, _MAX_TIME_NS))
    return found if 0 <= found <= _MAX_TIME_NS else 0


def _xattrs(member: tarfile.TarInfo, kind: Kind) -> dict[str, bytes]:
    """Those that Linux keeps: Docker leaves the others out as well, since the kernel refuses them.

    Of `trusted.`, overlay keeps its own notes there, which no image is let write; containerd leaves them out
    (archive/tar_unix.go, setxattr), and no service without CAP_SYS_ADMIN sees one. Raises BadInput.
    """
    found = {}
    for key, text in member.pax_headers.items():
        name = key.removeprefix(_XATTR)
        of_kind = name.startswith("security.") or (
            kind in (Kind.FILE, Kind.DIRECTORY) and (name.startswith("user.") or name in _ACLS)
        )
        if name == key or not text or not of_kind:
            continue
        # tarfile gives these as text; surrogateescape brings the bytes back whole.
        value = text.encode("utf-8", "surrogateescape")
        raw_name = name.encode("utf-8", "surrogateescape")
        if name.endswith(".") or len(raw_name) > _MAX_XATTR_NAME or len(value) > _MAX_XATTR_BYTES:
            raise BadInput(f"'{member.name}' in the image has an extended attribute that no file can: {name[:60]!r}")
        found[_own(name)] = value
    return found


def _tar_info(entry: Entry, first_names: dict[int, str]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(_name(entry.path))
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    seconds, ns = divmod(entry.mtime_ns, 1_000_000_000)
    info.mtime = seconds
    info.pax_headers = {
        **({"mtime": f"{seconds}.{ns:09d}"} if ns or not 0 <= seconds < 8**11 else {}),
        **{f"{_XATTR}{_name(key)}": value.decode("utf-8", "surrogateescape") for key, value in entry.xattrs.items()},
    }
    if entry.inode in first_names:
        info.type, info.linkname = tarfile.LNKTYPE, first_names[entry.inode]
        return info
    if entry.kind is not Kind.DIRECTORY:
        first_names[entry.inode] = info.name
    info.type = next(type_ for type_, kind in _KINDS.items() if kind is entry.kind)
    info.linkname = _name(entry.target)
    info.devmajor, info.devminor = entry.device
    info.size = entry.size
    return info


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name
