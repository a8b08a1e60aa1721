"""What every launch of a spec boots from, written once into the run's directory: kernel, initramfs, root disk; and each
launch's own layer over that disk.

QEMU runs as another user, who cannot read a cache below a home directory; and libvirt gives the files that it opens
to that user. So each run has its own copies, gone with the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from drivers.libvirt import bzimage, modules
from drivers.libvirt.guest import Entry, file, initramfs
from drivers.libvirt.joined import MODULE
from drivers.libvirt.kernel import GuestKernel
from drivers.libvirt.kernels.architecture import X86_64
from drivers.libvirt.variants import Variant
from drivers.libvirt.whole.hardware import USUAL, Hardware
from lab.driver import Context
from lab.errors import LaunchError, Unsupported
from lab.host.rlimits import granted
from lab.launch.peers import VHOST_VSOCK
from lab.service.build import build_guest_init, build_service
from lab.service.guest_config import GuestConfig
from lab.spec import Spec
from lab.store.place import FULL, no_room, partial

_FOLDER = "libvirt"
_OWN_KEY = secrets.token_bytes(32)

_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
_HEADER_BYTES = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """Files to boot from; `disk` is a foreign image's root file system (raw ext4), None for the lab's own service.
    `entropy` says whether the kernel can take the host's random numbers, `vsock` whether it has the driver of that. A
    disk that boots by itself has neither kernel nor initramfs beside it; it is qcow2, and `disk_bytes` large to its
    guest, which finds that `hardware`.
    """

    kernel: Path | None
    initramfs: Path | None
    disk: Path | None
    disk_bytes: int | None = None
    hardware: Hardware = USUAL
    entropy: bool = True
    vsock: bool = False

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return [path for path in (self.kernel, self.initramfs, self.disk) if path is not None]


def prepare_media(spec: Spec, variant: Variant, kernel: GuestKernel, context: Context) -> Media:
    """The files for `spec` and `variant`, made unless they are there. Raises LabError, OSError."""
    architecture = variant.architecture
    machine = "" if architecture is X86_64 else architecture.name
    if machine and not spec.builtin:
        raise Unsupported(
            f"images are unpacked for this host's machine, and this guest is {architecture.debian}",
            resolution="leave out --image, or this target",
        )
    run_dir, cache_dir = context.run_dir, context.cache_dir
    folder = run_dir / _FOLDER
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    fast = kernel.image if machine else fast_kernel(kernel, cache_dir)
    name = _digest(fast.read_bytes()) if machine else fast.name
    image = once(folder / f"kernel-{name}", lambda to: shutil.copyfile(fast, to))
    disk, config, files = None, _service_config(spec), [_service_file(cache_dir, machine)]
    entropy = modules.known(kernel.modules, "virtio_rng")
    # Its random numbers first: they come while the rest is loaded.
    needed = ["virtio_pci" if variant.has_pci else "virtio_mmio", *(["virtio_rng"] if entropy else []), "virtio_net"]
    vsock = may_have_vsock(spec) and modules.known(kernel.modules, MODULE)
    needed += [MODULE] if vsock else []
    if not spec.builtin:
        from drivers.libvirt.rootfs import foreign_root

        disk = disk_path(spec, run_dir)
        config, files = foreign_root(spec, disk, context), []
        needed += ["virtio_blk", "ext4"]
    contents = [*files, file("lab/config", config.encode())]
    loaded = modules.resolve(kernel.modules, needed)
    if variant.unsigned:
        loaded = [(name, modules.without_signature(data)) for name, data in loaded]
    packed = initramfs(build_guest_init(cache_dir, machine=machine).read_bytes(), loaded, contents)
    archive = once(folder / f"initramfs-{_own_name(packed)}", lambda to: to.write_bytes(packed))
    return Media(kernel=image, initramfs=archive, disk=disk, entropy=entropy, vsock=vsock)


def may_have_vsock(spec: Spec) -> bool:
    """Whether guests of `spec` are to have one, as far as this host goes: only those that call their peers, whose media
    then differ from others'."""
    return bool(spec.peers) and VHOST_VSOCK.exists()


