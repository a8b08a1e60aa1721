"""The distribution's archive, by apt: the host's own, or one of the lab's own that knows other suites and machines.

The latter has its lists, its sources and its cache in a folder of the lab's, and Debian's archive keys as the only ones
that it trusts: apt checks each suite's signature by them (gpgv), the index by the signed Release, and each package by
the index. Nothing is installed, no privilege is needed, and nothing of the host's own apt is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivers.libvirt.kernels.architecture import Architecture
from lab.errors import DriverError, DriverUnavailable
from lab.host import programs
from lab.store.place import partial

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MIRROR, _SECURITY = "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"
_RELEASES = ("bookworm", "trixie")
_KEPT_S = 86_400.0
"""How long its lists are taken to be the archive's: a kernel that went since then is told by apt when it is asked."""
_TIMEOUT_S = 600.0
_ASK_TIMEOUT_S = 60.0
_FLAVOURS: Mapping[str, tuple[str, ...]] = {"amd64": ("cloud-amd64", "virtual", "amd64", "generic")}
"""Of Debian's and Ubuntu's kernels, the ones made for guests first; of other machines Debian's `cloud-` and plain."""


@dataclass(frozen=True, slots=True)
class Apt:
    """apt as `options` have it; without any, the host's own."""

    options: tuple[str, ...] = ()

    def show(self, package: str) -> dict[str, str]:
        """The candidate version's stanza of the verified index, by field name; empty where there is none."""
        if not package:
            return {}
        told = self._ask("apt-cache", "--no-all-versions", "show", package)
        fields = (line.split(": ", 1) for line in told.split("\n\n")[0].splitlines() if ": " in line)
        return {key: value for key, value in fields if not key.startswith(" ")}

    def kernels(self, architecture: Architecture) -> list[Packaged]:
        """Every kernel that it has for `architecture`, the oldest first; of one version the one made for guests is the
        last."""
        names = self._ask("apt-cache", "pkgnames", "linux-image-").split()
        return packaged(names, architecture)

    def download(self, package: str, version: str) -> list[str]:
        """The command that puts the package into its working directory, verified."""
        return ["apt-get", *self.options, "download", f"{package}={version}"]

    def _ask(self, program: str, *words: str) -> str:
        argv = [program, *self.options, *words]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False, env=environment
        )
        return done.stdout if done.returncode == 0 else ""


HOST = Apt()


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A kernel's package; `version` is its release without the flavour: `6.12.117+deb12`."""

    package: str
    version: str
    release: str

    @property
    def series(self) -> str:
        """Its first two numbers: `6.12`."""
        return ".".join(self.version.split(".")[:2])


def meets(release: str, wanted: str) -> bool:
    """Whether the kernel `release` is what a user means by `wanted`: `6.12`, `6.12.117`, or the whole release."""
    return bool(re.match(re.escape(wanted) + r"(?![0-9A-Za-z])", release))


def packaged(names: Iterable[str], architecture: Architecture) -> list[Packaged]:
    """The kernels among packages called `names`; neither packages that only depend on one, nor those for debugging."""
    debian = architecture.debian
    flavours = _FLAVOURS.get(debian, (f"cloud-{debian}", debian))
    form = re.compile(rf"linux-image-((\d+\.\d+\.\d+[^-\s]*(?:-\d+)?)-({'|'.join(flavours)}))")
    found = [form.fullmatch(name) for name in names]
    kernels = [(match[3], Packaged(package=match[0], version=match[2], release=match[1])) for match in found if match]
    kernels.sort(key=lambda one: (version_key(one[1].version), -flavours.index(one[0])))
    return [kernel for _, kernel in kernels]


