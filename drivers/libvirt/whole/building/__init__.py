"""`lab guest build`: a distribution's guest image from its archive, by mmdebstrap, without leaving anything behind.

It is built in memory, in mount and PID namespaces of its own (`inside.py`): unprivileged where this host gives an
ordinary user namespaces and a range of user ids, else as root.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from drivers.libvirt.whole import kept, recipe
from drivers.libvirt.whole.building import inside
from drivers.libvirt.whole.building.archive import Archive
from drivers.libvirt.whole.locked import locked
from lab.errors import DriverError, DriverUnavailable, Unsupported
from lab.store.place import partial

_MEMORY_BYTES = 3 * 1024**3
"""The most that the tree, with the packages that it is made of, may take of memory while it is built."""
_NEEDED_BYTES = 1024**3
"""What it takes of memory (seen: 0.67 GiB), and on the disk while it is made, and a little."""
_PROGRAMS = {"mmdebstrap": "mmdebstrap", "qemu-img": "qemu-utils", "mke2fs": "e2fsprogs", "dpkg-query": "dpkg"}
"""What building needs, each with the package that brings it."""
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_OWN_USERS = ("--user", "--map-root-user", "--map-auto")
_PROBE_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How building is let do what it must: by `prefix` before its command. `word` says so to the user."""

    prefix: tuple[str, ...]
    word: str


def build(
    cache_dir: Path, suite: str, *, say: Callable[[str], None], mirror: str = "", again: bool = False
) -> Mapping[str, Any]:
    """Have the guest image of `suite` in the cache, and return its manifest. What is there of this recipe stays, unless
    `again`; a second build meanwhile waits, and takes what the first has made. `say` is told each step.

    Raises BadInput, DriverUnavailable where a program, the privilege or the memory for it is missing, DriverError.
    """
    recipe.known(suite)
    folder = kept.place_of(cache_dir, suite)
    waited = False

    def tell() -> None:
        nonlocal waited
        waited = True
        say(f"waiting for another lab that builds {suite}")

    with locked(folder, on_wait=tell):
        there = kept.manifest(folder)
        if there is not None and there.get("recipe") == recipe.digest(suite) and (waited or not again):
            return there
        archive = Archive.of_host(suite, mirror)
        _require_machine()
        _require_programs()
        _require_memory()
        way = find_way()
        say(f"building {recipe.SUITES[suite]} ({suite}) from {archive.mirror}, {way.word}")
        with partial(cache_dir, "guest-build", what="a guest image", needs_bytes=_NEEDED_BYTES) as made:
            made.mkdir()
            _build(made, suite, archive, way, say)
            with partial(cache_dir, "guest-before") as before:
                with contextlib.suppress(FileNotFoundError):
                    folder.replace(before)
                made.replace(folder)
    told = kept.manifest(folder)
    if told is None:
        raise DriverError(f"{folder} was removed while it was made")
    return told


def find_way() -> Way:
    """How this user may build here: asked by trying. Raises DriverUnavailable."""
    if os.geteuid() == 0:
        refused = _refused(_NAMESPACES)
        if refused:
            raise DriverUnavailable(
                f"building needs namespaces of its own, and root gets none here: {refused}",
                resolution="build outside of this container, or one with CAP_SYS_ADMIN",
            )
        return Way(prefix=_NAMESPACES, word="as root")
    own = (*_NAMESPACES, *_OWN_USERS)
    refused = _refused(own)
    if not refused:
        return Way(prefix=own, word="without privilege")
    remedy = (
        "sudo apt-get install uidmap, and for ids: "
        "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER; or build as root"
    )
    if shutil.which("sudo") is None:
        raise DriverUnavailable(f"this user gets no namespaces with ids of their own: {refused}", resolution=remedy)
    return Way(prefix=("sudo", "-n", *_NAMESPACES), word=f"by sudo, since this user gets no namespaces: {refused}")


