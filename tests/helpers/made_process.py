"""Processes as /proc shows them, made up, for the tests of what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scenarios.surface.inside import NAMESPACES

LINKS = {kind: f"{kind}:[40265318{number}]" for number, kind in enumerate(NAMESPACES, start=30)}
STATUS = {
    "Uid": "0\t0\t0\t0",
    "Gid": "0\t0\t0\t0",
    "Groups": "",
    "CapEff": "00000000a80425fb",
    "CapPrm": "00000000a80425fb",
    "CapInh": "0000000000000000",
    "CapBnd": "000001ffffffffff",
    "CapAmb": "0000000000000000",
    "NoNewPrivs": "1",
    "Seccomp": "2",
    "Seccomp_filters": "1",
}


def make_process(root: Path, pid: str, **changes: Any) -> Path:
    """A process below `root`/proc, as far as `outside` reads one."""
    told = {"status": {**STATUS, "State": "S (sleeping)"}, "exe": "/x/service-0123456789abcdef", "fds": [], **changes}
    process = root / "proc" / pid
    for directory in ("ns", "fd", "attr", "net"):
        (process / directory).mkdir(parents=True)
    (process / "status").write_text("".join(f"{key}:\t{value}\n" for key, value in told["status"].items()))
    (process / "exe").symlink_to(told["exe"])
    (process / "root").symlink_to(told.get("own_root", root))
    (process / "attr/current").write_text("unconfined\n")
    (process / "cgroup").write_text(told.get("cgroup", "4:memory:/\n0::/\n"))
    (process / "net/tcp").write_text("  sl  local_address\n   0: 0100007F:1F90 00000000:0000 0A 0 0 0 0 0 0 4242 1\n")
    for kind, link in {**LINKS, **told.get("namespaces", {})}.items():
        (process / "ns" / kind).symlink_to(link)
    for number, target in enumerate(told["fds"]):
        (process / "fd" / str(number)).symlink_to(target)
    return process
