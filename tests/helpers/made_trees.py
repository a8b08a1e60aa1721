"""Twenty and more images of which each is hard in its own way, and what a tree shows of itself."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from made_image import directory, hardlink, layer, member, symlink

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 2**32 - 1), (2, 4, 1234), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1))
)
"""system.posix_acl_access: owner rw, user 1234 r, group r, mask r, others none (linux/posix_acl_xattr.h)."""


@dataclass(frozen=True, slots=True)
class MadeTree:
    """An image's layers; `irregular` where Docker itself refuses them."""

    layers: tuple[bytes, ...]
    irregular: bool = False


def made_trees() -> dict[str, MadeTree]:
    """By what is hard in them. Names of directories that every engine fills (etc, dev, ...) are left out."""
    base = layer(
        directory("d", mode=0o700, uid=7, gid=8, mtime=5, xattrs={"user.d": b"lower"}),
        member("d/f", b"lower", uid=9),
        directory("d/e"),
        member("d/e/g", b"deep"),
        symlink("way", "d"),
        member("other", b"other"),
    )

    def regular(*layers: bytes) -> MadeTree:
        return MadeTree(layers)

    def irregular(*layers: bytes) -> MadeTree:
        return MadeTree(layers, irregular=True)

    sparse = _sparse()
    return {
        "kinds": regular(_kinds()),
        "parents missing": regular(layer(member("a/b/c", b"1"), symlink("x/y", "z"), directory("p/q", mode=0o711))),
        "parents missing above others": regular(base, layer(member("d/e/new", b"2"))),
        "xattrs": regular(_xattrs()),
        "every byte": regular(layer(*(member(_of_byte(byte), bytes([byte])) for byte in range(1, 256) if byte != 47))),
        "long names": regular(
            layer(member("n" * 255, b"1"), member("/".join(["deep" * 20] * 12), b"2"), symlink("l", "x" * 1500)),
            layer(member("g" * 200 + "/" + "h" * 250, b"3"), form=tarfile.GNU_FORMAT),
        ),
        "times": regular(_times()),
        "whiteouts": regular(base, layer(member(".wh.other"), member("d/.wh.e"), member("d/h", b"new"))),
        "whiteout in a directory not named": regular(base, layer(member("d/e/.wh.g"))),
        "opaque": regular(base, layer(directory("d", mode=0o711), member("d/.wh..wh..opq"), member("d/new", b"n"))),
        "opaque at last": regular(base, layer(member("d/new", b"n"), member("d/.wh..wh..opq")), layer(member("d/x"))),
        "comes back": regular(base, layer(member(".wh.other")), layer(member("other", b"2")), layer(member(".wh.d"))),
        "whiteout and anew": regular(base, layer(member(".wh.d"), directory("d", mode=0o711), member("d/new"))),
        "other kinds": regular(
            base,
            layer(member("d", b"a file"), directory("other"), member("other/in"), directory("way"), member("way/in")),
            layer(directory("d"), member("d/only"), symlink("other", "d")),
        ),
        "hard links": regular(
            layer(
                member("a", b"same", uid=3, xattrs={"user.x": b"1"}),
                hardlink("b", "a", uid=4, mode=0o4755, mtime=9),
                directory("c"),
                member("able", b"x", xattrs={"security.capability": CAPABILITY, "user.y": b"1"}),
                hardlink("unable", "able", xattrs={"user.z": b"2"}),
                member("able2", b"x"),
                hardlink("able3", "able2", xattrs={"security.capability": CAPABILITY}),
                hardlink("c/a", "b"),
                symlink("s", "nowhere"),
                hardlink("s2", "s"),
                member("n", type=tarfile.FIFOTYPE),
                hardlink("c/n", "n"),
                member("z", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
                hardlink("c/z", "z"),
            )
        ),
        "hard links in two layers": regular(
            layer(member("a", b"same"), hardlink("b", "a"), hardlink("c", "a")),
            layer(member("b", b"changed"), hardlink("e", "b"), member(".wh.c")),
        ),
        "hard link to a lower layer": irregular(base, layer(hardlink("link", "d/f"))),
        "sparse": regular(layer(directory("sparse")), *(sparse[form] for form in ("0.0", "0.1", "1.0"))),
        "sparse by old tar": irregular(sparse["gnu"]),
        "empty layers": regular(b"", base, b"", layer(), layer(member("after"))),
        "links as parents": regular(
            layer(directory("real"), symlink("alias", "real"), member("alias/in", b"1"), symlink("abs", "/real")),
            layer(member("alias/above", b"2")),
        ),
        "said twice": irregular(
            layer(member("f", b"1"), member("f", b"22"), directory("d"), member("d/in"), directory("d", mode=0o700))
        ),
        "whiteout too late": irregular(base, layer(directory("d", mode=0o711), member("d/new"), member(".wh.d"))),
        "large numbers": regular(
            layer(
                member("id", uid=2**31 + 5, gid=2**32 - 2),
                member("device", type=tarfile.BLKTYPE, devmajor=259, devminor=70_000, mode=0o640),
                member("far", type=tarfile.CHRTYPE, devmajor=4095, devminor=1_048_575),
            )
        ),
        "overlay's and aufs' own": regular(
            base,
            layer(member("other", type=tarfile.CHRTYPE), directory(".wh..wh.plnk"), member(".wh..wh.aufs")),
        ),
        "a global header": regular(_global_header() + layer(member("f", b"1", mtime=7))),
    }  # fmt: skip


def tree_of(root: Path, *, without: Collection[str] = (), untimed: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """What every name below `root` shows, but for what lies at or below the top's names `without`, and the times of
    `untimed`. Size and time of a directory that the engine made are its own affair."""
    found: dict[str, dict[str, Any]] = {}
    inodes: dict[tuple[int, int], list[str]] = defaultdict(list)
    for parent, directories, files in os.walk(os.fsencode(root)):
        for name in [*directories, *files]:
            path = parent + b"/" + name
            shown = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
            if shown.split("/")[0] in without:
                continue
            found[shown] = _one(path)
            if shown in untimed:
                del found[shown]["mtime_ns"]
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode):
                inodes[status.st_dev, status.st_ino].append(shown)
    for names in inodes.values():
        for shown in names:
            found[shown]["names"] = sorted(names)
    return found


def _one(path: bytes) -> dict[str, Any]:
    status = os.lstat(path)
    shown: dict[str, Any] = {
        "mode": oct(status.st_mode),
        "owner": (status.st_uid, status.st_gid),
        "mtime_ns": status.st_mtime_ns,
        # overlay's own notes; no service sees another of `trusted.` either
        "xattrs": {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
            if not key.startswith("trusted.")
        },
    }
    if stat.S_ISREG(status.st_mode):
        shown["size"] = status.st_size
        shown["content"] = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        shown["target"] = os.fsencode(Path(os.fsdecode(path)).readlink())
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        shown["device"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return shown


def _kinds() -> bytes:
    return layer(
        directory("d", mode=0o3775, uid=1234, gid=70_000, mtime=1_000_000_000),
        member("d/setid", b"P", mode=0o6755, uid=100_001, gid=7, mtime=1_000_000_000),
        member("d/none", b"", mode=0),
        symlink("d/link", "/nowhere/at all", uid=9, mtime=77),
        member("d/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o622),
        member("d/block", type=tarfile.BLKTYPE, devmajor=7, devminor=0, mode=0o660, gid=6),
        member("d/pipe", type=tarfile.FIFOTYPE, mode=0o640, uid=5),
        directory("d/sticky", mode=0o1777),
        member('d/with "quotes", <12> $HOME and \\', b"q"),
    )


def _xattrs() -> bytes:
    named = {
        "user.a": b"1",
        "user.with \xe4".encode().decode(): b"\0\xff\n",
        "security.capability": CAPABILITY,
        "system.posix_acl_access": ACL,
        "com.apple.quarantine": b"foreign",
        "system.nothing": b"x",
        "user.empty": b"",
    }
    return layer(
        member("file", b"x", mode=0o640, xattrs=named),
        directory("directory", xattrs={"user.d": b"2", "security.zzz": b"3"}),
        symlink("link", "file", xattrs={"user.a": b"1", "security.zzz": b"on a link"}),
        member("pipe", type=tarfile.FIFOTYPE, xattrs={"user.a": b"1", "security.zzz": b"on a pipe"}),
    )


def _times() -> bytes:
    times = {
        "zero": "0", "exact": "1234567890.123456789", "later": "2147483648.5", "unsigned": "4294967296.25",
        "far": "8589934592.000000001", "beyond": "1099511627776", "before": "-5.5", "long-before": "-34359738368",
    }  # fmt: skip
    return layer(
        *(member(f"f-{name}", pax={"mtime": text}) for name, text in times.items()),
        *(directory(f"d-{name}", pax={"mtime": text}) for name, text in times.items()),
        symlink("l-before", "x", pax={"mtime": "-7"}),
        symlink("l-exact", "x", pax={"mtime": "1234567890.123456789"}),
        symlink("l-far", "x", pax={"mtime": "8589934592.5"}),
    )


def _of_byte(byte: int) -> str:
    return "b" + bytes([byte]).decode("utf-8", "surrogateescape")


def _sparse() -> dict[str, bytes]:
    """A sparse file by GNU tar, in each of its forms."""
    with tempfile.TemporaryDirectory() as text:
        names = {"gnu": ("gnu", []), **{v: (v, [f"--sparse-version={v}"]) for v in ("0.0", "0.1", "1.0")}}
        made = {}
        for form, (name, options) in names.items():
            with (Path(text) / name).open("wb") as file:
                for at in range(0, 24 << 16, 1 << 16):  # more pieces than the first header tells of
                    file.seek(at)
                    file.write(f"at {at}".encode())
                file.truncate(2 << 20)
            kind = "gnu" if form == "gnu" else "pax"
            argv = ["tar", "-C", text, "-S", f"--format={kind}", *options, "-cf", "-", name]
            made[form] = subprocess.run(argv, capture_output=True, check=True).stdout
        return made


def _global_header() -> bytes:
    return tarfile.TarInfo.create_pax_global_header({"comment": "of git", "mtime": "12345", "uid": "77"})
