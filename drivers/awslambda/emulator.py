"""What the lab's own endpoint is made of, from PyPI, at pinned versions: MiniStack in a venv of its own, and the
Runtime Interface Emulator (RIE), whose binary lies in the wheel of `aws-sam-cli`."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import sys
import zipfile
from pathlib import Path

from lab.driver import Context
from lab.errors import DriverError, DriverUnavailable
from lab.host.programs import run
from lab.store.place import partial, require_exec

MINISTACK = "1.5.33"
_DOCKER_SDK = "docker>=7.1"  # without which it says at each call that Docker is required
_SAM = "1.170.0"
_RIE = {  # by machine: the binary's name in the wheel, and its SHA-256
    "x86_64": (
        "samcli/local/rapid/aws-lambda-rie-x86_64",
        "6b1e686e62ab2baf5759c412c4864276ef2a88b094fca53ec070637ccba9b9a5",
    ),
    "aarch64": (
        "samcli/local/rapid/aws-lambda-rie-arm64",
        "ec2e5d09633d853834c008b1ef264bf834b258a94d551d2b2074966494b39a21",
    ),
}
_MOST_BYTES = 64 * 1024 * 1024
_PIP_TIMEOUT_S = 600.0


def program_of(cache_dir: Path) -> Path:
    """Where MiniStack's Python is, whether it has been installed or not."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return cache_dir / f"ministack-{MINISTACK}-py{python}" / "bin" / "python"


def install(context: Context) -> Path:
    """MiniStack's own Python, installed unless the cache has it. Raises DriverUnavailable, naming what mends it."""
    program = program_of(context.cache_dir)
    require_exec(context.cache_dir)
    if program.exists():
        return program
    folder = program.parent.parent
    context.say(f"installing MiniStack {MINISTACK} from PyPI, once, into {folder}")
    wanted = [f"ministack=={MINISTACK}", _DOCKER_SDK]
    with partial(context.cache_dir, folder.name, what="MiniStack") as made:
        try:
            run([sys.executable, "-m", "venv", str(made)], doing="make a venv for MiniStack", timeout_s=_PIP_TIMEOUT_S)
            pip = [str(made / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
            run([*pip, "--quiet", *wanted], doing="install MiniStack", timeout_s=_PIP_TIMEOUT_S)
        except DriverError as error:
            raise _unavailable(f"MiniStack {MINISTACK}", error, " ".join(f"'{one}'" for one in wanted)) from error
        # Its scripts name the folder that it was made in, and its Python finds what lies beside itself.
        with contextlib.suppress(OSError):  # another lab was first
            made.rename(folder)
    if not program.exists():
        raise DriverUnavailable(f"MiniStack cannot be kept in {folder}", resolution="see that its disk has room")
    return program


def provide_rie(context: Context) -> Path:
    """The Runtime Interface Emulator for this machine, taken from PyPI unless the cache has it; its bytes are those
    that were pinned. Raises DriverUnavailable."""
    machine = platform.machine()
    if machine not in _RIE:
        raise DriverUnavailable(f"the Runtime Interface Emulator is not made for {machine}")
    member, digest = _RIE[machine]
    path = context.cache_dir / f"aws-lambda-rie-{_SAM}-{digest[:12]}"
    if path.exists():
        return path
    context.say(f"taking the Runtime Interface Emulator from the wheel of aws-sam-cli {_SAM}, once")
    with partial(context.cache_dir, path.name, what="the Runtime Interface Emulator") as folder:
        folder.mkdir()
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
        argv = [*pip, "--no-deps", "--only-binary=:all:", "--dest", str(folder), f"aws-sam-cli=={_SAM}"]
        try:
            run(argv, doing="take the Runtime Interface Emulator", timeout_s=_PIP_TIMEOUT_S)
        except DriverError as error:
            raise _unavailable("the Runtime Interface Emulator", error, f"aws-sam-cli=={_SAM}") from error
        made = folder / "rie"
        made.write_bytes(binary_in(next(folder.glob("*.whl"), folder / "none"), member, digest))
        made.chmod(0o755)
        made.replace(path)
    return path


def binary_in(wheel: Path, member: str, digest: str) -> bytes:
    """The bytes of `member` in a wheel, read and never unpacked by a name of the wheel's own. Raises DriverUnavailable
    where they are not those of `digest`."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DriverUnavailable(
            f"the wheel of aws-sam-cli {_SAM} does not hold the Runtime Interface Emulator", details=str(error)
        ) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise DriverUnavailable(
            f"the Runtime Interface Emulator in the wheel of aws-sam-cli {_SAM} is not the one that was pinned",
            resolution="look at the package index that pip uses",
        )
    return content


def _unavailable(what: str, error: DriverError, wanted: str) -> DriverUnavailable:
    return DriverUnavailable(
        f"{what} cannot be had from PyPI: {error.brief}",
        details=error.details,
        resolution=f"see that `{sys.executable} -m pip download --no-deps {wanted}` works",
    )
