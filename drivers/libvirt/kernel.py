"""Finds the kernel that guests boot: given, the host's own, or fetched from the distribution's signed packages."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drivers.libvirt.bzimage import read_release
from lab.errors import BadInput, DriverError, DriverUnavailable, Unsupported
from lab.host import programs
from lab.store.place import partial

_NEEDED = ("virtio_pci", "virtio_mmio", "virtio_net", "virtio_blk", "ext4")
_META_PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64", "linux-image-generic")
"""Debian's and Ubuntu's packages that always depend on their newest kernel, the ones made for guests first."""
_APT_TIMEOUT_S = 600
_NO_KERNEL = "give a kernel with --kernel /boot/vmlinuz-RELEASE (its modules in /lib/modules/RELEASE)"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestKernel:
    """A bzImage, its `/lib/modules/RELEASE` folder, and where both came from."""

    image: Path
    modules: Path
    release: str
    origin: str


def find(option: str, cache_dir: Path, *, boot: Path = Path("/boot"), root: Path = Path("/")) -> GuestKernel | None:
    """The kernel to boot, without fetching: `option` (a path), else one of /boot that this user can read and whose
    modules suit, the running one first, else one fetched before; None when there is none of these.

    Raises BadInput for a path that cannot be read, Unsupported where `option` is no x86 kernel or lacks its modules.
    """
    if option:
        return _given(Path(option).expanduser(), root)
    running = boot / f"vmlinuz-{os.uname().release}"
    newest_first = sorted(boot.glob("vmlinuz-*"), key=lambda path: _version_key(path.name), reverse=True)
    for image in sorted(newest_first, key=lambda path: path != running):
        modules = _modules_folder(root, image.name.removeprefix("vmlinuz-"))
        if modules is not None and os.access(image, os.R_OK) and _suits(modules):
            return GuestKernel(image=image, modules=modules, release=modules.name, origin=f"the host's {image}")
    cached = sorted((cache_dir / "kernels").glob("*/image"), key=lambda path: _version_key(path.parent.name))
    return _unpacked(cached[-1].parent) if cached else None


def obtain(option: str, cache_dir: Path) -> GuestKernel:
    """As `find`, and where it finds none, fetch one from the distribution's packages into `cache_dir`.

    apt verifies the archive's signature; the package's SHA256 is then checked against the signed index once more.
    Needs no privilege and installs nothing. Raises as `find` does, and DriverUnavailable where nothing can be fetched.
    """
    return find(option, cache_dir) or _fetch(cache_dir)


def fetchable() -> str:
    """The package that `obtain` would fetch, or "" when there is no such package here. Downloads nothing."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb") or platform.machine() != "x86_64":
        return ""
    return next((name for name in _META_PACKAGES if _show(name)), "")


def _given(image: Path, root: Path) -> GuestKernel:
    try:
        release = read_release(image.read_bytes(), str(image))
    except FileNotFoundError:
        raise BadInput(f"there is no kernel {image}", resolution=_NO_KERNEL) from None
    except PermissionError:
        raise BadInput(
            f"the kernel {image} cannot be read by this user",
            resolution=f"sudo install -m 0644 -o $USER {image} . && give that copy with --kernel",
        ) from None
    except OSError as error:
        raise BadInput(f"the kernel {image} cannot be read: {error.strerror}", resolution=_NO_KERNEL) from None
    modules = _modules_folder(root, release)
    beside = image.parent / "modules" / release
    if modules is None and (beside / "modules.builtin").exists():
        modules = beside
    if modules is None:
        raise Unsupported(
            f"the modules of kernel {release} are not in /lib/modules/{release}",
            resolution=f"install that kernel's package, or put its modules in {beside}",
        )
    return GuestKernel(image=image, modules=modules, release=release, origin=f"given: {image}")


def _modules_folder(root: Path, release: str) -> Path | None:
    for base in (root / "lib/modules", root / "usr/lib/modules"):
        if (base / release / "modules.builtin").exists():
            return base / release
    return None


def _suits(modules: Path) -> bool:
    """Whether the drivers that the lab's guests use are there, built in or as modules."""
    builtin = {Path(line).name for line in (modules / "modules.builtin").read_text().splitlines()}
    files = {path.name.split(".")[0] for path in (modules / "kernel").rglob("*.ko*")}
    return all(f"{name}.ko" in builtin or name in files for name in _NEEDED)


