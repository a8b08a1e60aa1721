"""Which kernel modules a guest needs, in the order in which they load, and their bytes."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterable
from pathlib import Path

from drivers.libvirt.bzimage import unzstd
from lab.errors import Unsupported

_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
_SIGNED = b"~Module signature appended~\n"
_ABOUT_SIGNATURE = 12


def _plain(name: str) -> str:
    return name.split(".ko", maxsplit=1)[0].replace("-", "_")


def resolve(root: Path, wanted: Iterable[str]) -> list[tuple[str, bytes]]:
    """`(file name, unpacked bytes)` of the `wanted` modules under `/lib/modules/RELEASE` and of all that they depend
    on, each after what it needs; modules built into the kernel are left out.

    Dependencies are read from the modules themselves (`depends=` in .modinfo), since a package that was unpacked and
    not installed has no modules.dep. Raises Unsupported when one is missing or cannot be unpacked.
    """
    builtin, files = _builtin(root), _files(root)
    ordered: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in ordered or name in builtin:
            return
        if name not in files:
            raise Unsupported(
                f"the guest kernel {root.name} has no module {name}",
                resolution="give another kernel with --kernel, whose modules are in /lib/modules",
            )
        data = _unpack(files[name])
        for needed in depends(data):
            visit(needed)
        ordered[name] = data

    for name in wanted:
        visit(_plain(name))
    return [(f"{name}.ko", data) for name, data in ordered.items()]


def known(root: Path, name: str) -> bool:
    """Whether the kernel has it, built in or as a module."""
    return _plain(name) in _builtin(root) | _files(root).keys()


def depends(module: bytes) -> list[str]:
    """The names in a module's `depends=` field; the field stands once, as a zero-terminated string in .modinfo."""
    _, found, rest = module.partition(b"\0depends=")
    if not found:
        return []
    return [_plain(name) for name in rest.split(b"\0")[0].decode("ascii", "replace").split(",") if name]


def without_signature(module: bytes) -> bytes:
    """`module` as it was before it was signed; one that is not signed, or in a way not known here, as it is.

    Behind the module come the signature, 12 bytes about it of which the last 4 are its length, and a line
    (scripts/sign-file.c).
    """
    if not module.endswith(_SIGNED):
        return module
    about = len(module) - len(_SIGNED) - _ABOUT_SIGNATURE
    signature = int.from_bytes(module[about + 8 : about + _ABOUT_SIGNATURE], "big") if about > 0 else 0
    return module[: about - signature] if 0 < signature < about else module


def _builtin(root: Path) -> set[str]:
    return {_plain(Path(line).name) for line in _lines(root / "modules.builtin")}


def _files(root: Path) -> dict[str, Path]:
    return {_plain(path.name): path for path in (root / "kernel").rglob("*.ko*") if path.name.endswith(_SUFFIXES)}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _unpack(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        plain = unzstd(data)
        if plain is None:
            raise Unsupported(f"cannot unpack {path}: there is no zstd here", resolution="sudo apt-get install zstd")
        return plain
    return data
