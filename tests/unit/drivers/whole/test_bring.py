"""Images that the user brings: verified before use, fetched once, gone on from where they broke off."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from drivers.libvirt.whole import bringing, stock
from drivers.libvirt.whole.images import brought, placed
from drivers.libvirt.whole.kept import MANIFEST
from lab.errors import BadInput, DriverError, DriverUnavailable, PlaceError
from lab.store.place import partial_folder
from lab.units import MIB

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
CHUNK = 64 * 1024


@pytest.fixture(scope="module")
def qcow2(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A disk with something on it."""
    folder = tmp_path_factory.mktemp("disk")
    (folder / "raw").write_bytes(RAW)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "disk"], check=True)
    return (folder / "disk").read_bytes()


RAW = b"\0" * 510 + b"\x55\xaa" + bytes(range(1, 256)) * (8 * MIB // 255)
RAW = RAW[: 4 * MIB]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bringing, "_PAUSE_S", 0.0)
    monkeypatch.setattr(bringing, "_CHUNK", CHUNK)


class Site:
    """What a server on 127.0.0.1 has, how it answers, and what it was asked for."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.breaks: list[int] = []  # after so many bytes, for the first requests
        self.ranges = True
        self.status = 200
        self.asked: list[str] = []


@contextlib.contextmanager
def served(site: Site) -> Iterator[str]:
    """The image's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            site.asked.append(wanted)
            begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else 0
            if begin and begin >= len(site.content):
                self.send_error(416)
                return
            if site.status != 200:
                self.send_error(site.status)
                return
            body = site.content[begin:]
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(site.content) - 1}/{len(site.content)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: site.breaks.pop(0)] if site.breaks else body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/pub/disk.qcow2?token=secret"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_file_is_taken_once_by_its_hash_and_told(tmp_path: Path, qcow2: bytes) -> None:
    mine, cache = tmp_path / "mine.qcow2", tmp_path / "cache"
    mine.write_bytes(qcow2)
    image = brought(cache, str(mine), sha256(qcow2).upper())
    assert (image.suite, image.kernel, image.initramfs, image.virtual_bytes) == ("", None, None, 4 * MIB)
    assert image.disk.read_bytes() == qcow2 and image.sha256 == sha256(qcow2)
    mine.unlink()
    assert brought(cache, str(mine), sha256(qcow2)) == image
    assert list(partial_folder(cache).iterdir()) == []
    (kept,) = stock.images(cache)
    assert (kept["name"], kept["what"], kept["current"]) == (f"brought-{sha256(qcow2)}", "mine.qcow2", True)


def test_a_raw_disk_becomes_qcow2_with_the_same_content(tmp_path: Path) -> None:
    mine = tmp_path / "mine.img"
    mine.write_bytes(RAW)
    image = brought(tmp_path / "cache", str(mine), sha256(RAW))
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image.disk, tmp_path / "back"], check=True)
    assert (tmp_path / "back").read_bytes() == RAW and image.virtual_bytes == len(RAW)


@pytest.mark.parametrize("given", ["", "abc", "g" * 64, "0" * 64])
def test_without_its_very_hash_it_is_refused_and_the_found_one_told(tmp_path: Path, qcow2: bytes, given: str) -> None:
    mine, cache = tmp_path / "mine.qcow2", tmp_path / "cache"
    mine.write_bytes(qcow2)
    with pytest.raises(BadInput) as refused:
        brought(cache, str(mine), given)
    told = str(refused.value)
    assert "\n" not in told
    assert sha256(qcow2) in told or "is no SHA-256" in told
    assert not stock.images(cache)
    assert not cache.exists() or list(partial_folder(cache).iterdir()) == []


def test_a_url_without_a_hash_is_not_even_asked(tmp_path: Path, qcow2: bytes) -> None:
    site = Site(qcow2)
    with served(site) as url, pytest.raises(BadInput, match="needs its hash") as refused:
        brought(tmp_path, url, "")
    assert site.asked == [] and "secret" not in str(refused.value)


def test_a_url_is_fetched_once_with_progress(tmp_path: Path, qcow2: bytes) -> None:
    site, said = Site(qcow2), list[str]()
    with served(site) as url:
        image = brought(tmp_path, url, sha256(qcow2), say=said.append)
        assert brought(tmp_path, url, sha256(qcow2)) == image
    assert site.asked == [""] and image.disk.read_bytes() == qcow2
    assert said[-1].endswith(f"disk.qcow2: {len(qcow2) / 1e6:.1f} of {len(qcow2) / 1e6:.1f} MB")
    assert "secret" not in "".join(said) + (image.disk.parent / MANIFEST).read_text()


def test_what_breaks_off_goes_on_where_it_stood(tmp_path: Path, qcow2: bytes) -> None:
    site = Site(qcow2)
    site.breaks = [3 * CHUNK, CHUNK]
    with served(site) as url:
        assert brought(tmp_path, url, sha256(qcow2)).disk.read_bytes() == qcow2
    assert len(site.asked) == 3 and site.asked[0] == ""
    starts = [int(one.removeprefix("bytes=").rstrip("-")) for one in site.asked[1:]]
    assert 0 < starts[0] <= 3 * CHUNK and starts[0] < starts[1] <= 4 * CHUNK


