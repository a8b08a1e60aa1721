"""Docker by the lab against Docker by a separate program: paired, interleaved, each pair in a random order."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from labside import Prepared, lab_side
from programs import run_program
from verdict import SAME, Verdict, report, say

from lab.errors import Unsupported
from lab.launch.waiter import reserve_port
from lab.spec import SERVICE_IMAGE, new_nonce
from lab.timeline import Phase

PROGRAM_TIMEOUT_S = 90.0
OTHERS_EVERY = 3
"""What is measured for information only is measured in every third pair."""


def docker_pairs(pairs: int, chance: random.Random) -> list[Verdict]:
    """Measure and print. Raises LabError, ProgramFailed."""
    socket = engine_socket()
    times: dict[str, list[float]] = {"lab": [], "hand": [], "early": [], "command": []}
    steps: dict[str, list[float]] = {"create": [], "start": [], "lab create": [], "lab start": []}
    command = shutil.which("docker") or ""
    with lab_side() as side:
        prepared = side.prepare("docker")
        image = f"{SERVICE_IMAGE}:{side.labels['lab.run']}"
        seen: dict[str, Mapping[str, Any]] = {}

        def by_lab() -> float:
            with prepared.launched() as session:
                timeline = session.timeline
                if "lab" not in seen:
                    assert session.instance is not None
                    seen["lab"] = _inspect(socket, session.instance.id)
                steps["lab create"].append(timeline.duration_s(Phase.REQUESTED, Phase.CREATED) * 1e3)
                steps["lab start"].append(timeline.duration_s(Phase.CREATED, Phase.STARTED) * 1e3)
                return timeline.duration_s(Phase.REQUESTED, Phase.READY)

        def by_hand() -> float:
            found = run_program("docker_by_hand.py", _given(prepared, socket, image, ""), timeout_s=PROGRAM_TIMEOUT_S)
            seen["hand"] = found["container"]
            steps["create"].append(found["create_s"] * 1e3)
            steps["start"].append(found["start_s"] * 1e3)
            return float(found["boot_s"])

        def for_information(command: str = "", *, early: bool = False) -> float:
            given = {**_given(prepared, socket, image, command), "early": early}
            return float(run_program("docker_by_hand.py", given, timeout_s=PROGRAM_TIMEOUT_S)["boot_s"])

        ways: dict[str, Callable[[], float]] = {"lab": by_lab, "hand": by_hand}
        others: dict[str, Callable[[], float]] = {"early": lambda: for_information(early=True)}
        if command:
            others["command"] = lambda: for_information(command)
        for pair in range(pairs + 1):
            now = {**ways, **others} if pair % OTHERS_EVERY == 0 else ways
            for way in chance.sample(list(now), len(now)):
                seconds = now[way]()
                if pair:  # the first warms up
                    times[way].append(seconds)
    _print_differences(seen)
    return _print(times, steps)


def _print(times: Mapping[str, list[float]], steps: Mapping[str, list[float]]) -> list[Verdict]:
    milliseconds = {way: [value * 1e3 for value in values] for way, values in times.items()}
    report("by the lab, requested to ready", milliseconds["lab"], "ms")
    report("by hand, create request to first 200", milliseconds["hand"], "ms")
    ratios = [lab / hand for lab, hand in zip(times["lab"], times["hand"], strict=True)]
    verdict = report("lab / by hand, ratio within each pair", ratios, "", SAME)
    of_medians = statistics.median(times["lab"]) / statistics.median(times["hand"])
    say(f"    for information: ratio of the medians {of_medians:.3f}")
    for name in ("lab create", "create", "lab start", "start"):
        report(
            f"  for information: {name.removeprefix('lab ')} {'by the lab' if 'lab' in name else 'by hand'}",
            steps[name][1:],
            "ms",
        )
    report("  for information: by hand, requests from before the create request on", milliseconds["early"], "ms")
    if times["command"]:
        report("  for information: `docker run -d`, exec to first 200", milliseconds["command"], "ms")
    else:
        say("    `docker run -d`: not run, there is no docker command")
    return [verdict] if verdict else []


def _given(prepared: Prepared, socket: str, image: str, command: str) -> dict[str, Any]:
    labels = {**prepared.spec.labels, "lab.launch": secrets.token_hex(8)}
    return {
        "socket": socket,
        "image": image,
        "port": reserve_port(),
        "nonce": new_nonce(),
        "labels": labels,
        "command": command,
        "early": False,
    }


def engine_socket() -> str:
    """The engine's socket. Raises Unsupported where it is none of this host's."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        raise Unsupported(f"the engine at {host} has no Unix socket here", resolution="unset DOCKER_HOST")
    return host.removeprefix("unix://")


def _inspect(socket: str, container: str) -> Mapping[str, Any]:
    from docker_by_hand import engine

    found: Mapping[str, Any] = engine(socket, "GET", f"/containers/{container}/json")
    return found


def _print_differences(seen: Mapping[str, Mapping[str, Any]]) -> None:
    """Say whether both containers were asked for alike: what the engine keeps of the two, but for names and ports."""
    lab, hand = (_comparable(seen[way]) for way in ("lab", "hand"))
    different = sorted(key for key in lab.keys() | hand.keys() if lab.get(key) != hand.get(key))
    told = "; ".join(f"{key}: {lab.get(key)!r} by the lab, {hand.get(key)!r} by hand" for key in different)
    say(f"  the two containers' configurations differ in: {told or 'nothing'}")


def _comparable(told: Mapping[str, Any]) -> dict[str, Any]:
    host, config = dict(told["HostConfig"]), dict(told["Config"])
    host["PortBindings"] = {
        port: [binding["HostIp"] for binding in bindings] for port, bindings in host["PortBindings"].items()
    }
    config["Labels"] = {key: value for key, value in config["Labels"].items() if key != "lab.launch"}
    config["Env"] = sorted(entry for entry in config["Env"] if not entry.startswith("LAB_NONCE="))
    config.pop("Hostname")  # the container's own id
    return {**{f"HostConfig.{key}": value for key, value in host.items()}, **config}
