"""What an image says of how it wants to be run: the `config` of its JSON, read as Docker reads it.

https://github.com/opencontainers/image-spec/blob/main/config.md; where that leaves something open, moby decides.
"""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.errors import BadInput

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What Docker gives a container whose image sets no PATH (moby, `system.DefaultPathEnv`)."""
HOSTNAME = "HOSTNAME"
"""The variable by which every engine tells a container its own name, unless its image sets it or takes it away."""

_GIVEN = frozenset({"PATH", HOSTNAME})
_REAL_TIME = (34, 64)  # SIGRTMIN and SIGRTMAX as programs see them: the C library keeps the two below (signal(7))
_OTHER_NAMES = {"CLD": 17, "IOT": 6, "POLL": 29, "STKFLT": 16, "UNUSED": 31}  # moby/sys/signal, signal_linux.go


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image says of how to run it. `user` is as written: name or number, and perhaps a group.

    `unset` are those variables that every engine gives and this image takes away (`ENV` entries without a `=`).
    """

    architecture: str
    os: str = "linux"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    unset: frozenset[str] = frozenset()
    user: str = ""
    working_dir: str = "/"
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: int = signal.SIGTERM

    @property
    def full_environment(self) -> Mapping[str, str]:
        """With the PATH that every engine gives where the image neither has one nor takes it away."""
        return dict(self.environment) if "PATH" in self.unset else {"PATH": DEFAULT_PATH, **self.environment}


def config_of(config: Mapping[str, Any]) -> ImageConfig:
    """What an image's `config`, as its JSON or an engine gives it, says. Raises BadInput."""
    run = _mapping(config, "config")
    environment, unset = _environment(_words(run.get("Env"), "environment"))
    entrypoint = _words(run.get("Entrypoint"))
    return ImageConfig(
        architecture=str(config.get("architecture", "")),
        os=str(config.get("os", "linux")),
        entrypoint=() if entrypoint == ("",) else entrypoint,  # so an entrypoint is taken away (moby, create.go)
        command=_words(run.get("Cmd")),
        environment=environment,
        unset=unset,
        user=str(run.get("User") or ""),
        working_dir=_directory(str(run.get("WorkingDir") or "/"), "working directory"),
        volumes=volumes_of(_mapping(run, "Volumes")),
        exposed_ports=tuple(_mapping(run, "ExposedPorts")),
        labels=_mapping(run, "Labels"),
        stop_signal=stop_signal(str(run.get("StopSignal") or "")),
    )


def stop_signal(text: str) -> int:
    """The number of a STOPSIGNAL: a name in any case, with or without SIG, `RTMIN+3`, `RTMAX-1`, or the number. What
    is none of these is SIGTERM, as it is to Docker (moby/sys/signal `ParseSignal`, container.go `StopSignal`)."""
    if re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII):
        return int(text) if 1 <= int(text) <= _REAL_TIME[1] else signal.SIGTERM
    name = text.upper().removeprefix("SIG")
    if found := re.fullmatch(r"RT(MIN|MAX)(?:([+-])([0-9]{1,2}))?", name, re.ASCII):
        base = _REAL_TIME[found[1] == "MAX"]
        number = base + int(f"{found[2] or '+'}{found[3] or 0}")
        return number if _REAL_TIME[0] <= number <= _REAL_TIME[1] else signal.SIGTERM
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    known = signal.Signals.__members__.get(f"SIG{name}")
    return int(known) if known is not None else int(signal.SIGTERM)


def volumes_of(volumes: Iterable[str]) -> tuple[str, ...]:
    """The absolute paths of an image's VOLUMEs, those above before those below. Raises BadInput."""
    return tuple(sorted({_directory(posixpath.join("/", str(path)), "volume") for path in volumes}))


def _environment(entries: Iterable[str]) -> tuple[dict[str, str], frozenset[str]]:
    """The last of several wins; without a `=` an entry takes away what the engine gives, and is nothing else (moby,
    container/env.go `ReplaceOrAppendEnvValues`)."""
    found: dict[str, str] = {}
    unset: set[str] = set()
    for entry in entries:
        name, equals, value = entry.partition("=")
        if "\0" in entry or (equals and not name):
            raise BadInput(f"the image sets the variable {entry!r}, which no program can be given")
        if equals:
            found[name] = value
            unset.discard(name)
        elif name in _GIVEN:
            found.pop(name, None)
            unset.add(name)
    return found, frozenset(unset)


def _directory(path: str, what: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise BadInput(f"the image's {what} {path!r} is no absolute path")
    return posixpath.normpath("/" + path.lstrip("/"))


def _mapping(of: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = of.get(key) or {}
    if not isinstance(value, dict):
        raise BadInput(f"the image's {key} is no JSON object")
    return value


def _words(value: object, what: str = "entrypoint or command") -> tuple[str, ...]:
    """A list of words; a lone string is one word, as old builders wrote it (moby, strslice)."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    raise BadInput(f"the image's {what} is not a list of words")