def _version_key(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"[^0-9a-z]+", name) if part]


def _unpacked(folder: Path) -> GuestKernel:
    (modules,) = (folder / "modules").iterdir()
    return GuestKernel(
        image=folder / "image", modules=modules, release=modules.name, origin=f"package {folder.name.replace('_', ' ')}"
    )


def _fetch(cache_dir: Path) -> GuestKernel:
    if platform.machine() != "x86_64":
        raise Unsupported(f"guest kernels are fetched for x86_64 only, and this is {platform.machine()}")
    meta = fetchable()
    if not meta:
        raise DriverUnavailable(
            "there is no guest kernel, and apt offers none to fetch",
            resolution=f"sudo apt-get update, or {_NO_KERNEL}",
        )
    image = _dependency(_show(meta), "linux-image-")  # each asking takes apt some half a second
    stanza = _show(image)
    if not stanza:
        raise DriverUnavailable(f"the package {meta} names no kernel that apt has", resolution="sudo apt-get update")
    packages = {image: stanza}
    if modules := _dependency(stanza, "linux-modules-"):
        packages[modules] = _show(modules)
    kernels = cache_dir / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    target = kernels / f"{image}_{stanza['Version'].replace(':', '%3a')}"
    with partial(cache_dir, "kernel") as folder:
        folder.mkdir()
        for package, told in packages.items():
            _download_and_unpack(package, told, folder)
        _lay_out(folder / "root", folder / "done")
        if not target.exists():
            (folder / "done").replace(target)
    return _unpacked(target)


def _dependency(stanza: Mapping[str, str], prefix: str) -> str:
    """The package that one with this stanza depends on whose name starts with `prefix` and a digit or `unsigned-`; ""
    if none."""
    names = re.findall(r"[a-z0-9][a-z0-9.+-]+", stanza.get("Depends", ""))
    return next((name for name in names if re.match(re.escape(prefix) + r"(unsigned-)?\d", name)), "")


def _show(package: str) -> dict[str, str]:
    """The candidate version's stanza of apt's verified index, by field name; empty when there is none."""
    if not package:
        return {}
    done = subprocess.run(
        ["apt-cache", "--no-all-versions", "show", package],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    fields = (line.split(": ", 1) for line in done.stdout.split("\n\n")[0].splitlines() if ": " in line)
    return {key: value for key, value in fields if not key.startswith(" ")} if done.returncode == 0 else {}


def _download_and_unpack(package: str, stanza: Mapping[str, str], folder: Path) -> None:
    if not stanza:
        raise DriverUnavailable(f"apt does not know the package {package}", resolution="sudo apt-get update")
    _run(["apt-get", "download", f"{package}={stanza['Version']}"], folder, f"apt could not download {package}")
    (archive,) = folder.glob(f"{package}_*.deb")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != stanza["SHA256"]:
        raise DriverUnavailable(
            f"the downloaded {archive.name} is not the file that the signed index names",
            details=f"SHA256 {digest}, expected {stanza['SHA256']}",
            resolution="sudo apt-get update",
        )
    (folder / "root").mkdir(exist_ok=True)
    _run(["dpkg-deb", "-x", archive.name, "root"], folder, f"{archive.name} could not be unpacked")


def _run(argv: list[str], folder: Path, brief: str) -> None:
    try:
        programs.run(argv, doing="fetch the kernel", timeout_s=_APT_TIMEOUT_S, cwd=folder)
    except DriverUnavailable as error:
        raise DriverUnavailable(brief, details=error.brief, resolution=_NO_KERNEL) from error
    except DriverError as error:
        raise DriverUnavailable(
            brief, details=error.details or error.brief, resolution="sudo apt-get update"
        ) from error


def _lay_out(root: Path, done: Path) -> None:
    """From an unpacked package to `image` and `modules/RELEASE`."""
    (image,) = (root / "boot").glob("vmlinuz-*")
    release = read_release(image.read_bytes(), image.name)
    modules = _modules_folder(root, release)
    if modules is None or not _suits(modules):
        raise DriverUnavailable(f"the packaged kernel {release} lacks the drivers of a guest", resolution=_NO_KERNEL)
    (done / "modules").mkdir(parents=True)
    shutil.move(image, done / "image")
    (done / "image").chmod(0o644)
    shutil.move(modules, done / "modules" / release)
