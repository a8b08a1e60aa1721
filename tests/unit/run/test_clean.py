"""Owners, run directories, and who may be swept away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab.driver import Context, Instance
from lab.errors import BadInput, CleanupError, DriverUnavailable, LabError
from lab.host import ownership
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


def test_a_reused_pid_is_dead_and_what_cannot_be_seen_is_not_told_to_be() -> None:
    owner = Owner.current()
    assert replace(owner, start_ticks=owner.start_ticks + 1).alive() is False
    for other in (
        replace(owner, boot="another"),
        replace(owner, machine="another"),
        replace(owner, machine="unknown", boot="another"),
    ):
        assert other.alive() is None and other.unseen()
    assert replace(owner, machine="unknown").alive() is True, "the boot's id is one kernel's alone"
    for text in ("garbage", "", "a:b:0:1", "a:b:c", f"{owner}:more"):
        assert owner_alive({"lab.owner": text}) is None
    with pytest.raises(BadInput):
        Owner.parse("a:b:c")


def test_two_machines_without_an_id_are_not_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in two CI containers of an image without /etc/machine-id, on two hosts."""
    monkeypatch.setattr(ownership, "_machine_id", lambda: "unknown")
    there = Owner.current()
    monkeypatch.setattr(ownership, "_boot_id", lambda: "another")
    assert there.alive() is None
    assert Owner.current().alive() is True and dead().alive() is False


def test_an_older_label_still_reads_and_is_judged_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = replace(Owner.current(), namespace="")
    assert Owner.parse(str(owner)) == owner and str(owner).count(":") == 3
    monkeypatch.setattr(ownership, "_pid_namespace", lambda: "4026532999")
    assert owner.alive() is True
    assert replace(owner, start_ticks=1).alive() is None
    monkeypatch.setattr(ownership, "_pid_namespace", lambda: ownership._INITIAL_NAMESPACE)
    assert owner.alive() is True
    assert replace(owner, start_ticks=1).alive() is False, "from the initial namespace all processes are seen"


def test_a_process_that_proc_hides_is_not_told_to_be_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with hidepid=2, where other users' processes are not in /proc."""
    owner = Owner.current()
    monkeypatch.setattr(ownership, "_PROC", Path("/nonexistent"))
    monkeypatch.setattr(ownership, "_pid_namespace", lambda: owner.namespace)
    assert owner.alive() is None
    assert dead_pid_of(owner).alive() is False


