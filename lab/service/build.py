"""Builds the lab's static programs from the C sources beside this file, for the machine that it stands on.

The compiler is the machine's `cc` with a static libc, or the PyPI package `ziglang` (with musl) where that does not
link. The same sources, compiler and flags give the same bytes, wherever they are built.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.store.place import partial

SOURCE_DIR = Path(__file__).parent
SERVICE_SOURCES = (
    "service.c",
    "server.c",
    "http.c",
    "endpoints.c",
    "work.c",
    "privileges.c",
    "measure.c",
    "surface.c",
    "surface_self.c",
    "surface_places.c",
    "surface_paths.c",
    "surface_kernel.c",
    "surface_calls.c",
    "mix.c",
    "pieces.c",
    "task.c",
    "troubles.c",
    "antagonists.c",
    "client.c",
    "ask.c",
    "connect.c",
    "schedule.c",
    "versions.c",
    "text.c",
)
GUEST_INIT_SOURCES = ("guest_init.c", "guest_config.c", "guest_network.c")
ENTER_SOURCES = ("enter.c",)
HEADERS = (
    "service.h",
    "client.h",
    "surface.h",
    "calls_table.h",
    "calls_x86.h",
    "calls_newer.h",
    "pieces.h",
    "task.h",
    "guest_init.h",
)

_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-static", "-s", "-Wall", "-Wextra", "-Wl,--build-id=none")
_COMPILE_TIMEOUT_S = 600.0  # ziglang builds its libc at the first call
_ASK_TIMEOUT_S = 60.0
_RESOLUTION = "apt-get install gcc libc6-dev, or pip install ziglang"


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler: how to call it, and the text that tells it from any other."""

    command: tuple[str, ...]
    identity: str


def build_service(cache_dir: Path) -> Path:
    """The static service binary, built unless `cache_dir` has it. Raises LabError when no compiler can."""
    return build("service", SERVICE_SOURCES, cache_dir)


def build_guest_init(cache_dir: Path) -> Path:
    """The static pid 1 of VM guests, built unless `cache_dir` has it. Raises LabError when no compiler can."""
    return build("guest-init", GUEST_INIT_SOURCES, cache_dir)


def build_enter(cache_dir: Path) -> Path:
    """The static launcher into cgroups, built unless `cache_dir` has it. Raises LabError when no compiler can."""
    return build("enter", ENTER_SOURCES, cache_dir)


def build(
    name: str,
    sources: Sequence[str],
    cache_dir: Path,
    *,
    flags: Sequence[str] = (),
    compilers: Sequence[Compiler] | None = None,
) -> Path:
    """The static program `name` of `sources`, with `flags` added, by the first of `compilers` that can.

    The file's name holds a hash of sources, compiler and flags. Raises LabError.
    """
    found = available_compilers() if compilers is None else list(compilers)
    programs = cache_dir / "programs"
    candidates = [(c, programs / f"{name}-{_key(sources, flags, c)}") for c in found]
    for _, path in candidates:
        if path.exists():
            return path
    failures = [_compile(compiler, sources, flags, path, cache_dir) for compiler, path in candidates]
    for (_, path), failure in zip(candidates, failures, strict=True):
        if failure is None:
            return path
    raise LabError(
        f"no C compiler here can build the static program '{name}'",
        details="\n".join(failure for failure in failures if failure) or "neither cc nor the ziglang package is there",
        resolution=_RESOLUTION,
    )


def available_compilers() -> list[Compiler]:
    """The compilers that this machine has, the preferred one first; whether they can link statically is not known."""
    commands: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    machine_compiler = shutil.which("cc") or shutil.which("gcc")
    if machine_compiler:
        commands.append(((machine_compiler,), (machine_compiler, "--version")))
    if importlib.util.find_spec("ziglang"):
        zig = (sys.executable, "-m", "ziglang")
        target = f"{platform.machine()}-linux-musl"
        commands.append(((*zig, "cc", "-target", target, "-fno-sanitize=all"), (*zig, "version")))
    compilers = []
    for command, ask in commands:
        try:
            answer = subprocess.run(ask, capture_output=True, timeout=_ASK_TIMEOUT_S, check=True)
        except (OSError, subprocess.SubprocessError):
            continue  # it is on the path and does not run: as good as absent
        # Where a compiler lies changes nothing in what it makes; its target does.
        identity = "\n".join((*command[1:], platform.machine(), answer.stdout.decode(errors="replace")))
        compilers.append(Compiler(command, identity.replace(sys.executable, "")))
    return compilers


def _key(sources: Sequence[str], flags: Sequence[str], compiler: Compiler) -> str:
    digest = hashlib.sha256()
    for part in (*_FLAGS, *flags, compiler.identity):
        digest.update(part.encode() + b"\0")
    for name in sorted({*sources, *HEADERS}):
        digest.update(name.encode() + b"\0" + (SOURCE_DIR / name).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _compile(
    compiler: Compiler, sources: Sequence[str], flags: Sequence[str], path: Path, cache_dir: Path
) -> str | None:
    """Build `path`; None when it worked, else what the compiler said."""
    if path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    # Its caches go with the lab's: a service account may have no home.
    environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache_dir / "zig"))
    environment.setdefault("ZIG_LOCAL_CACHE_DIR", str(cache_dir / "zig"))
    with partial(cache_dir, path.name) as directory:
        directory.mkdir()
        for source in {*sources, *HEADERS}:
            shutil.copyfile(SOURCE_DIR / source, directory / source)
        # Relative names in a directory of its own: no path of this machine gets into the program.
        command = [*compiler.command, *_FLAGS, *flags, "-o", "program", *sources]
        try:
            result = subprocess.run(
                command, cwd=directory, env=environment, capture_output=True, timeout=_COMPILE_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{' '.join(command)}: {error}"
        if result.returncode != 0:
            return f"{' '.join(command)}: {result.stderr.decode(errors='replace').strip()}"
        program = directory / "program"
        program.chmod(0o755)
        program.replace(path)
    return None