def version_key(name: str) -> list[tuple[int, str]]:
    """By which versions are in order: numbers by their value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"[^0-9a-z]+", name) if part]


def told(kernels: Sequence[Packaged]) -> str:
    """The newest version of each series that there is, on one line."""
    newest = {kernel.series: kernel.version for kernel in kernels}
    return ", ".join(newest.values()) or "none"


def of_debian(
    architecture: Architecture, cache_dir: Path, *, suites: Sequence[str] = (), keyring: Path = KEYRING
) -> Apt:
    """apt that knows the kernels of Debian's `suites` (without any, of all that are known here) for `architecture`; its
    lists are fetched unless they are there and of today. Raises DriverUnavailable."""
    if why := missing(keyring):
        raise DriverUnavailable(why[0], resolution=why[1])
    named = tuple(suites) or architecture.suites or _RELEASES
    folder = cache_dir / "archive" / "-".join((architecture.debian, *named))
    fresh = folder / "fetched"
    if not fresh.exists() or time.time() - fresh.stat().st_mtime > _KEPT_S:
        _fetch_lists(architecture, named, folder, cache_dir, keyring)
    return Apt(_options(folder, architecture))


def host_suite() -> str:
    """Debian's suite that this host runs, or the newest known here where it runs none."""
    found = re.search(r"^VERSION_CODENAME=\"?(\w+)", _os_release(), re.MULTILINE)
    return found[1] if found and found[1] in _RELEASES else _RELEASES[-1]


def missing(keyring: Path = KEYRING) -> tuple[str, str] | None:
    """What is not here that is needed to fetch kernels of Debian's, and the remedy; None where nothing is missing."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return "kernels are fetched by apt-get, which is not here", "give a kernel with --kernel"
    if not keyring.exists():
        return f"Debian's archive keys are not in {keyring}", "sudo apt-get install debian-archive-keyring"
    return None


def _fetch_lists(
    architecture: Architecture, releases: Sequence[str], folder: Path, cache_dir: Path, keyring: Path
) -> None:
    """In a folder of this call's own until they are whole: another process may do the same."""
    mirror, security = _mirrors()
    with partial(cache_dir, "archive", what="the list of Debian's kernels") as made:
        for needed in ("state/lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/apt.conf.d"):
            (made / needed).mkdir(parents=True)
        (made / "status").touch()
        where = f"deb [arch={architecture.debian} signed-by={keyring}]"
        lines = [
            line
            for release in releases
            for line in (
                f"{where} {mirror} {release} main",
                f"{where} {mirror} {release}-backports main",
                f"{where} {security} {release}-security main",
            )
        ]
        (made / "etc/sources.list").write_text("\n".join(lines) + "\n")
        # A suite whose files do not agree, as while a mirror is filled, is left out by apt, and the others are there.
        ran = programs.run(
            ["apt-get", *_options(made, architecture), "-qq", "update"],
            doing="fetch the list of Debian's kernels",
            timeout_s=_TIMEOUT_S,
            check=False,
        )
        if not any((made / "state/lists").glob("*Packages*")):
            raise DriverUnavailable(
                "the list of Debian's kernels cannot be had",
                details=ran.said,
                resolution="see that the network is there",
            )
        (made / "fetched").touch()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with partial(cache_dir, "archive-of-before") as before:
            if folder.exists():
                folder.replace(before)
            if not folder.exists():
                made.replace(folder)


def _options(folder: Path, architecture: Architecture) -> tuple[str, ...]:
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc": folder / "etc",
        "Dir::Etc::sourcelist": folder / "etc/sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Architecture": architecture.debian,
        "APT::Architectures::": architecture.debian,
        "APT::Sandbox::User": "root",  # else root's apt becomes a user that cannot reach a cache below a home
        "Acquire::Languages": "none",
        "Acquire::PDiffs": "false",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
    }
    return tuple(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))


def _mirrors() -> tuple[str, str]:
    """Debian's archive and its security archive, as the host's own apt reaches them."""
    words = ("indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages", "Origin: Debian")
    try:
        told = programs.run(["apt-get", *words], doing="tell its mirrors", timeout_s=_ASK_TIMEOUT_S, check=False)
    except DriverError:
        return _MIRROR, _SECURITY
    found = dict(line.split(" ", 1) for line in reversed(told.stdout.decode(errors="replace").splitlines()))
    return found.get("Debian", _MIRROR).rstrip("/"), found.get("Debian-Security", _SECURITY).rstrip("/")


def _os_release() -> str:
    try:
        return Path("/etc/os-release").read_text()
    except OSError:
        return ""
