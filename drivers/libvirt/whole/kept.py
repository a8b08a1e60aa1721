"""What lies in the cache of a guest's disk image: the files' names, their hashes, and the manifest that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DISK, KERNEL, INITRAMFS, MANIFEST = "disk.qcow2", "kernel", "initramfs", "manifest.json"
_FORM = 1
"""Of the manifest."""
_FOLDER = "guests"


def place_of(cache_dir: Path, name: str) -> Path:
    """Where the image `name` lies in the cache: a suite's, or `brought-SHA256`."""
    return cache_dir / _FOLDER / name


def folders(cache_dir: Path) -> list[Path]:
    """Every image that is in the cache."""
    return sorted(path.parent for path in (cache_dir / _FOLDER).glob(f"*/{MANIFEST}"))


def manifest(folder: Path) -> dict[str, Any] | None:
    """What the manifest in `folder` says; None where there is none that this lab reads."""
    try:
        told = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) and told.get("form") == _FORM else None


def write_manifest(folder: Path, *, virtual_bytes: int, facts: Mapping[str, str], **more: Any) -> None:
    """Write the manifest of the files that are in `folder`, with their hashes and `more` that is to be known."""
    files = {
        name: {"sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size}
        for name in (DISK, KERNEL, INITRAMFS)
        if (folder / name).exists()
    }
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    told = {"form": _FORM, "made_at": made_at, "virtual_bytes": virtual_bytes, "facts": dict(facts), "files": files}
    (folder / MANIFEST).write_text(json.dumps({**told, **more}, indent=1) + "\n")


def sha256_of(path: Path) -> str:
    """The hash of a file's content, in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
