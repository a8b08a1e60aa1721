"""The accepted build beside tonight's (`--against`): what it is, and how it is run in turns with it.

An image is run by this lab in place of the one under test. Another version of the lab, or a wheel of it, gets a virtual
environment of its own, kept in the cache, with the packages that this lab has: what differs is then the lab alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lab.cli.nightly.config import Wanted
from lab.errors import BadInput, LabError
from lab.spec import SERVICE_IMAGE
from lab.store.database import Store
from lab.store.place import cache_dir, partial
from lab.store.record import RunRecord

BUILDS = "builds"
"""The cache's folder of virtual environments with accepted builds."""

_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)*(\+[a-z0-9.]+)?")  # PEP 440, without epochs
_DISTRIBUTION = "stratalab"
_BEYOND_A_RUN = ("require", "max_time")
"""Options that judge or bound a run, which another lab need not know."""
_LINES = 3


class Build(Protocol):
    """An accepted build that can be run."""

    @property
    def name(self) -> str:
        """What it is, in words."""

    def run(self, wanted: Wanted, *, rounds: int, warmup: int, max_s: float | None) -> RunRecord:
        """Measure so many rounds with it. Raises LabError."""


Measure = Callable[[Wanted], RunRecord]
"""Runs a scenario with this lab."""


def build_of(against: str, wanted: Sequence[Wanted], measure: Measure, folder: Path) -> Build:
    """The build that `against` names; a wheel's path is relative to `folder`. Raises BadInput for what names none, and
    LabError where its environment cannot be made."""
    if _VERSION.fullmatch(against):
        return LabBuild(name=f"{_DISTRIBUTION} {against}", python=_environment(f"{_DISTRIBUTION}=={against}", against))
    path = folder / Path(against).expanduser()
    if against.endswith(".whl"):
        if not path.is_file():
            raise BadInput(f"--against {against}: there is no such wheel", resolution=f"it was looked for as {path}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        return LabBuild(name=path.name, python=_environment(str(path.absolute()), digest))
    own = [one.scenario.name for one in wanted if one.options.image == SERVICE_IMAGE]
    if own:
        raise BadInput(
            f"--against {against} is an image, and {', '.join(own)} measures the lab's own service",
            resolution="name a version or a wheel of the lab, or give the scenario an image",
        )
    return ImageBuild(name=f"image {against}", image=against, measure=measure)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBuild:
    """An image in place of the one under test."""

    name: str
    image: str
    measure: Measure

    def run(self, wanted: Wanted, *, rounds: int, warmup: int, max_s: float | None) -> RunRecord:
        """As Build has it."""
        return self.measure(wanted.paced(rounds=rounds, warmup=warmup, max_s=max_s, image=self.image))


@dataclass(frozen=True, slots=True, kw_only=True)
class LabBuild:
    """Another lab, run by its own Python with a store of its own."""

    name: str
    python: Path

    def run(self, wanted: Wanted, *, rounds: int, warmup: int, max_s: float | None) -> RunRecord:
        """As Build has it."""
        with tempfile.TemporaryDirectory(prefix="lab-against-") as made:
            folder = Path(made)
            given = {key: value for key, value in wanted.given.items() if key not in _BEYOND_A_RUN}
            given |= {"rounds": rounds, "warmup": warmup, **({"max_time": f"{max_s:.0f}s"} if max_s else {})}
            (folder / "run.toml").write_text(_toml(given))
            store = folder / "lab.db"
            words = ["run", wanted.scenario.name, "--config", str(folder / "run.toml"), "--store", str(store)]
            ran = _lab(self.python, *words)
            if not store.exists() or ran.returncode not in (0, 1):
                raise LabError(f"{self.name} did not run {wanted.scenario.name}: {_last(ran.stderr)}")
            with Store.open(str(store)) as opened:
                return opened.load("last")


def _environment(requirement: str, key: str) -> Path:
    """The Python of an environment with `requirement`, made unless the cache has it. Raises LabError."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = cache_dir() / BUILDS / f"{key}-{version}"
    python = place / "bin" / "python"
    if not python.exists():
        place.parent.mkdir(mode=0o700, exist_ok=True)
        with partial(cache_dir(), place.name, what=f"the environment of {requirement}") as made:
            _make(made, requirement, version)
            _prove(made / "bin" / "python", made, requirement)
            if place.exists():
                shutil.rmtree(place)
            made.rename(place)
    return python


def _make(place: Path, requirement: str, version: str) -> None:
    venv.create(place, with_pip=True, symlinks=True)
    words = ["-m", "pip", "install", "--no-deps", "--disable-pip-version-check", "--quiet", requirement]
    ran = subprocess.run(
        [str(place / "bin" / "python"), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise LabError(f"{requirement} cannot be installed: {_last(ran.stderr)}", details=ran.stderr)
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (place / "lib" / f"python{version}" / "site-packages" / "beside.pth").write_text("\n".join(packages) + "\n")


def _prove(python: Path, place: Path, requirement: str) -> None:
    """That what answers is the build, and not the lab beside it."""
    ran = subprocess.run(
        [str(python), "-P", "-c", "import lab; print(lab.__file__)"],
        env=_without_paths(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode or not Path(ran.stdout.strip()).is_relative_to(place):
        raise LabError(f"{requirement} has no lab that runs: {_last(ran.stderr) or ran.stdout.strip()}")


def _lab(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), "-P", "-m", "lab", *words],
        env=_without_paths(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _without_paths() -> dict[str, str]:
    """This environment, but for what would put another lab before the build's."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " / ".join(lines[-_LINES:])


def _toml(values: Mapping[str, Any]) -> str:
    return "".join(f"{json.dumps(key)} = {_value(value)}\n" for key, value in values.items())


def _value(value: Any) -> str:
    """What TOML's own parser had read, as TOML; its strings are JSON's but for DEL, and JSON's numbers are its own."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value).replace("\x7f", "\\u007f")