def test_a_server_that_knows_no_ranges_is_asked_for_all(tmp_path: Path, qcow2: bytes) -> None:
    site = Site(qcow2)
    site.breaks, site.ranges = [3 * CHUNK], False
    with served(site) as url:
        assert brought(tmp_path, url, sha256(qcow2)).disk.read_bytes() == qcow2


def test_a_later_process_goes_on_with_what_a_dead_one_left(tmp_path: Path, qcow2: bytes) -> None:
    site = Site(qcow2)
    site.breaks = [3 * CHUNK] + [0] * 10
    with served(site) as url, pytest.raises(DriverUnavailable, match="it goes on where it broke off"):
        brought(tmp_path, url, sha256(qcow2))
    (left,) = partial_folder(tmp_path).iterdir()
    assert 0 < left.stat().st_size <= 3 * CHUNK
    parts = left.name.split("-")
    parts[1] = str(int(parts[1]) - 1)  # of a process with this pid that started earlier, and is gone
    left.rename(left.with_name("-".join(parts)))
    site.breaks.clear()
    with served(site) as url:
        assert brought(tmp_path, url, sha256(qcow2)).disk.read_bytes() == qcow2
    assert site.asked[-1].startswith("bytes=") and list(partial_folder(tmp_path).iterdir()) == []


def test_what_was_left_of_another_content_is_fetched_anew(tmp_path: Path, qcow2: bytes) -> None:
    site = Site(b"x" * len(qcow2))
    site.breaks = [3 * CHUNK] + [0] * 10
    with served(site) as url, pytest.raises(DriverUnavailable):
        brought(tmp_path, url, sha256(qcow2))
    site.breaks, site.content = [], qcow2
    with served(site) as url:
        assert brought(tmp_path, url, sha256(qcow2)).disk.read_bytes() == qcow2


def test_another_content_is_refused_and_not_kept(tmp_path: Path, qcow2: bytes) -> None:
    with served(Site(qcow2[:-1] + b"!")) as url, pytest.raises(BadInput) as refused:
        brought(tmp_path, url, sha256(qcow2))
    assert sha256(qcow2[:-1] + b"!") in refused.value.brief and "secret" not in str(refused.value)
    assert list(partial_folder(tmp_path).iterdir()) == [] and not stock.images(tmp_path)


def test_a_status_is_told(tmp_path: Path, qcow2: bytes) -> None:
    site = Site(qcow2)
    site.status = 404
    with served(site) as url, pytest.raises(DriverUnavailable, match=r"is answered with 404 Not Found$"):
        brought(tmp_path, url, sha256(qcow2))


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("ftp://127.0.0.1/disk", "'ftp' is no way to fetch an image"),
        ("json:{}", "there is no file json:{}"),
        ("nowhere.qcow2", "there is no file nowhere.qcow2"),
        ("/dev/null", "/dev/null is no ordinary file"),
        ("http://me:word@127.0.0.1:1/disk", "names a user"),
    ],
)
def test_what_names_no_image_is_refused(tmp_path: Path, where: str, told: str) -> None:
    with pytest.raises(BadInput) as refused:
        brought(tmp_path, where, "0" * 64)
    assert told in refused.value.brief and "word" not in refused.value.brief


def test_one_that_stands_on_another_file_is_refused_and_not_kept(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(RAW)
    mine = tmp_path / "mine.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", tmp_path / "other", "-F", "raw", mine]
    subprocess.run(argv, check=True)
    cache = tmp_path / "cache"
    with pytest.raises(BadInput, match="stands on another file"):
        brought(cache, str(mine), sha256(mine.read_bytes()))
    assert not stock.images(cache) and list(partial_folder(cache).iterdir()) == []


def test_what_a_full_disk_broke_off_does_not_stay_on_it(
    tmp_path: Path, qcow2: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.qcow2").write_bytes(qcow2)

    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bringing.shutil, "copyfileobj", fill)
    monkeypatch.setattr(bringing, "_store", fill)
    with served(Site(qcow2)) as url:
        for where in (url, str(tmp_path / "mine.qcow2")):
            with pytest.raises(PlaceError, match="a guest's disk image does not fit"):
                brought(tmp_path / "cache", where, sha256(qcow2))
            assert list(partial_folder(tmp_path / "cache").iterdir()) == []


def test_a_runs_copy_is_verified_as_it_is_made(tmp_path: Path, qcow2: bytes) -> None:
    mine = tmp_path / "mine.qcow2"
    mine.write_bytes(qcow2)
    image = brought(tmp_path / "cache", str(mine), sha256(qcow2))
    there = placed(image, tmp_path / "run")
    assert there.disk.read_bytes() == qcow2 and there.disk.stat().st_mode & 0o777 == 0o600
    assert placed(image, tmp_path / "run") == there
    with image.disk.open("r+b") as disk:
        disk.seek(-1, os.SEEK_END)
        disk.write(b"!")
    with pytest.raises(DriverError, match=r"is not what it was") as refused:
        placed(image, tmp_path / "other run")
    assert "lab guest remove brought-" in refused.value.resolution
    assert list((tmp_path / "other run").iterdir()) == []


def test_two_that_bring_the_same_at_once_fetch_it_once(tmp_path: Path, qcow2: bytes) -> None:
    site, found = Site(qcow2), list[bytes]()
    with served(site) as url:

        def one() -> None:
            found.append(brought(tmp_path, url, sha256(qcow2)).disk.read_bytes())

        threads = [threading.Thread(target=one) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [qcow2] * 3 and len(site.asked) == 1
