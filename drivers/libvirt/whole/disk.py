"""`libvirt:disk`: a disk image that the user brings, which boots by itself and has a service of its own.

The lab knows nothing of what is on it: no agent, no console that says anything, whatever system it is. It is ready when
it answers at `--port`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drivers.libvirt.media import Media
from drivers.libvirt.whole import images
from drivers.libvirt.whole.hardware import Hardware
from lab.driver import Context
from lab.errors import BadInput, Unsupported
from lab.features import Feature
from lab.spec import Spec

FEATURES = frozenset(
    {Feature.NETWORK, Feature.HOST_PIDS, Feature.COLD, Feature.ENGINE_PIDS, Feature.STORAGE}
    | {Feature.GUEST_MEMORY, Feature.PINNING, Feature.SLEEP, Feature.OWN_SERVICE}
)
_FOLDER = "disk"
_READY_TIMEOUT_S, _STOP_TIMEOUT_S = 600.0, 60.0
"""As of other whole guests: an emulated one boots for minutes on a busy host."""
_UNKNOWN = "what is on the disk decides"


def facts(context: Context) -> Mapping[str, Any]:
    """What is told of these guests beside what is told of any. Raises BadInput, DriverError."""
    where, sha256 = _named(context)
    image = images.brought_before(context.cache_dir, where, sha256)
    if image is None and not images.is_remote(where):
        image = images.brought(context.cache_dir, where, sha256, say=context.say)
    hardware = Hardware.of_options(context.options)
    told = {"sha256": sha256} if image is None else {"sha256": image.sha256, **image.facts}
    return {
        "guest_image": {**told, "from": images.shown(where)},
        **hardware.told(),
        "machine": hardware.machine,
        "guest_kernel": _UNKNOWN,
        "guest_kernel_from": "the disk, by its own boot loader",
        "guest_command_line": _UNKNOWN,
        "surroundings": {},
        "entropy": "virtio-rng from the host's /dev/urandom, where the guest has its driver",
        "stop_request": "ACPI's power button, then destroy",
        "ready_timeout_s": _READY_TIMEOUT_S,
        "stop_timeout_s": _STOP_TIMEOUT_S,
    }


def media(spec: Spec, context: Context) -> Media:
    """What launches boot from: the disk, in the run's directory. Raises BadInput, Unsupported, DriverError."""
    where, sha256 = _named(context)
    if spec.builtin:
        raise Unsupported(
            "libvirt:disk boots a disk with a service of its own, and the other targets the lab's: the two are no pair",
            resolution="run libvirt:disk by itself, or have the others launch an image of yours: --image",
        )
    if spec.command or spec.environment:
        raise Unsupported(
            "nothing can be given to the service that is on a disk: neither a command nor an environment",
            resolution="leave out --command, --env and --env-file",
        )
    image = images.brought(context.cache_dir, where, sha256, say=context.say)
    there = images.placed(image, context.run_dir / _FOLDER)
    return Media(
        kernel=None,
        initramfs=None,
        disk=there.disk,
        disk_bytes=there.virtual_bytes,
        hardware=Hardware.of_options(context.options),
    )


def _named(context: Context) -> tuple[str, str]:
    where = context.options.get("guest-image", "")
    if not where:
        raise BadInput(
            "libvirt:disk boots the disk image that you name, and none is named",
            resolution="--guest-image FILE|URL --sha256 HASH, and --port where it answers",
        )
    return where, context.options.get("sha256", "")


def own_settings(hardware: Hardware, folder: Path) -> Path | None:
    """The launch's own copy of the firmware's settings, in its folder, where it has any. Raises OSError."""
    if hardware.uefi is None:
        return None
    to = folder / "settings.fd"
    to.touch(mode=0o600)
    to.write_bytes(hardware.uefi.settings.read_bytes())
    return to
