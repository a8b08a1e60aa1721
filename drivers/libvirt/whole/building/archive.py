"""Where a suite's packages come from: as this host's own apt has it, where it has the distribution."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BadInput, DriverUnavailable

_MIRROR = "http://deb.debian.org/debian"
_SECURITY = "http://deb.debian.org/debian-security"
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_URL = re.compile(r"(https?|file|copy|tor\+https?|mirror\+\w+)://?\S+")
_PASSED = re.compile(r'^(Acquire::(?:https?|ftp)::[^ ]*|Acquire::Retries|Acquire::Check-[^ ]*) "(.*)";$')
"""What of the host's settings an archive is reached by: proxies, certificates, how often is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """`mirror` is where most comes from, `sources` are apt's lines, `options` mmdebstrap's."""

    mirror: str
    sources: Sequence[str]
    options: Sequence[str]

    @classmethod
    def of_host(cls, suite: str, mirror: str = "", *, root: Path = Path("/")) -> Archive:
        """The archive of `suite` by this host's settings, or at `mirror`. Raises BadInput for what is no address,
        DriverUnavailable where the distribution's keys are missing."""
        if mirror and not _URL.fullmatch(mirror):
            raise BadInput(f"'{mirror}' is no address of an archive", resolution="such as http://deb.debian.org/debian")
        if not _KEYS.exists():
            raise DriverUnavailable(
                "Debian's keys, by which its packages are verified, are not here",
                resolution="sudo apt-get install debian-archive-keyring",
            )
        addresses = _addresses(root)
        main = mirror or next((one for one in addresses if _is_debian(one)), _MIRROR)
        security = next((one for one in addresses if "debian-security" in one), _SECURITY)
        return cls(
            mirror=main,
            sources=[
                f"deb {main} {suite} main",
                f"deb {main} {suite}-updates main",
                f"deb {security} {suite}-security main",
            ],
            options=[f"--keyring={_KEYS}", *(f"--aptopt={one}" for one in _settings())],
        )


def _is_debian(address: str) -> bool:
    """A mirror of the distribution itself: its path ends so at every mirror (https://www.debian.org/mirror/list)."""
    return address.rstrip("/").endswith("/debian")


def _addresses(root: Path) -> list[str]:
    """Every archive that the host's apt is told of (sources.list(5)), in both of its forms."""
    folder = root / "etc/apt/sources.list.d"
    found: list[str] = []
    for path in (root / "etc/apt/sources.list", *sorted(folder.glob("*.list"))):
        for line in _lines(path):
            words = shlex.split(re.sub(r"\[[^]]*\]", "", line), comments=True)
            found += [word for word in words[1:2] if words[0] == "deb"]
    for path in sorted(folder.glob("*.sources")):
        for line in _lines(path):
            key, _, value = line.partition(":")
            if key.strip().lower() == "uris":
                found += value.split()
    return [one for one in found if _URL.fullmatch(one)]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _settings() -> list[str]:
    """The host's settings of how archives are reached, as apt.conf(5) has them."""
    try:
        told = subprocess.run(
            ["apt-config", "dump"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = (_PASSED.match(line) for line in told.splitlines())
    return [f'{one[1]} "{one[2]}";' for one in found if one and one[2]]
