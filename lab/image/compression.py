"""What archives and their layers are compressed with, told by their first bytes, and undone as a stream."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import IO, cast

import zstandard

_GZIP, _ZSTD, _XZ, _BZIP2 = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"
_BZIP2_BLOCK = (b"1AY&SY", b"\x17rE8P\x90")  # of the first block, or of an empty stream's end
_ZSTD_SKIPPABLE = frozenset(bytes([first, 0x2A, 0x4D, 0x18]) for first in range(0x50, 0x60))  # RFC 8878, 3.1.2
_LONGEST = 10
_COPY_BYTES = 1024 * 1024

ERRORS = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError)
"""What a damaged stream raises; bz2 raises a bare OSError."""


def is_compressed(file: IO[bytes]) -> bool:
    """Whether `file`, which is left where it was, begins as gzip, zstd, xz or bzip2 do."""
    return _kind(file) != b""


def decompressed(file: IO[bytes]) -> IO[bytes]:
    """The plain bytes of `file` as a stream; itself where it is not compressed. Reading raises one of ERRORS for
    damage."""
    match _kind(file):
        case b"":
            return file
        case kind if kind == _GZIP:
            return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
        case kind if kind == _ZSTD:
            # Several frames, and skippable ones between them, are one stream (zstd:chunked, pzstd).
            return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
        case kind if kind == _XZ:
            return lzma.LZMAFile(file)
        case _:
            return cast("IO[bytes]", _Bzip2(file))


def copy_plain(source: IO[bytes], target: IO[bytes]) -> None:
    """Write the plain bytes of `source` to `target`. Raises one of ERRORS, OSError."""
    plain = decompressed(source)
    while block := plain.read(_COPY_BYTES):
        target.write(block)


def _kind(file: IO[bytes]) -> bytes:
    at = file.tell()
    head = file.read(_LONGEST)
    file.seek(at)
    if head[:4] in _ZSTD_SKIPPABLE:
        return _ZSTD
    # A plain tar begins with its first file's name, which may begin with BZh.
    if head.startswith(_BZIP2):
        return _BZIP2 if head[4:].startswith(_BZIP2_BLOCK) else b""
    return next((magic for magic in (_GZIP, _ZSTD, _XZ) if head.startswith(magic)), b"")


class _Bzip2(io.RawIOBase):
    """bz2's reader, whose damage is told apart from the disk's by its kind."""

    def __init__(self, file: IO[bytes]) -> None:
        self._inner = bz2.BZ2File(file)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        try:
            return self._inner.read(-1 if size is None else size)
        except OSError as error:
            if error.errno is None:
                raise EOFError(str(error)) from error
            raise
