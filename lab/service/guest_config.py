"""Writes /lab/config, by which the guest's pid 1 (src/pid1/config.c) learns what to run.

The format is NUL-terminated words, alternately key and value: no value of an image can break out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.errors import BadInput
from lab.host.rlimits import Rlimits, numbered
from lab.image.process import RESOLV_CONF, Process

MAX_BYTES = 256 * 1024 - 1
MAX_WORDS = 1024
MAX_GROUPS = 64
MAX_VOLUMES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestConfig:
    """What a guest runs: `argv` as `uid`, `gid` and `groups`, in `cwd`, with `environment` alone and within `rlimits`.

    `cwd` and `volumes` are made where they are absent. `scratch_bytes` is the size of the tmpfs on /tmp, None for none.
    With `told_hostname` HOSTNAME is added, with `service` the lab's LAB_NONCE, LAB_PORT and LAB_HOST (or LAB_NETWORK),
    from the kernel's command line.
    """

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: Sequence[int] = ()
    hostname: str = "lab"
    scratch_bytes: int | None = None
    service: bool = False
    told_hostname: bool = True
    volumes: Sequence[str] = ()
    stop_signal: int = 15
    rlimits: Rlimits = field(default_factory=dict)
    resolv_conf: str = RESOLV_CONF

    @classmethod
    def of(cls, process: Process, *, scratch_bytes: int, rlimits: Rlimits) -> GuestConfig:
        """What an image's process is to a guest."""
        return cls(
            argv=process.argv,
            environment=process.environment,
            cwd=process.cwd,
            uid=process.uid,
            gid=process.gid,
            groups=process.groups,
            scratch_bytes=None if process.own_tmp else max(scratch_bytes, 4096),  # 0 is no limit
            told_hostname=process.told_hostname and "HOSTNAME" not in process.environment,
            volumes=process.volumes,
            stop_signal=process.stop_signal,
            rlimits=rlimits,
        )

    def encode(self) -> bytes:
        """The file's bytes. Raises BadInput for what a guest could not be told."""
        if not self.argv:
            raise BadInput("there is no program to run in the guest", resolution="give a command")
        if not self.cwd.startswith("/"):
            raise BadInput(f"the working directory '{self.cwd}' is not absolute")
        words: list[tuple[str, str]] = [("argv", word) for word in self.argv]
        words += [("env", f"{key}={value}") for key, value in self.environment.items()]
        words += [("uid", str(self.uid)), ("gid", str(self.gid))]
        words += [("group", str(group)) for group in self.groups]
        words += [("cwd", self.cwd), ("hostname", self.hostname), ("service", "1" if self.service else "0")]
        words += [("told_hostname", "1" if self.told_hostname else "0"), ("stop_signal", str(self.stop_signal))]
        words += [("volume", path) for path in self.volumes]
        words += [("rlimit", text) for text in numbered(self.rlimits)]
        words.append(("resolv_conf", self.resolv_conf))
        if self.scratch_bytes is not None:
            words.append(("scratch_bytes", str(self.scratch_bytes)))
        if any("\0" in value for _, value in words):
            raise BadInput("a NUL byte in the command, its environment or its directory cannot be passed to a guest")
        if any(not key or "=" in key for key in self.environment):
            raise BadInput("a variable's name is empty or holds '='")
        encoded = b"".join(f"{key}\0{value}\0".encode("utf-8", "surrogateescape") for key, value in words)
        counts = (len(self.argv), len(self.environment))
        if (
            len(encoded) > MAX_BYTES
            or max(counts) >= MAX_WORDS
            or len(self.groups) >= MAX_GROUPS
            or len(self.volumes) >= MAX_VOLUMES
        ):
            raise BadInput("the command, its environment or its groups or volumes are too long for a guest")
        return encoded