def _refused(prefix: Sequence[str]) -> str:
    """What stands against commands that begin with `prefix`; "" where they run."""
    try:
        done = subprocess.run(
            [*prefix, "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return " ".join(str(error).split())
    said = " ".join(done.stderr.decode(errors="replace").split())
    return "" if done.returncode == 0 else said or f"it ends with {done.returncode}"


def _require_machine() -> None:
    if platform.machine() != "x86_64":
        raise Unsupported(f"guest images are built on x86-64 for it, and this is {platform.machine()}")


def _require_programs() -> None:
    missing = sorted(package for program, package in _PROGRAMS.items() if shutil.which(program) is None)
    if missing:
        raise DriverUnavailable(
            f"building a guest image needs what is not here: {', '.join(missing)}",
            resolution=f"sudo apt-get install {' '.join(missing)}",
        )


def _require_memory() -> None:
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    if free < _NEEDED_BYTES:
        raise DriverUnavailable(
            f"a guest image is built in memory, which takes {_NEEDED_BYTES >> 20} MiB, and {free >> 20} MiB are free",
            resolution="end what uses it, or add swap",
        )


def _build(out: Path, suite: str, archive: Archive, way: Way, say: Callable[[str], None]) -> None:
    """Have disk, kernel, initramfs and manifest in `out`."""
    memory = out / "memory"
    memory.mkdir()
    owner = [os.getuid(), os.getgid()] if way.prefix[0] == "sudo" else None
    plan = {
        "suite": suite,
        "memory": str(memory),
        "memory_bytes": _MEMORY_BYTES,
        "out": str(out),
        "owner": owner,
        "files": recipe.FILES,
        "mmdebstrap": [*recipe.mmdebstrap(files=memory / "files"), *archive.options],
        "sources": archive.sources,
        "taken_out": recipe.TAKEN_OUT,
        "emptied": recipe.EMPTIED,
        "taken_along": {kept.KERNEL: "boot/vmlinuz-*", kept.INITRAMFS: "boot/initrd.img-*"},
        "mke2fs": recipe.MKE2FS,
        "disk_bytes": recipe.DISK_BYTES,
        "disk": kept.DISK,
    }
    plan_file = out / "plan.json"
    plan_file.write_text(json.dumps(plan))
    if way.prefix[0] == "sudo":
        _ask_sudo(say)
    told = _followed([*way.prefix, sys.executable, "-I", str(Path(inside.__file__).resolve()), str(plan_file)], say)
    say("hashing")
    kept.write_manifest(
        out,
        virtual_bytes=recipe.DISK_BYTES,
        facts=recipe.facts(told),
        suite=suite,
        root=recipe.ROOT,
        recipe=recipe.digest(suite),
        mirror=archive.mirror,
        built=way.word,
        packages=told["packages"],
    )
    plan_file.unlink()
    memory.rmdir()


def _ask_sudo(say: Callable[[str], None]) -> None:
    """Have sudo know the user before, so that it asks on the terminal and not amid the building."""
    say("sudo may ask for your password now")
    if subprocess.run(["sudo", "-v"], check=False).returncode != 0:
        raise DriverUnavailable(
            "sudo did not let this user build", resolution="build as root, or see `lab guest --help`"
        )


def _followed(argv: Sequence[str], say: Callable[[str], None]) -> Mapping[str, Any]:
    """Run the building, telling its steps; returns what it told at its end. It ends with this process, whose end of its
    standard input it watches. Raises DriverError."""
    why = ""
    with _running(argv) as running:
        assert running.stdout is not None  # noqa: S101
        for raw in running.stdout:
            kind, _, text = raw.decode(errors="replace").rstrip("\n").partition(" ")
            if kind == "step":
                say(text)
            elif kind == "done":
                found: Mapping[str, Any] = json.loads(text)
                return found
            elif kind == "failed":
                why = text
    raise DriverError(f"the guest image could not be built: {why or f'it ended with {running.returncode}'}")


@contextlib.contextmanager
def _running(argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            assert running.stdin is not None  # noqa: S101
            running.stdin.close()  # which ends what still runs
            running.wait()
