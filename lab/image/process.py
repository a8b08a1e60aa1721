"""What an image runs, as whom and in which surroundings, by Docker's rules: the same for every driver.

An engine of containers follows these rules by itself. What starts an image without one (the bare runtime, a guest's
init) does as `Process` says, and all ask `has_own_tmp` whether the lab's scratch space may lie on /tmp.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Protocol

from lab.errors import BadInput
from lab.host.rlimits import WANTED, Rlimits, told
from lab.image.config import HOSTNAME, ImageConfig
from lab.image.layers import Entry, Kind

TMP = "/tmp"  # noqa: S108  an instance's own
SCRATCH = (
    "an executable tmpfs (mode 1777) of the declared scratch size where the image has nothing there; else the image's"
)
"""What the service finds at /tmp, in the words of every target's facts."""

NO_NAMES = "none, where the network is the instance's own: an unknown name fails at once"
"""Whom an instance with `RESOLV_CONF` asks for names, in the words of every target's facts."""

RESOLV_CONF = "nameserver 127.0.0.1\noptions timeout:0 attempts:1\n"
"""For an instance without a way to any server of names: an unknown one fails at once. Nobody listens there, which glibc
and Go learn from the refused packet; musl, which does not, waits no time at all (resolv.conf(5), musl res_msend.c)."""

ONE_PROCESS = "none: the service is process 1"
"""That an engine puts no init before the service, unless it is asked to."""

_MAX_USERS_BYTES = 16 * 1024 * 1024


class Image(Protocol):
    """An image's config and files (`lab.image.ImageArchive`)."""

    config: ImageConfig

    def entries(self) -> Iterator[Entry]: ...
    def find(self, path: str) -> Entry | None: ...
    def open(self, entry: Entry) -> IO[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process as a container engine would start it: `groups` holds `gid` and the supplementary ones.

    `volumes` and `cwd` are directories to be there, root's where they must be made. `own_tmp` says that /tmp is the
    image's own, and no scratch space may hide it. `stop_signal` is what asks it to end.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    stop_signal: int = 15
    volumes: tuple[str, ...] = ()
    own_tmp: bool = False
    told_hostname: bool = True

    def environment_on(self, hostname: str) -> dict[str, str]:
        """The whole environment where the instance is called `hostname`, which the image may not want to know."""
        told = {HOSTNAME: hostname} if self.told_hostname else {}
        return {**told, **self.environment}


def process_of(
    image: Image, *, command: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> Process:
    """What the image runs by Docker's rules; `command`, unless empty, replaces its command, `environment` adds to its
    own.

    Raises BadInput when it names no program, or a user or group that it does not have.
    """
    config = image.config
    argv = (*config.entrypoint, *(command or config.command))
    if not argv or not argv[0]:
        raise BadInput("the image names no program to run", resolution="give a command")
    given = dict(environment or {})
    uid, gid, groups, home = resolve_user(image)
    merged = {**config.full_environment, **given}
    if not merged.get("HOME"):
        merged["HOME"] = home
    return Process(
        argv=argv,
        environment=merged,
        cwd=config.working_dir,
        uid=uid,
        gid=gid,
        groups=groups,
        stop_signal=config.stop_signal,
        volumes=config.volumes,
        own_tmp=has_own_tmp(config.volumes, image.entries()),
        told_hostname=HOSTNAME not in config.unset,
    )


def has_own_tmp(volumes: Iterable[str], entries: Iterable[Entry] = ()) -> bool:
    """Whether an image with these VOLUMEs and `entries` has its own at /tmp: a volume on it or in it, anything in it,
    or something else than a directory."""
    if any(path == TMP or path.startswith(f"{TMP}/") for path in volumes):
        return True
    name = TMP.removeprefix("/")
    return any(
        entry.path.startswith(f"{name}/") or (entry.path == name and entry.kind is not Kind.DIRECTORY)
        for entry in entries
    )


def surroundings(
    *,
    rlimits: Rlimits | str,
    seccomp: str,
    names: str,
    init: str = ONE_PROCESS,
    oom_score_adj: str = "0",
    tmp: str = SCRATCH,
) -> dict[str, str]:
    """What a started service finds around it, as facts under one name each, so that targets which differ are told.
    Where an engine lets nobody set limits, `rlimits` says whose they are."""
    limits = dict.fromkeys(WANTED, rlimits) if isinstance(rlimits, str) else told(rlimits)
    return {
        **{f"rlimit {name}": text for name, text in limits.items()},
        "seccomp": seccomp,
        "name servers": names,
        "init": init,
        "oom_score_adj": oom_score_adj,
        TMP: tmp,
    }


def hosts_file(hostname: str, address: str) -> str:
    """The /etc/hosts of an instance called `hostname` at `address`, as every engine gives one."""
    return f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{hostname}\n"


def resolve_user(image: Image) -> tuple[int, int, tuple[int, ...], str]:
    """uid, gid, all groups and home of the image's user, by its own /etc/passwd and /etc/group.

    The rules are those of moby/sys/user `GetExecUser`: a number is always an id, whether the files know it or not; a
    name must be known; supplementary groups only where no group is written. Docker (20.10.18 and later) counts the
    primary group among them. The home is that of the first user with this uid, whatever the name, since runtimes look
    it up by the number. Raises BadInput for an unknown name, or an id that no process can have.
    """
    user, _, group = image.config.user.partition(":")
    passwd = _records(image, "/etc/passwd", 7)
    wanted = _number(user) if user else 0
    found = next((line for line in passwd if (line[0] == user if wanted is None else _id(line[2]) == wanted)), None)
    if found is None and wanted is None:
        raise BadInput(f"the image's user '{user}' is not in its /etc/passwd")
    uid, gid = (_id(found[2]), _id(found[3])) if found else (wanted or 0, 0)
    supplementary: list[int] = []
    known = _records(image, "/etc/group", 4) if group or found else []
    if group:
        number = _number(group)
        line = next((line for line in known if (line[0] == group if number is None else _id(line[2]) == number)), None)
        if line is None and number is None:
            raise BadInput(f"the image's group '{group}' is not in its /etc/group")
        gid = _id(line[2]) if line else number or 0
    elif found:
        supplementary = [_id(line[2]) for line in known if found[0] in line[3].split(",")]
    for what, number in (("user", uid), ("group", gid)):
        if not 0 <= number <= _MAX_ID:
            raise BadInput(f"the image's {what} {number} is no id that a process can have")
    home = next((line[5] for line in passwd if _id(line[2]) == uid), "/")
    return uid, gid, tuple(dict.fromkeys([gid, *supplementary])), home


_MAX_ID = 2**31 - 1  # moby/sys/user, maxID
_MOST_DIGITS = 18


def _number(text: str) -> int | None:
    """As Go's strconv.Atoi; None for what is no number, and for one beyond its range an id that no process can have."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdecimal()):
        return None
    return int(text) if len(digits) <= _MOST_DIGITS else _MAX_ID + 1


def _id(text: str) -> int:
    """As moby/sys/user reads a field: what is no number is 0."""
    return _number(text) or 0


def _records(image: Image, path: str, fields: int) -> list[list[str]]:
    """The colon-separated lines of a file of the image, each filled up to `fields`; none when there is no file."""
    entry = image.find(path)
    if entry is None or entry.kind is not Kind.FILE:
        return []
    with image.open(entry) as file:
        lines = file.read(_MAX_USERS_BYTES).decode("utf-8", "surrogateescape").split("\n")
    split = [line.strip().split(":") for line in lines if line.strip() and not line.startswith("#")]
    return [record + [""] * (fields - len(record)) for record in split]
