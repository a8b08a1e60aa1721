"""Finds the kernel that guests boot: given, the host's own, or fetched from the distribution's signed packages."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from drivers.libvirt.kernels import archive
from drivers.libvirt.kernels.architecture import X86_64, Architecture
from drivers.libvirt.kernels.archive import HOST, Apt, Packaged, meets, version_key
from drivers.libvirt.kernels.images import plain_image, read_release
from lab.driver import say_nothing
from lab.errors import BadInput, DriverError, DriverUnavailable, Unsupported
from lab.host import programs
from lab.store.place import partial

_NEEDED = ("virtio_pci", "virtio_mmio", "virtio_net", "virtio_blk", "ext4")
_META_PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64", "linux-image-generic")
"""Debian's and Ubuntu's packages that always depend on their newest kernel, the ones made for guests first."""
_VERSION = re.compile(r"\d+\.\d+[0-9A-Za-z.+~-]*")
_APT_TIMEOUT_S = 600
_NO_KERNEL = "give a kernel with --kernel /boot/vmlinuz-RELEASE (its modules in /lib/modules/RELEASE)"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestKernel:
    """A kernel's image, its `/lib/modules/RELEASE` folder, and where both came from."""

    image: Path
    modules: Path
    release: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which kernel: the image at `path`, or one of the archive by `version` (`6.12`, `6.12.117`, or the whole
    release), or without either whichever there is; for `architecture`. `say` tells of what takes long."""

    path: str = ""
    version: str = ""
    architecture: Architecture = X86_64
    say: Callable[[str], None] = field(default=say_nothing, compare=False)

    def __post_init__(self) -> None:
        if self.version and not _VERSION.fullmatch(self.version):
            raise BadInput(f"'{self.version}' is no kernel's version", resolution="write it as 6.12 or 6.12.117")
        if self.version and self.path:
            raise BadInput(
                f"a kernel is given ({self.path}), and another is asked for by version ({self.version})",
                resolution="leave out --kernel, or the version",
            )


def find(wanted: Wanted, cache_dir: Path, *, boot: Path = Path("/boot"), root: Path = Path("/")) -> GuestKernel | None:
    """The kernel to boot, without fetching: the one at `path`; else the newest of that `version` fetched before; else,
    of this host's architecture, one of /boot that this user can read and whose modules suit, the running one first;
    else one fetched before; None when there is none of these.

    Raises BadInput for a path that cannot be read, Unsupported where it is no kernel for the architecture or lacks its
    modules.
    """
    if wanted.path:
        return _given(Path(wanted.path).expanduser(), root, wanted.architecture)
    if not wanted.version and wanted.architecture is X86_64:
        running = boot / f"vmlinuz-{os.uname().release}"
        newest_first = sorted(boot.glob("vmlinuz-*"), key=lambda path: version_key(path.name), reverse=True)
        for image in sorted(newest_first, key=lambda path: path != running):
            modules = _modules_folder(root, image.name.removeprefix("vmlinuz-"))
            if modules is not None and os.access(image, os.R_OK) and _suits(modules):
                return GuestKernel(image=image, modules=modules, release=modules.name, origin=f"the host's {image}")
    cached = sorted(_cached(cache_dir, wanted), key=lambda path: version_key(path.name))
    return _unpacked(cached[-1]) if cached else None


def obtain(wanted: Wanted, cache_dir: Path) -> GuestKernel:
    """As `find`, and where it finds none, fetch one from the distribution's packages into `cache_dir`.

    apt verifies the archive's signature; the package's SHA256 is then checked against the signed index once more.
    Needs no privilege and installs nothing. Raises as `find` does, BadInput for a version that the archive has not, and
    DriverUnavailable where nothing can be fetched.
    """
    return find(wanted, cache_dir) or _fetch(wanted, cache_dir)


def fetchable(wanted: Wanted, cache_dir: Path) -> str:
    """The package that `obtain` would fetch, or "" when there is no such package here. Downloads no package, and the
    archive's lists only where a version is asked for that the host's own apt does not know. Raises as `obtain`."""
    if wanted.version:
        return _of_version(wanted, cache_dir)[1].package
    if wanted.architecture is not X86_64:
        if why := archive.missing():
            raise DriverUnavailable(why[0], resolution=why[1])
        return f"of Debian's {_suite(wanted.architecture)} for {wanted.architecture.debian}"
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return ""
    return next((name for name in _META_PACKAGES if HOST.show(name)), "")


def _given(image: Path, root: Path, architecture: Architecture) -> GuestKernel:
    try:
        release = read_release(image, architecture)
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


def _folder(cache_dir: Path, wanted: Wanted) -> Path:
    """Where such kernels lie that were fetched. Those by version are apart: what a guest gets that asks for none is the
    same as before somebody asked for one."""
    machine = "" if wanted.architecture is X86_64 else f"-{wanted.architecture.debian}"
    return cache_dir / f"kernels{machine}{'-chosen' if wanted.version else ''}"


def _cached(cache_dir: Path, wanted: Wanted) -> list[Path]:
    places = {_folder(cache_dir, one) for one in (wanted, replace(wanted, version=""))}
    folders = [path.parent for place in places for path in place.glob("*/image")]
    return [folder for folder in folders if not wanted.version or meets(_unpacked(folder).release, wanted.version)]


def _unpacked(folder: Path) -> GuestKernel:
    (modules,) = (folder / "modules").iterdir()
    return GuestKernel(
        image=folder / "image", modules=modules, release=modules.name, origin=f"package {folder.name.replace('_', ' ')}"
    )


def _fetch(wanted: Wanted, cache_dir: Path) -> GuestKernel:
    apt, image = _packaged(wanted, cache_dir)
    stanza = apt.show(image)
    if not stanza:
        raise DriverUnavailable(f"apt has no kernel {image or 'for guests'}", resolution="sudo apt-get update")
    packages = {image: stanza}
    if modules := _dependency(stanza, "linux-modules-"):
        packages[modules] = apt.show(modules)
    wanted.say(f"fetching {image} {stanza['Version']}, once, into {cache_dir}")
    kernels = _folder(cache_dir, wanted)
    kernels.mkdir(parents=True, exist_ok=True)
    target = kernels / f"{image}_{stanza['Version'].replace(':', '%3a')}"
    with partial(cache_dir, "kernel") as folder:
        folder.mkdir()
        for package, told in packages.items():
            _download_and_unpack(apt, package, told, folder)
        _lay_out(folder / "root", folder / "done", wanted.architecture)
        if not target.exists():
            (folder / "done").replace(target)
    return _unpacked(target)


def _packaged(wanted: Wanted, cache_dir: Path) -> tuple[Apt, str]:
    """The package to fetch, and whose apt has it. Raises BadInput, DriverUnavailable."""
    if wanted.version:
        apt, kernel = _of_version(wanted, cache_dir)
        return apt, kernel.package
    if wanted.architecture is not X86_64:
        wanted.say(f"asking Debian's archive for the kernels of {wanted.architecture.debian}")
        apt = archive.of_debian(wanted.architecture, cache_dir, suites=(_suite(wanted.architecture),))
        kernels = apt.kernels(wanted.architecture)
        of_first = [kernel for kernel in kernels if kernel.series == kernels[0].series]  # not of its backports
        return apt, of_first[-1].package if of_first else ""
    meta = fetchable(wanted, cache_dir)
    if not meta:
        raise DriverUnavailable(
            "there is no guest kernel, and apt offers none to fetch",
            resolution=f"sudo apt-get update, or {_NO_KERNEL}",
        )
    return HOST, _dependency(HOST.show(meta), "linux-image-")  # each asking takes apt some half a second


def _of_version(wanted: Wanted, cache_dir: Path) -> tuple[Apt, Packaged]:
    """The newest kernel that `wanted.version` means, of the host's own apt, or else of Debian's archive. Raises
    BadInput, which lists those that there are."""
    known: list[Packaged] = []
    if wanted.architecture is X86_64 and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        known = HOST.kernels(wanted.architecture)
        if met := [kernel for kernel in known if meets(kernel.release, wanted.version)]:
            return HOST, met[-1]
    try:
        wanted.say(f"asking Debian's archive for the kernels of {wanted.architecture.debian}")
        apt = archive.of_debian(wanted.architecture, cache_dir)
    except DriverUnavailable as error:
        if not known:
            raise
        raise BadInput(
            f"this host's apt has no kernel {wanted.version}: it has {archive.told(known)}",
            resolution=f"choose one of them, or for Debian's others: {error.resolution}",
        ) from error
    known = apt.kernels(wanted.architecture)
    if met := [kernel for kernel in known if meets(kernel.release, wanted.version)]:
        return apt, met[-1]
    raise BadInput(
        f"the archive has no kernel {wanted.version} for {wanted.architecture.debian}: it has {archive.told(known)}",
        resolution="choose one of them",
    )


def _suite(architecture: Architecture) -> str:
    return architecture.suites[0] if architecture.suites else archive.host_suite()


def _dependency(stanza: Mapping[str, str], prefix: str) -> str:
    """The package that one with this stanza depends on whose name starts with `prefix` and a digit or `unsigned-`; ""
    if none."""
    names = re.findall(r"[a-z0-9][a-z0-9.+-]+", stanza.get("Depends", ""))
    return next((name for name in names if re.match(re.escape(prefix) + r"(unsigned-)?\d", name)), "")


def _download_and_unpack(apt: Apt, package: str, stanza: Mapping[str, str], folder: Path) -> None:
    if not stanza:
        raise DriverUnavailable(f"apt does not know the package {package}", resolution="sudo apt-get update")
    _run(apt.download(package, stanza["Version"]), folder, f"apt could not download {package}")
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


def _lay_out(root: Path, done: Path, architecture: Architecture) -> None:
    """From an unpacked package to `image` and `modules/RELEASE`."""
    (image,) = (root / "boot").glob("vmlinu[xz]-*")
    release = read_release(image, architecture)
    modules = _modules_folder(root, release)
    if modules is None or not _suits(modules):
        raise DriverUnavailable(f"the packaged kernel {release} lacks the drivers of a guest", resolution=_NO_KERNEL)
    (done / "modules").mkdir(parents=True)
    if architecture is X86_64:
        shutil.move(image, done / "image")
    else:
        (done / "image").write_bytes(plain_image(image.read_bytes()))
    (done / "image").chmod(0o644)
    shutil.move(modules, done / "modules" / release)
