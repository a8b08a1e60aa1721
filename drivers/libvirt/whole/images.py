"""Disk images of whole guests: what there is in the cache, found, verified, and laid out for a run's launches.

    guests/SUITE/            built by `lab guest build`
    guests/brought-SHA256/   brought by `--guest-image`, under the hash that was asked for

Each folder has `disk.qcow2`, perhaps `kernel` and `initramfs`, and `manifest.json`, which says what they are and what
their hashes were when they were put there; it appears whole, by one rename.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from drivers.libvirt.whole import recipe
from drivers.libvirt.whole.bringing import bring, is_remote, refuse_unhashed, shown
from drivers.libvirt.whole.kept import DISK, INITRAMFS, KERNEL, manifest, place_of, sha256_of
from lab.driver import Context, say_nothing
from lab.errors import BadInput, DriverError, DriverUnavailable
from lab.store.place import filling

__all__ = ["GuestImage", "brought", "brought_before", "built", "chosen", "is_remote", "placed", "shown"]

DEFAULT_SUITE = "bookworm"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestImage:
    """A disk and what boots it. `disk` is a qcow2 without a backing file, `virtual_bytes` large to its guest; launches
    write to a layer of their own over it. `kernel` and `initramfs` are None where it boots by its own boot loader;
    `root` is else the kernel's `root=`. `suite` is "" for an image that was brought. `facts` are versions as installed:
    `distribution`, `kernel`, `systemd`, `openssh`, `cloud-init`.
    """

    disk: Path
    sha256: str
    suite: str
    kernel: Path | None
    initramfs: Path | None
    root: str
    virtual_bytes: int
    facts: Mapping[str, str] = field(default_factory=dict)


def chosen(context: Context) -> GuestImage:
    """The image that the options name: `guest-image` with `sha256`, or the one built here of `suite`.

    Raises as `brought` and `built` do.
    """
    where, sha256 = context.options.get("guest-image", ""), context.options.get("sha256", "")
    if where:
        return brought(context.cache_dir, where, sha256, say=context.say)
    return built(context.cache_dir, context.options.get("suite", DEFAULT_SUITE))


def built(cache_dir: Path, suite: str) -> GuestImage:
    """The image of `suite` that `lab guest build` has put into the cache; its kernel and initramfs are verified now,
    its disk by `placed`.

    Raises BadInput for a suite that is none, DriverUnavailable where it is to be built, or built anew.
    """
    recipe.known(suite)
    folder = place_of(cache_dir, suite)
    remedy = f"lab guest build --suite {suite}"
    told = manifest(folder)
    if told is None:
        raise DriverUnavailable(f"there is no guest image of {suite} yet", resolution=remedy)
    if told.get("recipe") != recipe.digest(suite):
        raise DriverUnavailable(
            f"the guest image of {suite} was built by another version of the lab", resolution=remedy
        )
    image = _read(folder, told, suite=suite)
    for name in (KERNEL, INITRAMFS):
        if sha256_of(folder / name) != told["files"][name]["sha256"]:
            raise DriverUnavailable(f"{folder / name} is not what was built", resolution=f"{remedy} --again")
    return image


def brought(cache_dir: Path, where: str, sha256: str, *, say: Callable[[str], None] = say_nothing) -> GuestImage:
    """The image that is at `where`, a file or a URL, whose content has the hash `sha256`: from the cache, or fetched
    into it once. `say` is told how that goes.

    Raises BadInput where the hash is missing or another, or the content is no disk image that stands by itself;
    DriverUnavailable where it cannot be fetched, or qemu-img is missing.
    """
    found = brought_before(cache_dir, where, sha256)
    if found is None:
        wanted = _wanted(where, sha256)
        bring(cache_dir, place_of(cache_dir, f"brought-{wanted}"), where, wanted, say=say)
        found = brought_before(cache_dir, where, sha256)
    if found is None:
        raise DriverError("the image was removed from the cache while it was fetched into it", resolution="try again")
    return found


def brought_before(cache_dir: Path, where: str, sha256: str) -> GuestImage | None:
    """As `brought`, from the cache alone: None where it is yet to be fetched. Raises BadInput as that does."""
    folder = place_of(cache_dir, f"brought-{_wanted(where, sha256)}")
    told = manifest(folder)
    return _read(folder, told, suite="") if told is not None else None


def _wanted(where: str, sha256: str) -> str:
    """The hash as it is written everywhere. Raises BadInput where it is missing, or none."""
    wanted = sha256.strip().lower()
    if not wanted:
        refuse_unhashed(where)
    if not _SHA256.fullmatch(wanted):
        raise BadInput(f"'{sha256}' is no SHA-256: it is 64 hexadecimal digits", resolution="sha256sum FILE tells it")
    return wanted


def placed(image: GuestImage, folder: Path) -> GuestImage:
    """`image` with its files copied into `folder`, a run's own, in which QEMU's user can open them; what is there
    already stays. The disk's hash is verified on the way, so that what was verified is what is booted.

    Raises DriverError where it is another than it was, PlaceError where there is no room.
    """
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    stem = image.sha256[:16]

    def place(path: Path, sha256: str) -> Path:
        to = folder / f"{stem}-{path.name}"
        if not to.exists():
            with filling("a guest's disk", folder, needs_bytes=path.stat().st_size):
                _copy(path, to, sha256)
        return to

    return replace(
        image,
        disk=place(image.disk, image.sha256),
        kernel=place(image.kernel, "") if image.kernel else None,
        initramfs=place(image.initramfs, "") if image.initramfs else None,
    )


def _read(folder: Path, told: Mapping[str, Any], *, suite: str) -> GuestImage:
    has_kernel = KERNEL in told["files"]
    return GuestImage(
        disk=folder / DISK,
        sha256=told["files"][DISK]["sha256"],
        suite=suite,
        kernel=folder / KERNEL if has_kernel else None,
        initramfs=folder / INITRAMFS if has_kernel else None,
        root=told.get("root", ""),
        virtual_bytes=told["virtual_bytes"],
        facts=told.get("facts", {}),
    )


def _copy(path: Path, to: Path, sha256: str) -> None:
    """Copy `path`, whose content is to have the hash `sha256`, if one is given. Raises DriverError, OSError."""
    made = to.with_name(f".{to.name}.{os.getpid()}")
    found = hashlib.sha256()
    try:
        made.touch(mode=0o600)  # before it has content; libvirt gives it to QEMU's user
        with path.open("rb") as source, made.open("wb") as target:
            while chunk := source.read(_CHUNK):
                found.update(chunk)
                target.write(chunk)
        if sha256 and found.hexdigest() != sha256:
            raise DriverError(
                f"{path} is not what it was: its SHA-256 is {found.hexdigest()}, and was {sha256}",
                resolution=f"remove it with `lab guest remove {path.parent.name}`, and have it made again",
            )
        made.replace(to)
    finally:
        made.unlink(missing_ok=True)
