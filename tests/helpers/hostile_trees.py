"""Images made to break out of their tree, unpacked and added to by the lab itself, while all around is watched."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from drivers.barehost.rootfs import unpack
from drivers.libvirt.rootfs import lay_out
from lab.errors import BadInput
from lab.image import ImageArchive, open_image
from lab.image.archive import machine_architecture
from lab.image.process import process_of
from lab.image.tree import Tree

SECRET = b"canary: what no image may read or change"
NOBODY = 65534
_CLONE_NEWNS = 0x00020000  # linux/sched.h
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000  # linux/mount.h
_OUT = "@OUT@"
"""In a generated name: the directory outside, which is known only once it is made."""

_TAME = st.sampled_from(["a", "b", "etc", "hosts", "passwd", "", ".", "...", "canary", "up", "x\ny", "-f", '"'])
_HIDING = st.sampled_from([".wh.a", ".wh.etc", ".wh..wh..opq", ".wh..wh.plnk"])
_WILD = st.sampled_from(["..", "..", ".wh.", ".wh..", ".wh..."])
_PREFIXES = st.sampled_from(["", "", "", "/", "./", f"{_OUT}/", "/proc/self/root/", "a/", "etc/", "b/"])


def _names(last: st.SearchStrategy[str], parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda prefix, parts, last: prefix + "/".join([*parts, last]), _PREFIXES, st.lists(parts, max_size=3), last
    )


_ANY = st.one_of(_TAME, _TAME, _WILD)
WILD_NAMES = _names(_ANY, _ANY)
_TAME_NAMES = _names(st.one_of(_TAME, _TAME, _TAME, _HIDING), _TAME)
_NAMES = st.integers(0, 39).flatmap(lambda number: WILD_NAMES if number == 0 else _TAME_NAMES)
"""Mostly names that are not refused, since a refused image does nothing else."""
_TARGETS = st.one_of(
    WILD_NAMES,
    st.sampled_from(
        [_OUT, f"{_OUT}/etc", f"{_OUT}/canary", "/", "..", "../..", ".", "a", "/etc", "/proc/self/cwd", "etc"]
    ),
)
_TYPES = st.sampled_from(
    [tarfile.DIRTYPE] * 3
    + [tarfile.REGTYPE] * 3
    + [tarfile.SYMTYPE] * 6
    + [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
_XATTRS = st.sampled_from(
    [{}] * 6
    + [
        {"trusted.overlay.redirect": f"{_OUT}/etc"},
        {"trusted.overlay.opaque": "y"},
        {"user.x": "1"},
        {"security.capability": "\x01\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"},
        {"-f/etc/shadow": "x"},
    ]
)


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    type: bytes
    target: str
    mode: int
    xattrs: dict[str, str]


_MEMBERS = st.builds(
    Member,
    name=_NAMES,
    type=_TYPES,
    target=_TARGETS,
    mode=st.sampled_from([0o644, 0o755, 0o4755, 0o000, 0o1777]),
    xattrs=_XATTRS,
)
_HARD_LINKS = st.builds(
    Member,
    name=_NAMES,
    type=st.just(tarfile.LNKTYPE),
    target=st.sampled_from(["a", "/a", "etc/hosts", "up", "etc/canary", "a/passwd", f"{_OUT}/canary"]),
    mode=st.just(0o666),
    xattrs=st.just({}),
)
_BASE = st.sampled_from(
    [
        [],
        *(
            [
                Member("etc", *etc, 0o755, {}),
                Member("a", *a, 0o755, {}),
                Member("up", tarfile.SYMTYPE, "../../..", 0o777, {}),
                Member("etc/hosts", tarfile.SYMTYPE, f"{_OUT}/canary", 0o777, {}),
                Member("etc/canary", tarfile.REGTYPE, "", 0o644, {}),
            ]
            for etc in ((tarfile.DIRTYPE, ""), (tarfile.SYMTYPE, f"{_OUT}/etc"), (tarfile.SYMTYPE, "../../etc"))
            for a in ((tarfile.REGTYPE, ""), (tarfile.SYMTYPE, _OUT), (tarfile.SYMTYPE, "/proc/self/root"))
        ),
    ]
)
LAYERS = st.builds(
    lambda base, above: [base, *above],
    _BASE,
    st.lists(st.lists(st.one_of(_MEMBERS, _MEMBERS, _MEMBERS, _HARD_LINKS), max_size=6), min_size=1, max_size=3),
)
ASKED = st.lists(WILD_NAMES, min_size=1, max_size=4)


def archive(path: Path, layers: list[list[Member]], out: str, *, user: str = "") -> Path:
    """Write `layers` as `docker save` does, names and targets with `out` in the place of `@OUT@`."""
    packed = [_layer(members, out) for members in layers]
    config = json.dumps(
        {
            "architecture": machine_architecture(),
            "os": "linux",
            "config": {"Entrypoint": ["/a"], "User": user},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in packed]},
        }
    ).encode()
    names = [f"{place}.tar" for place in range(len(packed))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": ["x:y"], "Layers": names}]).encode()
    with tarfile.open(path, "w") as outer:
        for name, content in {
            "config.json": config,
            "manifest.json": manifest,
            **dict(zip(names, packed, strict=True)),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            outer.addfile(info, io.BytesIO(content))
    return path


def _layer(members: list[Member], out: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for member in members:
            info = tarfile.TarInfo(member.name.replace(_OUT, out))
            info.type, info.mode, info.mtime = member.type, member.mode, 1_000_000_000
            info.pax_headers = {f"SCHILY.xattr.{key}": value.replace(_OUT, out) for key, value in member.xattrs.items()}
            content = b"of the image" if member.type == tarfile.REGTYPE else b""
            if member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = member.target.replace(_OUT, out)
            if member.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                info.devmajor, info.devminor = 1, 3  # /dev/null, and a block device that is not there
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Around:
    """A place full of canaries, with the tree to be filled deep inside it."""

    def __init__(self, folder: Path, *, made: bool = False) -> None:
        self.folder = folder
        self.outside = folder / "outside"
        self.deep = folder / "in" / "up" / "a"
        self.tree = self.deep / "tree"
        if made:
            return
        self.deep.mkdir(parents=True)
        for place in (self.outside, folder, folder / "in", folder / "in/up", self.deep):
            for name in ("etc", "b"):
                (place / name).mkdir(parents=True)
                for file in ("hosts", "passwd", "canary", "a"):
                    (place / name / file).write_bytes(SECRET)
            for file in ("hosts", "passwd", "canary"):
                (place / file).write_bytes(SECRET)

    def seen_from_inside(self) -> Around:
        """The same place, once its folder is `/`."""
        return Around(Path("/"), made=True)

    def state(self) -> list[tuple[object, ...]]:
        """All that lies around the tree and the image."""
        found = []
        for folder, folders, files in os.walk(self.folder):
            here = Path(folder)
            folders[:] = [name for name in folders if here / name not in (self.tree, self.folder / "proc")]
            names = [name for name in (*folders, *files) if here / name not in (self.deep, self.deep / "image.tar")]
            found += [(str(here / name), *_look(here / name)) for name in sorted(names)]
        return sorted(found)


def _look(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(found.st_mode) else ""
    names = tuple(os.listxattr(path, follow_symlinks=False))
    return (found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_nlink, found.st_ctime_ns, content, names)


def attempt(around: Around, layers: list[list[Member]], asked: list[str], *, privileged: bool) -> bool:
    """Do all that the lab does with an image's tree; whether the image was taken. Raises AssertionError for a leak."""
    asked = [name.replace(_OUT, str(around.outside)) for name in asked]
    around.tree.mkdir(mode=0o755)
    image_file = around.deep / "image.tar"
    try:
        archive(image_file, layers, str(around.outside))
        try:
            with open_image(image_file) as image:
                process_of(image)
                _add(image, asked)
                _fill(image, around.tree, privileged=privileged)
        except (BadInput, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _EXPECTED:
                raise
            taken = False
        else:
            taken = True
        _use(around.tree, asked)
        _no_secret(around.tree)
    finally:
        image_file.unlink(missing_ok=True)
        _writable(around.tree)
        shutil.rmtree(around.tree)
    return taken


_EXPECTED = {errno.EOPNOTSUPP, errno.EPERM, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EEXIST}


def _add(image: ImageArchive, asked: list[str]) -> None:
    for name in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", *asked[:1]):
        image.add_file(name, b"of the lab")
    for name in ("/tmp", "/proc", *asked):
        image.add_directory(name)


def _fill(image: ImageArchive, tree: Path, *, privileged: bool) -> None:
    if privileged:
        unpack(image, tree)
    else:
        lay_out(image, list(image.entries()), tree)


def _use(root: Path, asked: list[str]) -> None:
    """What a driver may add to and read of a tree that is there, by names that an image may choose."""
    with Tree(root) as tree:
        for name in ("/etc/hosts", "/etc/passwd", *asked):
            with contextlib.suppress(OSError):
                assert SECRET not in tree.read(name, limit_bytes=4096)
            with contextlib.suppress(OSError):
                os.close(tree.open(name, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o600))
            with contextlib.suppress(OSError):
                tree.write(name, b"of the lab")
            with contextlib.suppress(OSError):
                tree.make_directory(name)
            with contextlib.suppress(OSError, ValueError), tree.at(name) as path:
                path.mkdir()
                os.chown(path, os.getuid(), os.getgid(), follow_symlinks=False)
            with contextlib.suppress(OSError, ValueError), tree.at(name) as path:
                path.unlink()


def _no_secret(root: Path) -> None:
    """No file of the tree is a canary, by another name or as a copy."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_size == len(SECRET):
                with contextlib.suppress(PermissionError):
                    assert path.read_bytes() != SECRET, path


def _writable(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        Path(folder).chmod(0o700)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many images were tried, and taken; `problem` is empty, or what changed outside and by which image."""

    tried: int
    taken: int
    problem: str


def check(examples: int, *, privileged: bool, shrink: bool = True) -> Outcome:
    """Try `examples` hostile images in a child process; without `privileged` it is nobody, where this is root.
    With `shrink` the image that is told of is the smallest that does so.

    Root's child has the place with the canaries as its `/`, so that a lab that follows links out of a tree does no harm
    to this host, and whatever it does is seen.
    """
    with tempfile.TemporaryDirectory(prefix="hostile-", dir="/tmp") as folder:
        top = Path(folder)
        top.chmod(0o755)
        owner = 0 if privileged or os.geteuid() != 0 else NOBODY
        around = Around(top)
        (top / "proc").mkdir()
        (top / "tmp").mkdir()
        if owner:
            for path in (top, *top.rglob("*")):
                os.chown(path, owner, owner)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                json.dump(_tried(examples, around, owner, privileged=privileged, shrink=shrink), pipe)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
    return Outcome(*json.loads(said))


def _tried(examples: int, around: Around, owner: int, *, privileged: bool, shrink: bool) -> tuple[int, int, str]:
    tried: list[bool] = []
    try:
        _try(
            1, around, [], privileged=privileged, shrink=shrink
        )  # what is imported on first use is imported while it can be
        if os.geteuid() == 0:
            _confine(around.folder, owner)
            around = around.seen_from_inside()
        _try(examples, around, tried, privileged=privileged, shrink=shrink)
    except BaseException:
        return len(tried), sum(tried), traceback.format_exc()[-30_000:] or "it failed"
    return len(tried), sum(tried), ""


def _confine(folder: Path, owner: int) -> None:
    """Have `folder` as `/` in a mount namespace of this process's own, with a /proc, and be `owner`."""
    libc = ctypes.CDLL(None, use_errno=True)
    for done in (
        libc.unshare(_CLONE_NEWNS),
        libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None),
        libc.mount(b"proc", os.fsencode(folder / "proc"), b"proc", ctypes.c_ulong(0), None),
    ):
        if done != 0:
            raise OSError(ctypes.get_errno(), "the child cannot be confined")
    os.chroot(folder)
    os.chdir("/")
    if owner:
        os.setgroups([])
        os.setgid(owner)
        os.setuid(owner)


def _try(examples: int, around: Around, tried: list[bool], *, privileged: bool, shrink: bool) -> None:
    before = around.state()

    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]

    @settings(
        max_examples=examples, phases=phases, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(layers=LAYERS, asked=ASKED)
    def outside_stays(layers: list[list[Member]], asked: list[str]) -> None:
        taken = attempt(around, layers, asked, privileged=privileged)
        assert around.state() == before
        tried.append(taken)

    outside_stays()