def disk_path(spec: Spec, run_dir: Path) -> Path:
    """Where the root disk of `spec`'s image lies for all launches of a run."""
    return run_dir / _FOLDER / f"root-{_digest(spec.image)}.img"


@contextlib.contextmanager
def own_folder(folder: Path, undo: contextlib.ExitStack, *, what: str) -> Iterator[None]:
    """Make a launch's own `folder`, which `undo` removes; within it, `what` is written there. Raises LaunchError where
    that cannot be, and what `no_room` makes of a full disk."""
    try:
        folder.mkdir()
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o711)
        yield
    except OSError as error:
        if error.errno in FULL:
            raise no_room(error, what, folder) from error
        raise LaunchError(f"the guest's files could not be written: {error.strerror}") from error


def write_overlay(backing: Path, overlay: Path, *, size: int | None = None) -> Path:
    """Write an empty qcow2 (version 2) over `backing` to `overlay` and return it: what `qemu-img create -b` makes.
    `size` is that of the disk, where `backing` is not raw.

    Written here since a launch should not wait for a program of its own. The layout is docs/interop/qcow2.txt of
    QEMU: header, L1 table, refcount table, refcount block, a cluster each.
    """
    size = backing.stat().st_size if size is None else size
    name = str(backing).encode()
    l2_covers = _CLUSTER * (_CLUSTER // 8)
    l1_entries = -(-size // l2_covers)
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb", 2, _HEADER_BYTES, len(name), _CLUSTER_BITS, size, 0, l1_entries, _CLUSTER, 2 * _CLUSTER, 1, 0, 0,
    )  # fmt: skip
    if l1_entries > _CLUSTER // 8 or len(name) > 1023:
        raise ValueError("the root disk is too large, or its path too long, for this layout")
    image = bytearray(4 * _CLUSTER)
    image[: len(header)] = header
    image[_HEADER_BYTES : _HEADER_BYTES + len(name)] = name
    struct.pack_into(">Q", image, 2 * _CLUSTER, 3 * _CLUSTER)
    struct.pack_into(">4H", image, 3 * _CLUSTER, 1, 1, 1, 1)
    overlay.touch(mode=0o600)  # what the guest writes is not for all
    overlay.write_bytes(image)
    return overlay


def fast_kernel(kernel: GuestKernel, cache_dir: Path) -> Path:
    """The kernel in the form that boots soonest: uncompressed where it can be, kept in `cache_dir`; else as it is."""
    digest = _digest(kernel.image.read_bytes())
    folder = cache_dir / "kernels-uncompressed"
    folder.mkdir(parents=True, exist_ok=True)
    plain, packed = folder / f"vmlinux-{digest}", folder / f"bzImage-{digest}"
    if not plain.exists() and not packed.exists():
        with partial(cache_dir, folder.name) as made:
            unpacked = bzimage.write_uncompressed(kernel.image, made)
            if not unpacked:
                shutil.copyfile(kernel.image, made)
            made.replace(plain if unpacked else packed)
    return plain if plain.exists() else packed


def _service_config(spec: Spec) -> GuestConfig:
    return GuestConfig(
        argv=("/service", *(spec.command or ())),  # as of its image, whose entrypoint stays
        environment=spec.environment,
        scratch_bytes=spec.scratch_bytes,
        service=True,
        rlimits=granted(),
    )


def _service_file(cache_dir: Path, machine: str) -> Entry:
    return file("service", build_service(cache_dir, machine=machine).read_bytes(), 0o755)


def once(path: Path, write: Callable[[Path], object]) -> Path:
    """Have `write` make `path`, unless it is there. It is not for all, since it may hold a workload's secrets: libvirt
    gives it to QEMU's user (qemu.conf, dynamic_ownership)."""
    if not path.exists():
        made = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            made.touch(mode=0o600)  # before it has content
            write(made)
            made.replace(path)
        finally:
            made.unlink(missing_ok=True)
    return path


def _own_name(data: bytes) -> str:
    """A name of this process's own for `data`, which holds a workload's secrets: QEMU's command line shows the name to
    every user, who could find the secrets by a plain digest of them."""
    return hmac.digest(_OWN_KEY, data, "sha256").hex()[:16]


def _digest(data: bytes | str) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return hashlib.sha256(raw).hexdigest()[:16]
