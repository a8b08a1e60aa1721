"""Builds a guest's disk in namespaces of its own: `python inside.py PLAN`, as the first process of its PID namespace.

Everything that building makes on the way (a file system in memory, mounts, a changed root, daemons that a package's
script starts) exists in these namespaces only. When this process ends, the kernel ends all others in them and takes the
rest away; and it ends as soon as its standard input does, whose other end whoever started it holds: so nothing is left,
in whatever way either dies. Only what is written to the plan's folder `out` lies outside.

It uses Python's standard library alone, since it may run as another user than the lab. What it says on its standard
output are lines: `step WHAT`, then `done JSON` or `failed WHY`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KEPT_LINES = 15
_UNTOLD = ("I: success", "I: running --", "I: chroot architecture", "I: finding correct")
_NO_ROOM = "No space left on device"


class Failed(Exception):
    """What went wrong, in one line."""


def main(plan_file: str) -> int:
    """Returns the exit code, 0 where the disk was built."""
    threading.Thread(target=_end_with_the_lab, daemon=True).start()
    plan = json.loads(Path(plan_file).read_text())
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    try:
        _say("done", json.dumps(_build(plan)))
    except (Failed, OSError) as error:
        _say("failed", " ".join(str(error).split()))
        return 1
    return 0


def _build(plan: Mapping[str, Any]) -> dict[str, Any]:
    memory, out = Path(plan["memory"]), Path(plan["out"])
    _run(["mount", "-t", "tmpfs", "-o", f"size={plan['memory_bytes']},mode=0755", "lab-guest", str(memory)])
    tree = memory / "tree"
    if plan["files"]:
        _write(memory / "files", plan["files"])
    _follow([*plan["mmdebstrap"], plan["suite"], str(tree), *plan["sources"]])
    _say("step", "taking out what no two guests may share")
    for pattern in plan["taken_out"]:
        for path in tree.glob(pattern):
            path.unlink()
    for name in plan["emptied"]:
        (tree / name).write_text("")
    told: dict[str, Any] = {"packages": _packages(tree), "os": _os_release(tree)}
    for name, pattern in plan["taken_along"].items():
        found = sorted(tree.glob(pattern))
        if len(found) != 1:
            raise Failed(f"there is not exactly one {pattern} in what was installed")
        told[name] = found[0].name
        shutil.copyfile(found[0], out / name)
    _say("step", "making the file system")
    raw = out / "disk.raw"
    _run([*plan["mke2fs"], "-d", str(tree), str(raw), f"{plan['disk_bytes'] // 1024}k"])
    _say("step", "making the disk image")
    _run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(out / plan["disk"])])
    raw.unlink()
    for name in (plan["disk"], *plan["taken_along"]):
        path = out / name
        path.chmod(0o600)
        if plan["owner"] is not None:
            os.chown(path, *plan["owner"])
        _flush(path)
    return told


def _follow(argv: list[str]) -> None:
    """Run mmdebstrap, telling its steps as it tells them."""
    kept: list[str] = []
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        assert running.stdout is not None  # noqa: S101
        for raw in running.stdout:
            line = raw.decode(errors="replace").rstrip()
            kept = [*kept[-_KEPT_LINES:], line]
            if line.startswith("I: ") and not line.startswith(_UNTOLD):
                _say("step", line.removeprefix("I: ").rstrip("."))
    if running.returncode != 0:
        raise Failed(_why(kept) or f"mmdebstrap ended with {running.returncode}")


def _why(lines: list[str]) -> str:
    """Of what mmdebstrap and those that it runs said last, what went wrong first."""
    for beginning in ("E: ", "dpkg: error", "W: "):
        if _NO_ROOM in "".join(lines):
            return f"{_NO_ROOM}: it needs more memory than it was given"
        if found := [line for line in lines if line.startswith(beginning)]:
            return found[0]
    return lines[-1] if lines else ""


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """The lab's own files, for mmdebstrap's hook to lay into the tree before any package is there."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def _packages(tree: Path) -> dict[str, str]:
    form = "--showformat=${Package} ${Version}\\n"
    told = _run(["dpkg-query", f"--admindir={tree}/var/lib/dpkg", "--show", form])
    return dict(line.split(" ", 1) for line in told.splitlines())


def _os_release(tree: Path) -> dict[str, str]:
    lines = (tree / "usr/lib/os-release").read_text().splitlines()
    told = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
    with contextlib.suppress(OSError):
        told["DEBIAN_VERSION"] = (tree / "etc/debian_version").read_text().strip()
    return told


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        said = " ".join((done.stderr.strip() or done.stdout).split())
        raise Failed(f"{argv[0]}: {said or f'it ended with {done.returncode}'}")
    return done.stdout


def _flush(path: Path) -> None:
    """On the disk, before its name is."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _say(kind: str, text: str) -> None:
    sys.stdout.write(f"{kind} {text}\n")
    sys.stdout.flush()


def _end_with_the_lab() -> None:
    """The first process of a PID namespace takes every other with it."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os._exit(70)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
