"""A `lab run` on a host of a fleet that outlives the connection by which it was started.

This file is sent to the host and run by its `python3`: it imports nothing but the standard library. What it says on
standard output is one JSON object. It keeps each job in a folder of its own in the login user's state directory:

    job.json      what was asked for            state.json   what has become of it
    heartbeat     written every two seconds     out, err     what `lab run` wrote
    run.db        the store of this run         export.json  the run, once it has ended
    cancel        made by who wants it to end   lab.json     the lab's command on this host

A job is started by `systemd-run` where systemd manages the host and the user is root, else it leaves its session: both
live on when the connection ends. Its own limit of time ends it, whether anybody asks again or not.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MARK = "stratalab fleet job"
BEAT_S = 2.0
SILENT_S = 30.0
"""A job whose heart has not beaten for so long has no keeper any more."""

_LOOK_S = 0.25
_ENDS = ((signal.SIGINT, 90.0), (signal.SIGTERM, 30.0), (signal.SIGKILL, 10.0))
"""How `lab run` is told to end, and how long it gets: at the first signal it removes what it started."""
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]{0,79}")
_TAIL_BYTES = 4096
_UNIT_WAIT_S = 10.0
_SHORT_S = 300.0
_BAD = 2


def main(words: Sequence[str]) -> int:
    """`prepare ID`, `start FOLDER B64`, `keep FOLDER`; `poll`, `cancel` or `remove ID`; `list`; `find`; `lab B64`."""
    action, *rest = words
    code = 0
    match action:
        case "find":
            code = _say(_found())
        case "list":
            code = _say([_told(folder) for folder in sorted(_base().glob("*")) if _is_job(folder)])
        case "lab":
            code = _lab(_decoded(rest[0]))
        case "keep":
            code = _keep(Path(rest[0]))
        case "start":
            code = _start(Path(rest[0]), _decoded(rest[1]))
        case _:
            code = _of_one(action, rest[0])
    return code


def _of_one(action: str, name: str) -> int:
    if not _NAME.fullmatch(name):
        return _say({"state": "refused", "why": "no name of a job"}, code=_BAD)
    actions: dict[str, Callable[[Path], int]] = {"prepare": _prepare, "poll": _poll, "cancel": _cancel}
    return actions.get(action, _remove)(_base() / name)


def _decoded(text: str) -> Any:
    return json.loads(base64.b64decode(text))


def _prepare(folder: Path) -> int:
    """Make the folder with this file in it, and say where it is and which lab there is."""
    found = _found()
    if found["state"] != "found":
        return _say(found)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(__file__, folder / "job.py")
    _write(folder / "lab.json", found["command"])
    return _say({**found, "state": "prepared", "folder": str(folder)})


def _start(folder: Path, asked: dict[str, Any]) -> int:
    """Leave a keeper behind. `asked` has `words`, what `lab run` takes, and `limit_s`."""
    if (folder / "state.json").exists():
        return _say(_told(folder))
    command = json.loads((folder / "lab.json").read_text())
    _write(folder / "job.json", {"mark": MARK, "command": command, **asked})
    me = str(folder / "job.py")
    if Path("/run/systemd/system").is_dir() and os.geteuid() == 0 and shutil.which("systemd-run"):
        unit = ["systemd-run", "--quiet", "--collect", f"--unit=stratalab-fleet-{folder.name}", "-p", "KillMode=mixed"]
        kept = [f"--setenv={name}" for name in ("PATH", "HOME", "LANG") if name in os.environ]
        subprocess.run([*unit, *kept, "--", sys.executable, me, "keep", str(folder)], check=True)
    elif os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with Path(os.devnull).open("r+b") as nothing:
                for descriptor in (0, 1, 2):
                    os.dup2(nothing.fileno(), descriptor)
            os.execv(sys.executable, [sys.executable, me, "keep", str(folder)])  # noqa: S606
        os._exit(0)
    deadline = time.monotonic() + _UNIT_WAIT_S
    while not (folder / "state.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return _say(_told(folder))


def _keep(folder: Path) -> int:
    """Run `lab run`, then `lab export`; returns when both have ended."""
    asked = json.loads((folder / "job.json").read_text())
    state: dict[str, Any] = {"state": "running", "boot": _boot(), "pid": os.getpid(), "ticks": _ticks(os.getpid())}
    _beat(folder)
    _write(folder / "state.json", state)
    cancelled: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: cancelled.append(got))
    store = str(folder / "run.db")
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        child = subprocess.Popen(
            [*asked["command"], "run", *asked["words"], "--store", store],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            start_new_session=True,
        )
        code, why = _await(child, folder, float(asked["limit_s"]), cancelled)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        export = str(folder / "export.json")
        words = ["export", "last", "--store", store, "--format", "json", "--output", export]
        subprocess.run(
            [*asked["command"], *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False
        )
        Path(export).chmod(0o644)  # for the login user, whose folder it is, where root ran it
    _write(folder / "state.json", {**state, "state": "ended", "code": code, "why": why})
    return 0


def _await(child: subprocess.Popen[bytes], folder: Path, limit_s: float, cancelled: list[int]) -> tuple[int, str]:
    """Its exit code, and why it was ended, if it was."""
    began = beat = time.monotonic()
    ends = iter(_ENDS)
    why, due = "", 0.0
    while child.poll() is None:
        now = time.monotonic()
        if now - beat >= BEAT_S:
            _beat(folder)
            beat = now
        if not why and (cancelled or (folder / "cancel").exists()):
            why = "cancelled"
        if not why and now - began > limit_s:
            why = f"it took longer than {limit_s:g} s"
        if why and now >= due:
            number, wait_s = next(ends, (signal.SIGKILL, 10.0))
            with contextlib.suppress(ProcessLookupError):
                # The first goes to the lab alone, which ends its own in order; the later ones to all that is left.
                (os.kill if number == signal.SIGINT else os.killpg)(child.pid, number)
            due = now + wait_s
        time.sleep(_LOOK_S)
    return child.returncode, why


def _poll(folder: Path) -> int:
    return _say(_told(folder))


def _cancel(folder: Path) -> int:
    if _is_job(folder):
        (folder / "cancel").touch(mode=0o600)
    return _say(_told(folder))


def _remove(folder: Path) -> int:
    """Remove a job's folder, unless it runs."""
    told = _told(folder)
    if told["state"] not in ("running", "none"):
        shutil.rmtree(folder)
        told["removed"] = True
    return _say(told)


