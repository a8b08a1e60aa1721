"""Where the lab keeps things, and what such a place must allow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.store.place import cache_sizes, require_exec


def test_a_usual_folder_runs_programs(tmp_path: Path) -> None:
    require_exec(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts, in a namespace of its own")
def test_a_folder_mounted_noexec_is_named_with_its_mount_and_what_helps(tmp_path: Path) -> None:
    cache = tmp_path / "no exec" / "stratalab"
    cache.mkdir(parents=True)
    code = (
        "import sys; from pathlib import Path\n"
        "from lab.errors import LabError; from lab.store.place import require_exec\n"
        "try: require_exec(Path(sys.argv[1]))\n"
        "except LabError as error: print(error)"
    )
    script = 'mount -t tmpfs -o noexec none "$1" && mkdir "$1/stratalab" && exec "$2" -c "$3" "$1/stratalab"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(cache.parent), sys.executable, code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"{cache.parent} is mounted noexec" in done.stdout and "XDG_CACHE_HOME" in done.stdout


FULL_DISK = """
import sys
from pathlib import Path
from lab.errors import LabError
place = Path(sys.argv[1])
try:
    {code}
except LabError as error:
    print(type(error).__name__, error)
print(sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()))
"""
WRITES = {
    "the cache": (
        "from lab.store.place import partial\n"
        "    with partial(place, 'x', what='the image web:1', needs_bytes=9_000_000) as made:\n"
        "        made.write_bytes(bytes(9_000_000))",
        "PlaceError {place} cannot be written to: there is no space left (0 MB free), and the image web:1 needs 9.0 MB",
    ),
    "a run's directory": (
        "from lab.store import place as places; places._runs_root = lambda: place\n"
        "    (place / 'filler').write_bytes(bytes(60_000)); places.make_run_dir('r', {'lab.run': 'r' * 9_000})",
        "PlaceError {place} cannot be written to: there is no space left (0 MB free), and a run's directory does not",
    ),
    "a report": (
        "from lab.store.place import write_whole; write_whole(place / 'r.html', 'x' * 9_000_000)",
        "BadInput {place} cannot be written to: there is no space left (0 MB free), and r.html needs 9.0 MB",
    ),
    "the store": (
        "from lab.store.database import Store\n"
        "    from lab.store.record import Run, RunStatus\n"
        "    (place / 'filler').write_bytes(bytes(30_000))\n"
        "    Store.open(str(place / 'lab.db'))",
        "StoreError the store {place}/lab.db ",
    ),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts, in a namespace of its own")
@pytest.mark.parametrize("what", WRITES)
def test_a_full_disk_names_the_place_and_what_it_needs_and_keeps_nothing_half_made(what: str, tmp_path: Path) -> None:
    code, said = WRITES[what]
    done = _on_a_mount(tmp_path, "size=64k", FULL_DISK.format(code=code))
    assert done.stderr == ""
    told, left = done.stdout.splitlines()
    assert told.startswith(said.format(place=tmp_path)) and "Traceback" not in told
    assert left in ("[]", "['filler']") or what == "the store"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts, in a namespace of its own")
@pytest.mark.parametrize("what", ["the cache", "a report"])
def test_a_read_only_disk_is_named(what: str, tmp_path: Path) -> None:
    done = _on_a_mount(tmp_path, "ro", FULL_DISK.format(code=WRITES[what][0]))
    assert f"{tmp_path} cannot be written to: it is mounted read-only" in done.stdout


def _on_a_mount(folder: Path, options: str, code: str) -> subprocess.CompletedProcess[str]:
    script = 'mount -t tmpfs -o "$4" none "$1" && exec "$2" -c "$3" "$1"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(folder), sys.executable, code, options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_what_the_cache_holds_is_counted_the_largest_first(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.tar").write_bytes(os.urandom(200_000))
    (tmp_path / "proof.json").write_bytes(os.urandom(5_000))
    (tmp_path / "link").symlink_to("/")
    found = cache_sizes(tmp_path)
    assert list(found)[:2] == ["images", "proof.json"]
    assert 200_000 <= found["images"] < 300_000 and found["link"] < 10_000
