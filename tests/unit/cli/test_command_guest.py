"""`lab guest`: what a user sees of the disks that are kept, and in which words building is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from drivers.libvirt import LibvirtDriver
from drivers.libvirt.whole import kept, recipe
from lab.cli.main import main
from lab.store.place import cache_dir

Lab = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `lab guest`, with a cache of the test's own: exit code, output, errors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lab", "guest", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return int(str(ended.value.code)), told.out, told.err

    return run


def keep(name: str, **more: str) -> None:
    folder = kept.place_of(cache_dir(), name)
    folder.mkdir(parents=True)
    (folder / kept.DISK).write_text(name)
    facts = {"distribution": "Debian 12.1", "kernel": "6.1.0-9"} if more else {"image": "mine\x1b[2J.qcow2"}
    kept.write_manifest(folder, virtual_bytes=1, facts=facts, **more)


def test_what_is_kept_is_listed_without_what_would_move_a_terminal(lab: Lab) -> None:
    assert lab("list") == (0, "there is none: lab guest build\n", "")
    keep("bookworm", suite="bookworm", recipe=recipe.digest("bookworm"))
    keep("trixie", suite="trixie", recipe="older")
    keep(f"brought-{'a' * 64}")
    code, told, _ = lab("list")
    lines = told.splitlines()
    assert code == 0 and "Debian 12.1" in lines[1] and "6.1.0-9" in lines[1]
    assert "brought-aaaaaaaa" in told and "mine" in told and "\x1b[2J" not in told
    assert "of another" in told
    code, told, _ = lab("list", "--json")
    assert [one["current"] for one in json.loads(told)] == [True, True, False]


def test_one_is_removed_by_its_name_and_a_wrong_name_says_which_there_are(lab: Lab) -> None:
    keep("trixie", suite="trixie", recipe="older")
    assert lab("remove", "bookworm") == (
        2,
        "",
        "lab: there is no guest image that begins with 'bookworm'\n     there are: trixie\n",
    )
    assert lab("remove", "trixie") == (0, "removed trixie (0 MB)\n", "")
    assert lab("list", "--json")[1] == "[]\n"


def test_building_tells_a_line_a_step_and_then_what_there_is(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(
        _: LibvirtDriver, suite: str, say: Callable[[str], None], *, mirror: str, again: bool
    ) -> Mapping[str, Any]:
        say(f"building {suite} from {mirror}, again: {again} [bold]")
        return {"name": suite, "what": "Debian", "facts": {}, "bytes": 5e6, "made_at": "2026-11-30T", "current": True}

    monkeypatch.setattr(LibvirtDriver, "guest_build", build)
    code, told, steps = lab("build", "--suite", "trixie", "--mirror", "http://127.0.0.1/debian", "--again")
    assert (code, steps) == (0, "building trixie from http://127.0.0.1/debian, again: True [bold]\n")
    assert "trixie" in told and "5 MB" in told
    assert json.loads(lab("build", "--json")[1])["name"] == "bookworm"
    monkeypatch.undo()


def test_a_suite_that_there_is_no_recipe_for_is_bad_input(lab: Lab) -> None:
    code, told, error = lab("build", "--suite", "sid")
    assert (code, told) == (2, "") and error.startswith("lab: there is no guest image of 'sid'\n")
