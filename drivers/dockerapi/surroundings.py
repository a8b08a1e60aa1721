"""What an engine's containers find around them: equal to what the lab gives where there is no engine."""

from __future__ import annotations

import contextlib
import enum
import tarfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from drivers.dockerapi import daemon
from drivers.dockerapi.errors import translated
from lab.host.rlimits import Rlimits, granted
from lab.image import process
from lab.image.config import volumes_of
from lab.spec import Spec

if TYPE_CHECKING:
    from docker import APIClient

_OPEN = 0o777 | 1 << 20  # the sticky bit is Go's ModeSticky
_GO_DIRECTORY, _GO_TYPES = 1 << 31, 0b1000_1111_0010_1000_0000_0000_0000_0000  # Go's os.FileMode


class Tmp(enum.Enum):
    """What an image has at /tmp: nothing, an empty directory that is not for all, or something of its own."""

    NOTHING = enum.auto()
    CLOSED = enum.auto()
    OWN = enum.auto()


def tmp_of(api: Any, image: str, spec: Spec) -> Tmp:
    """What the engine's `image` has at /tmp, by the rule of `lab.image.process`; asked by way of a container that
    is never started. Raises DriverError."""
    if spec.builtin:
        return Tmp.NOTHING
    with translated(f"look into the image '{image}'"):
        volumes = (api.inspect_image(image).get("Config") or {}).get("Volumes") or ()
        if process.has_own_tmp(volumes_of(volumes)):
            return Tmp.OWN
        made = api.create_container(
            image, command=["/never-started"], labels=dict(spec.for_launch().labels), use_config_proxy=False
        )["Id"]
        try:
            return _look(api, made)
        finally:
            api.remove_container(made, v=True, force=True)


def scratch_mount(spec: Spec) -> dict[str, Any]:
    """A tmpfs on /tmp as a volume of the container's own, with which the engine removes it.

    Swarm's mount of the type tmpfs runs no programs before Docker 27 (API 1.46), and runc gives a tmpfs the mode of the
    image's directory (libcontainer, rootfs_linux.go).
    """
    options = f"size={max(spec.scratch_bytes, 4096)},mode=1777,nosuid,nodev"  # a size of 0 would be no limit
    driver = {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": options}}
    made = {"NoCopy": True, "Labels": dict(spec.labels), "DriverConfig": driver}
    return {"Type": "volume", "Target": process.TMP, "VolumeOptions": made}


def rlimits(api: APIClient, *, local: bool) -> Rlimits:
    """The limits that the engine's containers are given: those of every target, as far as its daemon has them."""
    serving = daemon.listener(api)
    return granted(*(daemon.engine_pids(api) if local else () if serving is None else (serving,)))


def ulimits(limits: Rlimits) -> list[dict[str, Any]]:
    """`limits` as the engine's API has them; -1 is none."""
    return [{"Name": name, "Soft": soft, "Hard": hard} for name, (soft, hard) in limits.items()]


def seccomp(told: Mapping[str, Any]) -> str:
    """The profile that the engine, which `told` this of itself, gives a container."""
    for option in told.get("SecurityOptions") or ():
        fields = dict(part.partition("=")[::2] for part in str(option).split(","))
        if fields.get("name") == "seccomp":
            return f"the engine's profile '{fields.get('profile', 'default')}'"
    return "no filter"


def tmp_in(stream: Any, told: Mapping[str, Any]) -> Tmp:
    """What an engine's archive of an image's /tmp holds: `stream` are the blocks of a tar, `told` is the path's status.
    Raises the SDK's errors."""
    with contextlib.closing(_Reader(stream)) as reader:
        # Podman tells the path itself of what is no link.
        if told.get("linkTarget") not in (None, "", process.TMP) or told["mode"] & _GO_TYPES != _GO_DIRECTORY:
            return Tmp.OWN
        # The directory itself comes first; what comes next is in it.
        with tarfile.open(fileobj=cast("Any", reader), mode="r|") as archive:
            if sum(1 for _ in zip(archive, range(2), strict=False)) > 1:
                return Tmp.OWN
    return Tmp.NOTHING if told["mode"] & _OPEN == _OPEN else Tmp.CLOSED


def _look(api: Any, container: str) -> Tmp:
    import docker.errors

    try:
        stream, told = api.get_archive(container, process.TMP)
    except docker.errors.NotFound:
        return Tmp.NOTHING
    return tmp_in(stream, told)


class _Reader:
    """A stream of blocks as the file that tarfile reads from its beginning on."""

    def __init__(self, blocks: Any) -> None:
        self._blocks = blocks
        self._left = b""

    def read(self, size: int) -> bytes:
        while len(self._left) < size and (block := next(self._blocks, b"")):
            self._left += block
        given, self._left = self._left[:size], self._left[size:]
        return given

    def close(self) -> None:
        self._blocks.close()
