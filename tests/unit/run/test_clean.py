"""Owners, run directories, and who may be swept away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab.driver import Context, Instance
from lab.errors import BadInput, CleanupError, DriverUnavailable, LabError
from lab.host.ownership import Owner, owner_alive, start_ticks
from lab.run.clean import find, sweep
from lab.store import place
from lab.store.place import make_run_dir, run_dirs
from lab.testing import FakeDriver, FakeImage


@pytest.fixture
def runs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "runs"
    root.mkdir(mode=0o711)
    monkeypatch.setattr(place, "_runs_root", lambda: root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return root


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    return FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path))


def labels(owner: Owner | str, run: str = "r1") -> dict[str, str]:
    return {"lab.run": run, "lab.scenario": "boot", "lab.owner": str(owner)}


def dead() -> Owner:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = start_ticks(child.pid)
    assert start is not None and child.stdin is not None
    alive = replace(Owner.current(), pid=child.pid, start_ticks=start)
    assert alive.alive() is True
    child.stdin.close()
    child.wait()
    return alive


def image(driver: FakeDriver, owner: Owner | str, name: str, run: str = "r1") -> None:
    driver.engine.images[name] = FakeImage(name, labels(owner, run), driver.engine)


def test_an_owner_reads_back_and_lives() -> None:
    owner = Owner.current()
    assert Owner.parse(str(owner)) == owner and owner.alive() is True
    assert owner.pid == os.getpid()


def test_a_reused_pid_another_boot_and_another_machine_are_told_apart() -> None:
    owner = Owner.current()
    assert replace(owner, start_ticks=owner.start_ticks + 1).alive() is False
    assert replace(owner, boot="another").alive() is False
    assert replace(owner, machine="another").alive() is None
    assert owner_alive({"lab.owner": "garbage"}) is False
    with pytest.raises(BadInput):
        Owner.parse("a:b:c")


def test_only_what_a_dead_owner_left_is_removed(runs_root: Path, driver: FakeDriver) -> None:
    image(driver, dead(), "orphan")
    image(driver, Owner.current(), "mine")
    image(driver, replace(Owner.current(), machine="elsewhere"), "theirs")
    swept = sweep([driver], {})
    assert [item.id for item in swept.removed] == ["orphan"] and not swept.problems
    assert set(driver.engine.images) == {"mine", "theirs"}
    assert {item.id: item.fate for item in find([driver], {}).found} == {
        "mine": "live owner",
        "theirs": "another machine's",
    }


def test_a_run_removes_its_own_and_no_other(runs_root: Path, driver: FakeDriver) -> None:
    image(driver, Owner.current(), "mine", run="r1")
    image(driver, Owner.current(), "other", run="r2")
    assert [item.id for item in sweep([driver], {"lab.run": "r1"}, owned=True).removed] == ["mine"]


def test_what_appears_while_sweeping_is_removed_too(
    runs_root: Path, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon may still finish what a dead run had asked for."""
    owner = dead()
    image(driver, owner, "first")
    late = iter(["late"])
    listed = driver.list_instances

    def listing(wanted: Mapping[str, str]) -> Sequence[Instance]:
        if not driver.engine.images:
            for name in late:
                image(driver, owner, name)
        return listed(wanted)

    monkeypatch.setattr(driver, "list_instances", listing)
    assert [item.id for item in sweep([driver], {}).removed] == ["first", "late"]


def test_what_cannot_be_removed_is_told_and_does_not_hold_up_the_rest(
    runs_root: Path, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = dead()
    image(driver, owner, "stuck")
    image(driver, owner, "loose")
    delete = FakeImage.delete

    def refuse(self: FakeImage) -> None:
        if self.id == "stuck":
            raise CleanupError("it is busy")
        delete(self)

    monkeypatch.setattr(FakeImage, "delete", refuse)
    swept = sweep([driver], {})
    assert [item.id for item in swept.removed] == ["loose"]
    assert any("stuck" in problem and "busy" in problem for problem in swept.problems)


def test_an_engine_that_is_down_is_named_and_what_it_left_on_the_host_is_removed(
    runs_root: Path, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(_: object) -> Sequence[Instance]:
        raise DriverUnavailable("it does not answer", resolution="start it")

    image(driver, dead(), "orphan")
    monkeypatch.setattr(driver, "list_instances", down)
    swept = sweep([driver], {})
    assert [item.id for item in swept.removed] == ["orphan"]
    assert swept.absent == {"fake": "it does not answer"} and not swept.problems


def test_a_run_directory_bears_its_labels_and_is_swept_with_its_run(runs_root: Path) -> None:
    owner = dead()
    path = make_run_dir("r9", labels(owner, "r9"))
    assert path.stat().st_mode & 0o777 == 0o711
    assert json.loads((path / "labels.json").read_text())["lab.owner"] == str(owner)
    (path / "console.sock").touch()
    assert [item.labels["lab.run"] for item in run_dirs({"lab.run": "r9"})] == ["r9"]
    assert [Path(item.id).name for item in sweep([], {}).removed] == ["r9"]
    assert not path.exists()


def test_a_run_directory_that_was_killed_half_made_is_found(runs_root: Path) -> None:
    owner = dead()
    half = runs_root / f".{owner.pid}-{owner.start_ticks}-abc"
    half.mkdir()
    mine = runs_root / f".{os.getpid()}-{start_ticks(os.getpid())}-abc"
    mine.mkdir()
    assert [item.id for item in sweep([], {}).removed] == [str(half)]
    assert mine.exists()


def test_what_a_killed_process_was_making_in_the_cache_is_found(runs_root: Path) -> None:
    script = """
import os, signal
from lab.store.place import cache_dir, partial
with partial(cache_dir(), "file") as file, partial(cache_dir(), "folder") as folder:
    file.write_text("half")
    (folder / "below").mkdir(parents=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    partials = place.cache_dir() / "partial"
    assert len(list(partials.iterdir())) == 2
    with place.partial(place.cache_dir(), "mine") as mine:
        mine.touch()
        assert run_dirs({"lab.run": "r1"}) == []
        swept = sweep([], {})
        assert sorted(item.id.rpartition("-")[2] for item in swept.removed) == ["file", "folder"]
        assert {item.kind for item in swept.removed} == {"partial file"} and not swept.problems
        assert list(partials.iterdir()) == [mine]


def test_a_partial_file_is_gone_unless_it_was_put_in_place(tmp_path: Path) -> None:
    with place.partial(tmp_path, "kept") as path:
        path.write_text("whole")
        path.replace(tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt), place.partial(tmp_path, "lost") as path:
        (path / "below").mkdir(parents=True)
        raise KeyboardInterrupt
    assert (tmp_path / "kept").read_text() == "whole"
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_runs_root_that_others_can_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path("/var/tmp") / f"stratalab-{os.getuid()}"
    victim = tmp_path / "elsewhere"
    victim.mkdir()
    victim.chmod(0o777)
    monkeypatch.setattr(place, "Path", lambda text: tmp_path if text == "/var/tmp" else Path(text))
    (tmp_path / real.name).symlink_to(victim)
    with pytest.raises(LabError, match="yours alone"):
        make_run_dir("r1", labels(Owner.current()))
