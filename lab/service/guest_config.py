"""Writes /lab/config, by which the guest's pid 1 (src/pid1/config.c) learns what to run.

The format is NUL-terminated words, alternately key and value: no value of an image can break out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.errors import BadInput

MAX_BYTES = 256 * 1024 - 1
MAX_WORDS = 1024
MAX_GROUPS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestConfig:
    """What a guest runs: `argv` as `uid`, `gid` and `groups`, in `cwd` (made if absent), with `environment` alone.

    `scratch_bytes` is the size of the tmpfs on /tmp, None for none. With `service` the lab's LAB_NONCE, LAB_PORT and
    LAB_HOST (or LAB_NETWORK) are added from the kernel's command line.
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
        if self.scratch_bytes is not None:
            words.append(("scratch_bytes", str(self.scratch_bytes)))
        if any("\0" in value for _, value in words):
            raise BadInput("a NUL byte in the command, its environment or its directory cannot be passed to a guest")
        if any(not key or "=" in key for key in self.environment):
            raise BadInput("a variable's name is empty or holds '='")
        encoded = b"".join(f"{key}\0{value}\0".encode("utf-8", "surrogateescape") for key, value in words)
        counts = (len(self.argv), len(self.environment))
        if len(encoded) > MAX_BYTES or max(counts) >= MAX_WORDS or len(self.groups) >= MAX_GROUPS:
            raise BadInput("the command, its environment or its groups are too long for a guest")
        return encoded