def dead_pid_of(owner: Owner) -> Owner:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return replace(owner, pid=child.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
def test_a_living_owner_in_a_container_is_left_by_the_host_and_the_other_way_round(
    runs_root: Path, driver: FakeDriver
) -> None:
    """The real kernel: an owner in a PID namespace of its own, as a CI container with the engine's socket has it."""
    inside = "from lab.host.ownership import Owner; import sys; print(Owner.current(), flush=True); input()"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", inside]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdin is not None
        there = Owner.parse(child.stdout.readline().strip())
        assert there.pid == 1 and there.namespace != Owner.current().namespace
        image(driver, there, "theirs")
        seen = Owner.current().namespace == ownership._INITIAL_NAMESPACE
        assert there.alive() is (True if seen else None)
        assert not sweep([driver], {}).removed and set(driver.engine.images) == {"theirs"}
        ask = "from lab.host.ownership import Owner; import sys; print(Owner.parse(sys.argv[1]).alive())"
        asked = [sys.executable, "-c", ask, str(Owner.current())]
        told = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", *asked], capture_output=True, check=True)
        assert told.stdout == b"None\n", "a container does not see the host's process"
        child.stdin.close()
    assert there.alive() is (False if seen else None)
    assert [item.id for item in sweep([driver], {}).removed] == (["theirs"] if seen else [])


def test_only_what_a_dead_owner_left_is_removed(runs_root: Path, driver: FakeDriver) -> None:
    image(driver, dead(), "orphan")
    image(driver, Owner.current(), "mine")
    image(driver, replace(Owner.current(), machine="elsewhere"), "theirs")
    swept = sweep([driver], {})
    assert [item.id for item in swept.removed] == ["orphan"] and not swept.problems
    assert set(driver.engine.images) == {"mine", "theirs"}
    assert {item.id: item.fate for item in find([driver], {}).found} == {
        "mine": "live owner",
        "theirs": "owner out of sight",
    }


def out_of_sight(root: Path, *, beaten_s_ago: float, run: str = "r1") -> Owner:
    """An owner of another boot with a run directory here, whose last heartbeat was so long ago."""
    owner = replace(Owner.current(), boot="another")
    path = make_run_dir(run, labels(owner, run))
    then = time.time() - beaten_s_ago
    os.utime(path / "heartbeat", (then, then))
    return owner


def test_a_heartbeat_tells_of_an_owner_that_is_not_seen(
    runs_root: Path, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted_s_ago = time.clock_gettime(time.CLOCK_BOOTTIME)
    living = out_of_sight(runs_root, beaten_s_ago=10, run="living")
    silent = out_of_sight(runs_root, beaten_s_ago=place.STALE_S - 60, run="silent")
    dead_long = out_of_sight(runs_root, beaten_s_ago=place.STALE_S + 60, run="dead")
    monkeypatch.setattr(time, "clock_gettime", lambda _: booted_s_ago + 2 * place.STALE_S)
    for name, owner in (("living", living), ("silent", silent), ("dead", dead_long)):
        image(driver, owner, name, run=name)
    fates = {item.id: item.fate for item in find([driver], {}).found if item.kind == "image"}
    assert fates == {"living": "live owner", "silent": "owner out of sight", "dead": "remove"}
    assert {item.kind for item in sweep([driver], {}).removed} == {"image", "directory"}
    assert set(driver.engine.images) == {"living", "silent"}


def test_what_the_host_had_before_it_booted_goes_soon_after(
    runs_root: Path, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    image(driver, out_of_sight(runs_root, beaten_s_ago=1000), "before")
    monkeypatch.setattr(time, "clock_gettime", lambda _: 100.0)
    assert not sweep([driver], {}).removed, "too soon: one that lives had no time to say so"
    monkeypatch.setattr(time, "clock_gettime", lambda _: 900.0)
    assert {item.kind for item in sweep([driver], {}).removed} == {"image", "directory"}


def test_a_directory_with_anothers_name_tells_nothing(runs_root: Path, driver: FakeDriver) -> None:
    out_of_sight(runs_root, beaten_s_ago=2 * place.STALE_S)
    image(driver, replace(Owner.current(), machine="elsewhere"), "theirs", run="r1")
    image(driver, replace(Owner.current(), boot="another"), "odd", run="../r1")
    fates = {item.id: item.fate for item in find([driver], {}).found if item.kind == "image"}
    assert fates == dict.fromkeys(("theirs", "odd"), "owner out of sight")


def test_an_owner_beats_while_it_lives(runs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "BEAT_S", 0.01)
    path = make_run_dir("r1", labels(Owner.current()))
    os.utime(path / "heartbeat", (1, 1))
    with place.beating(path):
        until = time.monotonic() + 10
        while (path / "heartbeat").stat().st_mtime < 2:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_by_an_explicit_word_what_is_out_of_sight_goes_and_what_lives_stays(
    runs_root: Path, driver: FakeDriver
) -> None:
    elsewhere = replace(Owner.current(), machine="elsewhere")
    image(driver, elsewhere, "theirs", run="r1")
    image(driver, elsewhere, "another", run="r2")
    image(driver, Owner.current(), "mine", run="r1")
    assert [item.id for item in sweep([driver], {}, owner="r1").removed] == ["theirs"]
    assert [item.id for item in sweep([driver], {}, owner=str(elsewhere)).removed] == ["another"]
    assert set(driver.engine.images) == {"mine"}


def test_a_directory_stays_as_long_as_what_it_proves_dead(
    runs_root: Path, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: FakeImage) -> None:
        raise CleanupError("it is busy")

    image(driver, out_of_sight(runs_root, beaten_s_ago=2 * place.STALE_S), "stuck")
    monkeypatch.setattr(FakeImage, "delete", refuse)
    swept = sweep([driver], {})
    assert not swept.removed and (runs_root / "r1").exists()
    assert any("kept while other things of its run are" in problem for problem in swept.problems)


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
    own = Owner.current()
    boot = own.boot.replace("-", "")
    names = {
        "half": f".{owner.pid}-{owner.start_ticks}-{own.namespace}-{boot}-abc",
        "mine": f".{own.pid}-{own.start_ticks}-{own.namespace}-{boot}-abc",
        "theirs": f".{own.pid}-{own.start_ticks}-{own.namespace}-{'0' * 32}-abc",
        "theirs-long-ago": f".{own.pid}-{own.start_ticks}-{own.namespace}-{'1' * 32}-abc",
        "older": f".{owner.pid}-{owner.start_ticks}-abc",
        "older-long-ago": f".{owner.pid}-{owner.start_ticks}-def",
    }
    for name, text in names.items():
        (runs_root / text).mkdir()
        if name.endswith("long-ago"):
            os.utime(runs_root / text, (1, 1))
    removed = {Path(item.id).name for item in sweep([], {}).removed}
    assert removed == {names[name] for name in ("half", "theirs-long-ago", "older-long-ago")}


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


def test_a_directory_of_any_depth_is_removed(runs_root: Path) -> None:
    """A service may lay more of them in one another in its writable layer than a path, or Python's stack, can hold."""
    path = make_run_dir("r1", labels(dead()))
    descriptor = os.open(path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=descriptor)
        below = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    swept = sweep([], {})
    assert not swept.problems and not path.exists()
