"""What a user gives a service by --env is for the engine alone: no other user of this host sees it."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lab.driver import Context
from lab.launch.session import Session
from lab.registry import make_driver
from lab.spec import Spec, Target
from lab.timeline import SystemClock

TARGETS = ("process", "oci", "nspawn", "lxc", "bwrap", "docker", "swarm", "libvirt:microvm")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.engine(name)) for name in TARGETS])
def test_it_is_in_no_argument_no_label_and_no_file_that_others_can_read(
    name: str, make_context: Callable[..., Context], labels: Mapping[str, str]
) -> None:
    secret, context = secrets.token_hex(16), make_context()
    with contextlib.closing(make_driver(Target.parse(name), context)) as driver:
        spec = Spec(labels={**labels, "lab.target": name}, environment={"TOKEN": secret})
        driver.prepare(spec)
        try:
            with Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=120) as session:
                session.launch()
                assert session.instance is not None
                assert secret not in f"{session.instance.labels} {session.spec!r} {session.instance.logs()!r}"
                lines = [_bytes(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
                assert not [line for line in lines if secret.encode() in line]
                own = [Path(f"/run/stratalab-{engine}") for engine in ("oci", "nspawn", "lxc")]
                for folder in (context.run_dir, *own, Path("/etc/libvirt"), Path("/run/libvirt")):
                    _closed(folder, secret.encode())
        finally:
            for left in driver.leftovers({"lab.run": labels["lab.run"]}):
                left.delete()


def _closed(folder: Path, secret: bytes) -> None:
    for path in folder.rglob("*"):
        found = path.lstat() if os.path.lexists(path) else None
        if found is not None and stat.S_ISREG(found.st_mode) and secret in _bytes(path):
            assert not found.st_mode & 0o077, path


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has gone, or is this user's to know of and not to read
        return b""