def _told(folder: Path) -> dict[str, Any]:
    """The state as it is known now: `running`, `ended`, `lost` with `why`, or `none`."""
    told: dict[str, Any] = {"job": folder.name, "state": "none"}
    if not _is_job(folder):
        return told
    try:
        told |= json.loads((folder / "state.json").read_text())
    except FileNotFoundError:
        return told | {"state": "lost", "why": "it never began"}
    except ValueError:
        return told | {"state": "lost", "why": "its state cannot be read"}
    told["said"] = _last_line(folder / "err")
    export = folder / "export.json"
    if told["state"] == "running":
        if told["boot"] != _boot():
            return told | {"state": "lost", "why": "the host was started anew meanwhile"}
        if _ticks(int(told["pid"])) != told["ticks"] or _silent_s(folder) > SILENT_S:
            return told | {"state": "lost", "why": "its keeper was killed"}
    elif export.is_file():
        told |= {"folder": str(folder), "export_bytes": export.stat().st_size}
    return told


def _is_job(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "job.json").read_text()).get("mark") == MARK)
    except (OSError, ValueError, AttributeError):
        return False


def _lab(words: Sequence[str]) -> int:
    """A short command of the lab's, such as `doctor --json`: its exit code, and what it wrote."""
    command = json.loads(os.environ["STRATALAB_COMMAND"])
    try:
        done = subprocess.run(
            [*command, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SHORT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return _say({"code": 1, "why": str(error)})
    said = done.stderr.decode(errors="replace").strip().splitlines()
    told: dict[str, Any] = {"code": done.returncode, "why": _printable(said[-1]) if said else ""}
    with contextlib.suppress(ValueError):
        told["output"] = json.loads(done.stdout)
    return _say(told)


def _found() -> dict[str, Any]:
    """The lab's command and version, or `no lab` and why."""
    command = _find_lab()
    if command is None:
        return {"state": "no lab", "why": f"there is neither {_own_lab()} nor a `lab` in PATH"}
    version = _version(command)
    if version is None:
        return {"state": "no lab", "why": f"{command[-1]} does not run"}
    return {"state": "found", "command": command, "version": version}


def _base() -> Path:
    return Path.home() / ".local/state/stratalab/fleet"


def _own_lab() -> Path:
    return Path.home() / "stratalab/.venv/bin/lab"


def _find_lab() -> list[str] | None:
    """The command: of the checkout that the set-up made, else the one in PATH."""
    given = os.environ.get("STRATALAB_LAB")
    if given:
        return [given]
    own = _own_lab()
    if own.is_file():
        access = own.parents[2] / "vagrant/with-access.sh"
        return [str(access), str(own)] if access.is_file() and os.geteuid() != 0 else [str(own)]
    found = shutil.which("lab")
    return [found] if found else None


def _version(lab: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(
            [lab[-1], "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _ticks(pid: int) -> str:
    """When a process started, in ticks since boot: with its number it is no other's. "" where there is none."""
    try:
        after = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if after[0] == b"Z" else after[19].decode()


def _beat(folder: Path) -> None:
    _write(folder / "heartbeat", time.clock_gettime(time.CLOCK_BOOTTIME))


def _silent_s(folder: Path) -> float:
    try:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - float(json.loads((folder / "heartbeat").read_text()))
    except (OSError, ValueError):
        return float("inf")


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    said = [line for line in lines if line.startswith("lab: ")] or lines
    return _printable(said[-1]) if said else ""


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:500]


def _write(path: Path, value: Any) -> None:
    """In one step: who reads sees the old or the new. Readable for the login user, whose the folder is."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file)
    Path(name).chmod(0o644)
    Path(name).replace(path)


def _say(value: Any, *, code: int = 0) -> int:
    sys.stdout.write(json.dumps(value) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
