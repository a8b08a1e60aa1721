"""vagrant/with-access.sh: as whom a command runs, and whose the files are that it leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
PLAYED = Path(__file__).parent / "played"
TOOLS = "bash cat dirname echo env find grep mkdir sh xargs"
LISTENS = "0000: 00000002 00000000 00010000 0001 01 1 /run/libvirt/libvirt-sock\n"


class Place:
    """A machine whose libvirt listens, and a user of the given number who is in no group."""

    def __init__(self, root: Path, uid: int) -> None:
        self.root = root
        # A copy, because files of the checkout are given to the user who is played.
        self.script = Path(shutil.copytree(CHECKOUT / "vagrant", root / "checkout/vagrant")) / "with-access.sh"
        for directory in ("bin", "world", "proc/net", "home"):
            (root / directory).mkdir(parents=True)
        for name in ("id", "sudo", "chown"):
            (root / "bin" / name).symlink_to(PLAYED / name)
        for tool in TOOLS.split():
            (root / "bin" / tool).symlink_to(str(shutil.which(tool)))
        (root / "proc/net/unix").write_text(LISTENS)
        (root / "world/uid").write_text(str(uid))
        (root / "world/log").touch()

    def run(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        fixed = {"PATH": f"{self.root}/bin", "SYSROOT": str(self.root), "WORLD": f"{self.root}/world"}
        return subprocess.run(
            [self.script, "sh", "-c", command],
            env={**fixed, "HOME": f"{self.root}/home", "XDG_RUNTIME_DIR": "/none", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def log(self) -> str:
        return (self.root / "world/log").read_text()


def test_a_user_without_access_runs_the_command_under_sudo(tmp_path: Path) -> None:
    place = Place(tmp_path, 1000)
    done = place.run('echo "$LAB_REQUIRE $XDG_STATE_HOME"; exit 3', LAB_REQUIRE="libvirt")
    assert done.returncode == 3
    assert done.stdout == f"libvirt {tmp_path}/home/.local/state\n"
    assert "under sudo, because this user may not use libvirt" in done.stderr
    assert "sudo env LAB_REQUIRE=libvirt" in place.log()


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes files that are root's")
def test_what_root_leaves_is_given_back_to_the_user(tmp_path: Path) -> None:
    place = Place(tmp_path, 1000)
    place.run('touch "$XDG_STATE_HOME/stratalab/store"')
    given_back = " ".join(line for line in place.log().splitlines() if line.startswith("chown -h 1000:1000"))
    assert f"{tmp_path}/checkout" in given_back
    assert f"{tmp_path}/home/.local/state/stratalab" in given_back
    assert f"{tmp_path}/home/.cache/stratalab" in given_back


@pytest.mark.parametrize(("uid", "engines"), [(0, "libvirt"), (1000, "process")])
def test_a_user_with_access_runs_the_command_alone(tmp_path: Path, uid: int, engines: str) -> None:
    place = Place(tmp_path, uid)
    assert place.run("echo alone", ENGINES=engines).stdout == "alone\n"
    assert "sudo" not in place.log()


def test_without_sudo_the_command_runs_with_what_there_is(tmp_path: Path) -> None:
    place = Place(tmp_path, 1000)
    (tmp_path / "bin/sudo").unlink()
    done = place.run("echo alone")
    assert done.stdout == "alone\n"
    assert "going on without" in done.stderr
