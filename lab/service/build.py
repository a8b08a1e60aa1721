"""Builds the lab's static programs from the C sources in src/, for the machine that it stands on or another.

The compiler is the machine's `cc` with a static libc, or the PyPI package `ziglang` (with musl) where that does not
link, and for every other machine. The same sources, compiler and flags give the same bytes, wherever they are built.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.store.place import partial

SOURCE_DIR = Path(__file__).parent / "src"
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "service": (
        "common",
        "http",
        "server",
        "machine",
        "measure",
        "surface",
        "compat",
        "tasks",
        "endpoints",
        "client",
        "talk",
        "function",
        "service",
    ),
    "guest-init": ("guest", "pid1"),
    "enter": ("cgroup",),
    "inside": ("sandbox",),
    "activator": ("common", "activation"),
}
"""Each program's folders of sources, from the lowest: a folder may use those before it, and none behind it."""

_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-I.", "-O2", "-static", "-s", "-Wall", "-Wextra", "-Wl,--build-id=none")
_COMPILE_TIMEOUT_S = 600.0  # ziglang builds its libc at the first call
_ASK_TIMEOUT_S = 60.0
_RESOLUTION = "apt-get install gcc libc6-dev, or pip install ziglang"


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler: how to call it, and the text that tells it from any other."""

    command: tuple[str, ...]
    identity: str


def build_service(cache_dir: Path, *, machine: str = "") -> Path:
    """The static service binary, built unless `cache_dir` has it; for `machine` (`uname -m`), or this one. Raises
    LabError when no compiler can."""
    return build("service", cache_dir, compilers=_compilers_for(machine))


def build_guest_init(cache_dir: Path, *, machine: str = "") -> Path:
    """The static pid 1 of VM guests, as `build_service`. Raises LabError when no compiler can."""
    return build("guest-init", cache_dir, compilers=_compilers_for(machine))


def build_enter(cache_dir: Path) -> Path:
    """The static launcher into cgroups, built unless `cache_dir` has it. Raises LabError when no compiler can."""
    return build("enter", cache_dir)


def build_inside(cache_dir: Path) -> Path:
    """The static program by which tools of namespaces start what is described to it, built unless `cache_dir` has it.
    Raises LabError when no compiler can."""
    return build("inside", cache_dir)


def build_activator(cache_dir: Path) -> Path:
    """The static keeper of a listening socket, built unless `cache_dir` has it. Raises LabError when no compiler
    can."""
    return build("activator", cache_dir)


def build(
    program: str,
    cache_dir: Path,
    *,
    flags: Sequence[str] = (),
    compilers: Sequence[Compiler] | None = None,
) -> Path:
    """The static program of this name in PROGRAMS, with `flags` added, by the first of `compilers` that can.

    The file's name holds a hash of sources, compiler and flags. Raises LabError.
    """
    files = source_files(program)
    candidates: list[tuple[Compiler, Path]] = []
    for compiler in _here() if compilers is None else compilers:
        path = cache_dir / "programs" / f"{program}-{_key(files, flags, compiler)}"
        if path.exists():
            return path
        candidates.append((compiler, path))
    failures: list[str] = []
    for compiler, path in candidates:
        failure = _compile(compiler, files, flags, path, cache_dir)
        if failure is None:
            return path
        failures.append(failure)
    raise LabError(
        f"no C compiler here can build the static program '{program}'",
        details="\n".join(failures) or "neither cc nor the ziglang package is there",
        resolution=_RESOLUTION,
    )


def source_files(program: str) -> list[str]:
    """The program's C files and headers, as paths in SOURCE_DIR, in an order that is the same on every file system."""
    folders = (SOURCE_DIR / folder for folder in PROGRAMS[program])
    return [path.relative_to(SOURCE_DIR).as_posix() for folder in folders for path in sorted(folder.glob("*.[ch]"))]


def available_compilers() -> list[Compiler]:
    """The compilers that this machine has, the preferred one first; whether they can link statically is not known."""
    return list(_here())


def _here() -> Iterator[Compiler]:
    """Each is asked only once it is its turn: ziglang takes a while to tell its version."""
    machine_compiler = shutil.which("cc") or shutil.which("gcc")
    if machine_compiler:
        yield from _asked((machine_compiler,), (machine_compiler, "--version"))
    if zig := _zig(platform.machine()):
        yield from _asked(*zig)


def cross_compiles() -> bool:
    """Whether programs for another machine can be built here; asks no compiler."""
    return importlib.util.find_spec("ziglang") is not None


def _compilers_for(machine: str) -> list[Compiler] | None:
    """Those that build for `machine`: None for any of this one's. Raises LabError where there is none."""
    if machine in ("", platform.machine()):
        return None
    zig = _zig(machine)
    if zig is None:
        raise LabError(
            f"there is no compiler here that builds programs for {machine}", resolution="pip install 'stratalab[zig]'"
        )
    return list(_asked(*zig))


def _zig(machine: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """How ziglang is called to compile for `machine`, and to tell its version."""
    if not cross_compiles():
        return None
    zig = (sys.executable, "-m", "ziglang")
    return (*zig, "cc", "-target", f"{machine}-linux-musl", "-fno-sanitize=all"), (*zig, "version")


def _asked(command: tuple[str, ...], ask: tuple[str, ...]) -> Iterator[Compiler]:
    try:
        answer = subprocess.run(ask, capture_output=True, timeout=_ASK_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return  # it is on the path and does not run: as good as absent
    # Where a compiler lies changes nothing in what it makes; its target does.
    identity = "\n".join((*command[1:], platform.machine(), answer.stdout.decode(errors="replace")))
    yield Compiler(command, identity.replace(sys.executable, ""))


def _key(files: Sequence[str], flags: Sequence[str], compiler: Compiler) -> str:
    digest = hashlib.sha256()
    for part in (*_FLAGS, *flags, compiler.identity):
        digest.update(part.encode() + b"\0")
    for name in files:
        digest.update(name.encode() + b"\0" + (SOURCE_DIR / name).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _compile(compiler: Compiler, files: Sequence[str], flags: Sequence[str], path: Path, cache_dir: Path) -> str | None:
    """Build `path`; None when it worked, else what the compiler said."""
    if path.exists():
        return None
    environment = dict(os.environ)
    # Its caches go with the lab's: a service account may have no home.
    environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache_dir / "zig"))
    environment.setdefault("ZIG_LOCAL_CACHE_DIR", str(cache_dir / "zig"))
    with partial(cache_dir, path.name, what="the lab's service, compiled,") as directory:
        path.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir()
        for file in files:
            (directory / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(SOURCE_DIR / file, directory / file)
        # Relative names in a directory of its own: no path of this machine gets into the program.
        sources = [file for file in files if file.endswith(".c")]
        command = [*compiler.command, *_FLAGS, *flags, "-o", "program", *sources]
        try:
            result = subprocess.run(
                command, cwd=directory, env=environment, capture_output=True, timeout=_COMPILE_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{' '.join(command)}: {error}"
        if os.strerror(errno.ENOSPC).encode() in result.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if result.returncode != 0:
            return f"{' '.join(command)}: {result.stderr.decode(errors='replace').strip()}"
        program = directory / "program"
        program.chmod(0o755)
        program.replace(path)
    return None
