"""In which states a bare runtime's container can sleep on this host, and the reasons for the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.oci.sleep import states
from lab.features import SleepState


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def _criu(folder: Path, script: str) -> None:
    program = folder / "criu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_it_is_saved_where_criu_finds_this_kernel_good(path: Path) -> None:
    _criu(path, "exit 0")
    assert states("runc", own_network=False)[SleepState.SAVED] == ""


def test_it_cannot_be_saved_without_criu(path: Path) -> None:
    assert not list(path.iterdir())
    assert "no 'criu'" in states("runc", own_network=False)[SleepState.SAVED]


def test_what_criu_says_of_this_kernel_is_told_on_one_line(path: Path) -> None:
    _criu(path, "echo 'Error (criu/cr-check.c:1): no' >&2; echo 'kernel for it' >&2; exit 1")
    why = states("runc", own_network=False)[SleepState.SAVED]
    assert "no kernel for it" in why and "\n" not in why


@pytest.mark.parametrize(("runtime", "own_network", "said"), [("crun", False, "crun"), ("runc", True, "relay")])
def test_what_the_lab_does_not_save_is_told_before_criu_is_asked(
    path: Path, runtime: str, own_network: bool, said: str
) -> None:
    _criu(path, "exit 0")
    assert said in states(runtime, own_network=own_network)[SleepState.SAVED]


def test_no_runtime_starts_a_container_twice(path: Path) -> None:
    assert "once" in states("runc", own_network=False)[SleepState.STOPPED] and path.exists()
