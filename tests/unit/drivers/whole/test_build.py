"""Building guests' images: how this user may, what is said, what is used again, and that its end ends all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.libvirt.whole import building, kept, recipe, stock
from drivers.libvirt.whole.building import inside
from drivers.libvirt.whole.building.archive import Archive
from drivers.libvirt.whole.images import built
from lab.errors import BadInput, DriverError, DriverUnavailable
from lab.store.place import partial_folder

NOBODY = 65534


def say_nothing(_: str) -> None: ...


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Lays programs of the test's own onto the PATH, before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def lay(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return lay


def made(cache: Path, suite: str = "bookworm", *, of_recipe: str = "") -> Path:
    """An image of `suite` in the cache, as if it had been built."""
    folder = kept.place_of(cache, suite)
    folder.mkdir(parents=True)
    for name in (kept.DISK, kept.KERNEL, kept.INITRAMFS):
        (folder / name).write_text(f"the {name}")
    kept.write_manifest(
        folder,
        virtual_bytes=recipe.DISK_BYTES,
        facts={"distribution": "Debian 12.1", "kernel": "6.1.0"},
        suite=suite,
        root=recipe.ROOT,
        recipe=of_recipe or recipe.digest(suite),
        mirror="http://127.0.0.1/debian",
    )
    return folder


def test_what_was_built_is_found_with_all_that_boots_it(tmp_path: Path) -> None:
    folder = made(tmp_path)
    image = built(tmp_path, "bookworm")
    assert (image.disk, image.kernel, image.initramfs) == tuple(
        folder / name for name in (kept.DISK, kept.KERNEL, kept.INITRAMFS)
    )
    assert (image.suite, image.root, image.virtual_bytes) == ("bookworm", "LABEL=lab-root", 4 * 1024**3)
    assert image.sha256 == kept.sha256_of(image.disk) and image.facts["kernel"] == "6.1.0"


def test_what_is_not_there_or_of_another_recipe_or_changed_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no guest image of 'sid'"):
        built(tmp_path, "sid")
    with pytest.raises(DriverUnavailable, match="no guest image of trixie yet") as missing:
        built(tmp_path, "trixie")
    made(tmp_path, "trixie", of_recipe="older")
    with pytest.raises(DriverUnavailable, match="by another version of the lab") as other:
        built(tmp_path, "trixie")
    assert missing.value.resolution == other.value.resolution == "lab guest build --suite trixie"
    (made(tmp_path) / kept.KERNEL).write_text("another")
    with pytest.raises(DriverUnavailable, match="is not what was built") as changed:
        built(tmp_path, "bookworm")
    assert changed.value.resolution == "lab guest build --suite bookworm --again"


@pytest.mark.parametrize("what", ["", "{", "[]", '{"form": 99}'])
def test_a_folder_without_a_manifest_that_is_read_is_no_image(tmp_path: Path, what: str) -> None:
    (made(tmp_path) / kept.MANIFEST).write_text(what)
    assert stock.images(tmp_path) == []
    with pytest.raises(DriverUnavailable, match="yet"):
        built(tmp_path, "bookworm")


def test_the_recipes_name_changes_with_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipe.digest("bookworm")
    assert before == recipe.digest("bookworm") != recipe.digest("trixie")
    monkeypatch.setattr(recipe, "PACKAGES", (*recipe.PACKAGES, "less"))
    packages = recipe.digest("bookworm")
    monkeypatch.setattr(recipe, "FILES", {**recipe.FILES, "etc/motd": "hello\n"})
    assert len({before, packages, recipe.digest("bookworm")}) == 3


def test_nothing_that_no_two_guests_may_share_is_part_of_an_image() -> None:
    assert "etc/ssh/ssh_host_*" in recipe.TAKEN_OUT and "etc/machine-id" in recipe.EMPTIED


def test_those_that_are_kept_are_listed_and_removed_by_the_beginning_of_their_name(tmp_path: Path) -> None:
    made(tmp_path)
    made(tmp_path, "trixie", of_recipe="older")
    assert [(one["name"], one["current"]) for one in stock.images(tmp_path)] == [("bookworm", True), ("trixie", False)]
    assert stock.remove(tmp_path, "book")["what"] == "Debian 12.1"
    with pytest.raises(BadInput, match="there is no guest image that begins with 'book'") as gone:
        stock.remove(tmp_path, "book")
    assert gone.value.resolution == "there are: trixie"
    assert not kept.place_of(tmp_path, "bookworm").exists() and list(partial_folder(tmp_path).iterdir()) == []
    for number in "12":
        made(tmp_path, f"brought-{number * 64}")
    with pytest.raises(BadInput, match="several guest images begin with 'brought'"):
        stock.remove(tmp_path, "brought")


def test_what_is_there_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path)
    monkeypatch.setattr(building, "find_way", lambda: pytest.fail("it builds"))
    assert building.build(tmp_path, "bookworm", say=say_nothing)["suite"] == "bookworm"
    with pytest.raises(BadInput, match="no guest image of 'sid'"):
        building.build(tmp_path, "sid", say=say_nothing)


def test_a_second_build_meanwhile_waits_and_takes_the_firsts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, builds, said = threading.Event(), threading.Event(), list[int](), list[str]()

    def build_slowly(out: Path, *_: Any) -> None:
        builds.append(1)
        begun.set()
        go_on.wait(30)
        for name in (kept.DISK, kept.KERNEL, kept.INITRAMFS):
            (out / name).write_text(name)
        kept.write_manifest(out, virtual_bytes=1, facts={}, suite="bookworm", recipe=recipe.digest("bookworm"))

    monkeypatch.setattr(building, "_build", build_slowly)
    monkeypatch.setattr(building, "_require_programs", lambda: None)
    monkeypatch.setattr(building, "_require_memory", lambda: None)
    monkeypatch.setattr(building, "find_way", lambda: building.Way(prefix=(), word="somehow"))
    monkeypatch.setattr(Archive, "of_host", lambda *_: Archive(mirror="", sources=[], options=[]))
    found: list[object] = []

    def one(again: bool) -> None:
        found.append(building.build(tmp_path, "bookworm", say=said.append, again=again))

    first = threading.Thread(target=one, args=(False,))
    first.start()
    assert begun.wait(30)
    second = threading.Thread(target=one, args=(True,))
    second.start()
    while "waiting for another lab that builds bookworm" not in said:
        pass
    go_on.set()
    first.join()
    second.join()
    assert len(found) == 2 and found[0] == found[1] and len(builds) == 1


@pytest.mark.parametrize(
    ("uid", "unshare", "sudo", "prefix"),
    [
        (0, "exit 0", "exit 1", "unshare"),
        (1000, "exit 0", "exit 1", "unshare --user"),
        (1000, "echo 'unshare: no map' >&2; exit 1", "exit 0", "sudo"),
    ],
)
def test_the_least_privilege_that_works_is_taken(
    programs: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    uid: int,
    unshare: str,
    sudo: str,
    prefix: str,
) -> None:
    programs("unshare", unshare)
    programs("sudo", sudo)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    way = building.find_way()
    assert way.prefix[0] == prefix.split(maxsplit=1)[0] and ("--user" in way.prefix) == ("--user" in prefix)
    assert way.prefix[0] != "sudo" or "unshare: no map" in way.word


def test_where_nothing_gives_the_privilege_one_line_says_what_would(
    programs: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs("unshare", "echo 'unshare: write failed' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(DriverUnavailable, match="unshare: write failed") as refused:
        building.find_way()
    assert "--add-subuids" in refused.value.resolution
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(DriverUnavailable, match="root gets none here"):
        building.find_way()


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DriverUnavailable, match="mmdebstrap, qemu-utils") as refused:
        building._require_programs()
    assert refused.value.resolution.startswith("sudo apt-get install ")


def test_too_little_memory_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_NEEDED_BYTES", 1 << 60)
    with pytest.raises(DriverUnavailable, match="is built in memory"):
        building._require_memory()


def plan(tmp_path: Path, **changes: Any) -> Path:
    """A plan of a build that needs neither namespaces nor an archive."""
    (tmp_path / "memory").mkdir()
    told = {
        "suite": "s",
        "memory": str(tmp_path / "memory"),
        "memory_bytes": 1,
        "out": str(tmp_path),
        "owner": None,
        "files": {"etc/lab": "x"},
        "mmdebstrap": ["mmdebstrap"],
        "sources": [],
        "taken_out": ["etc/ssh/*"],
        "emptied": ["etc/machine-id"],
        "taken_along": {"kernel": "boot/vmlinuz-*"},
        "mke2fs": ["mke2fs"],
        "disk_bytes": 1024,
        "disk": "disk.qcow2",
        **changes,
    }
    (tmp_path / "plan.json").write_text(json.dumps(told))
    return tmp_path / "plan.json"


DEBSTRAP = """echo 'I: running apt-get update...'; echo 'not told'
mkdir -p $2/etc/ssh $2/boot $2/usr/lib; echo key >$2/etc/ssh/key; echo id >$2/etc/machine-id; echo K >$2/boot/vmlinuz-9
echo 'NAME="Some GNU/Linux"' >$2/usr/lib/os-release"""
WRITES_LAST = 'for last; do :; done; echo made >"$last"'
FAKES = {
    "mount": "exit 0",
    "mmdebstrap": DEBSTRAP,
    "dpkg-query": "echo systemd 252",
    "mke2fs": 'cp -R "$2" $(dirname "$3")/seen; echo raw >"$3"',
    "qemu-img": WRITES_LAST,
}


def run_inside(plan_file: Path, *, stdin: int | None = subprocess.PIPE) -> subprocess.Popen[str]:
    argv = [sys.executable, "-I", inside.__file__, str(plan_file)]
    return subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, text=True)


def test_inside_the_steps_are_told_and_what_no_two_may_share_is_taken_out(
    programs: Callable[[str, str], None], tmp_path: Path
) -> None:
    for name, script in FAKES.items():
        programs(name, script)
    with run_inside(plan(tmp_path)) as running:
        assert running.stdout is not None
        lines = running.stdout.read().splitlines()
    assert lines[0] == "step running apt-get update" and not any("not told" in line for line in lines)
    done = json.loads(lines[-1].removeprefix("done "))
    assert done["packages"] == {"systemd": "252"} and done["kernel"] == "vmlinuz-9"
    assert list((tmp_path / "seen/etc/ssh").iterdir()) == []
    assert (tmp_path / "seen/etc/machine-id").read_text() == ""
    assert (tmp_path / "kernel").read_text() == "K\n" and (tmp_path / "disk.qcow2").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "disk.raw").exists()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'I: downloading'; echo 'E: Could not resolve 127.0.0.1'; exit 1", "E: Could not resolve 127.0.0.1"),
        ("echo 'dpkg: error: unable to write: No space left on device'; exit 1", "No space left on device: it needs"),
        ("exit 3", "mmdebstrap ended with 3"),
    ],
)
def test_inside_what_went_wrong_is_told_in_one_line(
    programs: Callable[[str, str], None], tmp_path: Path, script: str, told: str
) -> None:
    for name, usual in FAKES.items():
        programs(name, script if name == "mmdebstrap" else usual)
    argv = [sys.executable, "-I", inside.__file__, str(plan(tmp_path))]
    with pytest.raises(DriverError) as failed:
        building._followed(argv, say_nothing)
    assert failed.value.brief.startswith(f"the guest image could not be built: {told}")


def test_inside_all_ends_when_whoever_started_it_does(programs: Callable[[str, str], None], tmp_path: Path) -> None:
    """The first process of a PID namespace, which this is outside of tests, takes all others with it."""
    for name, script in FAKES.items():
        programs(name, "echo 'I: begun'; exec sleep 5" if name == "mmdebstrap" else script)
    with run_inside(plan(tmp_path)) as running:
        assert running.stdout is not None and running.stdin is not None
        assert running.stdout.readline() == "step begun\n"
        running.stdin.close()
        assert running.wait(20) == 70


def sources(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / "etc/apt" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "main", "security"),
    [
        ({}, "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"),
        (
            {"sources.list": "# deb http://old/debian x main\ndeb [arch=amd64] http://10.0.0.1/debian bookworm main\n"},
            "http://10.0.0.1/debian",
            "http://deb.debian.org/debian-security",
        ),
        (
            {
                "sources.list.d/a.sources": "Types: deb\nURIs: https://m.test/debian/\nSuites: bookworm\n\n"
                "Types: deb\nURIs: https://m.test/debian-security\n",
                "sources.list.d/z.list": "deb https://other.test/apt stable main\n",
            },
            "https://m.test/debian/",
            "https://m.test/debian-security",
        ),
        (
            {"sources.list": "deb http://archive.ubuntu.com/ubuntu noble main\n"},
            "http://deb.debian.org/debian",
            "http://deb.debian.org/debian-security",
        ),
    ],
    ids=["none", "one line", "deb822", "ubuntu"],
)
def test_packages_come_from_where_the_hosts_own_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], main: str, security: str
) -> None:
    monkeypatch.setattr("drivers.libvirt.whole.building.archive._KEYS", tmp_path)
    found = Archive.of_host("trixie", root=sources(tmp_path, files))
    assert found.mirror == main
    assert found.sources == [
        f"deb {main} trixie main",
        f"deb {main} trixie-updates main",
        f"deb {security} trixie-security main",
    ]
    assert Archive.of_host("trixie", "http://127.0.0.1:9/d", root=tmp_path).mirror == "http://127.0.0.1:9/d"
    with pytest.raises(BadInput, match="is no address of an archive"):
        Archive.of_host("trixie", "deb.debian.org; rm", root=tmp_path)


def test_the_hosts_proxy_is_passed_on(
    programs: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.libvirt.whole.building.archive._KEYS", tmp_path)
    lines = ('Acquire "";', 'Acquire::http::Proxy "http://127.0.0.1:3142";', 'APT::Get::Assume-Yes "true";')
    programs("apt-config", "\n".join(f"echo '{line}'" for line in lines))
    told = Archive.of_host("trixie", root=tmp_path).options
    assert """--aptopt=Acquire::http::Proxy "http://127.0.0.1:3142";""" in told
    assert not any("Assume-Yes" in one or "Acquire " in one for one in told)
