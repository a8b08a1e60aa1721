"""vagrant/venv.sh: when it makes the environment, and what it installs there; Python and pip are played."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]

PYTHON = """#!/usr/bin/env bash
case "$*" in
  --version) echo "Python $(cat "$WORLD/version")" ;;
  *version_info*) [ "$(cat "$WORLD/version")" != 3.9.2 ] ;;
  "-m venv --clear .venv")
    echo 'venv made' >>"$WORLD/log"
    rm -rf .venv
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    echo "#!$PWD/.venv/bin/python" >.venv/bin/pip ;;
  "-m pip install"*) echo "$*" >>"$WORLD/log" ;;
esac
"""


class Played:
    def __init__(self, root: Path) -> None:
        self.checkout = root / "checkout"
        self.log = root / "log"
        self.version = root / "version"
        shutil.copytree(CHECKOUT / "vagrant", self.checkout / "vagrant")
        (self.checkout / "pyproject.toml").write_text("first")
        (root / "bin").mkdir()
        for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
            self.play(root / "bin" / name, PYTHON)
        self.headers = root / "bin/pkg-config"
        self.play(self.headers, "#!/bin/sh\n")
        self.version.write_text("3.11.2")
        self.log.touch()
        self.environment = {"PATH": f"{root}/bin:{os.environ['PATH']}", "WORLD": str(root)}

    def play(self, path: Path, script: str) -> None:
        path.write_text(script)
        path.chmod(0o755)

    def run(self, *arguments: str, engines: str = "process,docker,libvirt", expect: int = 0) -> tuple[list[str], str]:
        """What was done by this call, and what it said."""
        self.log.write_text("")
        done = subprocess.run(
            [self.checkout / "vagrant/venv.sh", *arguments],
            env={**self.environment, "ENGINES": engines},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == expect, done.stderr
        return self.log.read_text().splitlines(), done.stdout + done.stderr


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(tmp_path)


def test_the_environment_is_made_once_and_installs_what_the_engines_need(played: Played) -> None:
    assert played.run()[0] == ["venv made", "-m pip install -q --no-compile -e .[serve,docker,libvirt]"]
    assert played.run()[0] == []
    assert played.run(engines="process,docker")[0] == [], "a smaller set is there already"
    assert played.run("dev")[0] == ["-m pip install -q --no-compile -e .[dev,serve,docker,libvirt]"]
    assert played.run("dev")[0] == []


def test_without_engines_there_is_only_the_page(played: Played) -> None:
    assert played.run(engines="process")[0] == ["venv made", "-m pip install -q --no-compile -e .[serve]"]
    assert played.run(engines="process")[0] == []
    assert played.run(engines="process,docker")[0] == ["-m pip install -q --no-compile -e .[serve,docker]"]


def test_it_installs_again_when_pyproject_changes(played: Played) -> None:
    played.run()
    (played.checkout / "pyproject.toml").write_text("second")
    assert played.run()[0] == ["-m pip install -q --no-compile -e .[serve,docker,libvirt]"]


def test_it_is_made_again_for_another_python_and_in_another_place(played: Played) -> None:
    played.run()
    played.version.write_text("3.12.1")
    # The environment still answers as the Python that made it.
    (played.checkout / ".venv/bin/python").write_text("#!/bin/sh\necho Python 3.11.2\n")
    assert "venv made" in played.run()[0]
    moved = played.checkout.with_name("moved")
    played.checkout.rename(moved)
    played.checkout = moved
    assert "venv made" in played.run()[0]


def test_a_failed_installation_is_tried_again(played: Played) -> None:
    played.run()
    (played.checkout / "pyproject.toml").write_text("second")
    played.play(played.checkout / ".venv/bin/python", "#!/bin/sh\n[ $1 = --version ] && echo Python 3.11.2\n")
    played.run(expect=1)
    played.play(played.checkout / ".venv/bin/python", PYTHON)
    assert played.run()[0] == ["-m pip install -q --no-compile -e .[serve,docker,libvirt]"]


def test_without_libvirts_headers_the_rest_is_installed(played: Played) -> None:
    played.play(played.headers, "#!/bin/sh\nexit 1\n")
    done, said = played.run()
    assert done[-1] == "-m pip install -q --no-compile -e .[serve,docker]"
    assert "without the libvirt targets" in said


def test_an_old_python_is_told_in_one_line(played: Played) -> None:
    played.version.write_text("3.9.2")
    assert "no Python of 3.11" in played.run(expect=1)[1]
