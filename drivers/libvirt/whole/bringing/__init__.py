"""Fetches a disk image that the user brings into the cache, once: a file of theirs, or what is at a URL."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from drivers.libvirt.whole import kept
from drivers.libvirt.whole.bringing.inspected import Looked, look
from drivers.libvirt.whole.locked import locked
from lab.errors import BadInput, DriverError, DriverUnavailable
from lab.host import programs
from lab.store.place import FULL, filling, partial, resumable

if TYPE_CHECKING:
    import httpx

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CHUNK = 1024 * 1024
_MOST_BYTES = 128 * 1024**3
"""Of what is fetched: more is no image, or a server without end."""
_TELL_EVERY_S = 5.0
_ATTEMPTS, _PAUSE_S = 4, 1.0
"""How often a transfer that breaks off is taken up again, where it stood, and after which pause."""
_SILENCE_S = 30.0
_CONVERT_S = 3600
_ASK = "its publisher tells it beside the image; of a file that you trust: sha256sum FILE"


def is_remote(where: str) -> bool:
    """Whether `where` is to be fetched from elsewhere, and not a file of this host's."""
    return _URL.match(where) is not None


def shown(where: str) -> str:
    """`where` without what may be a credential: a URL's user and query."""
    if not is_remote(where):
        return where
    parts = urlsplit(where)
    with contextlib.suppress(ValueError):
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
    return f"{parts.scheme}://…"


def refuse_unhashed(where: str) -> None:
    """Raises BadInput for an image that came without a hash; that of a file is told."""
    if is_remote(where):
        raise BadInput(f"--guest-image {shown(where)} needs its hash", resolution=f"--sha256 …: {_ASK}")
    found = kept.sha256_of(_file(where))
    raise BadInput(f"--guest-image {where} needs its hash", resolution=f"this file's is --sha256 {found}")


def bring(cache_dir: Path, folder: Path, where: str, sha256: str, *, say: Callable[[str], None]) -> None:
    """Have the image at `where`, whose SHA-256 is `sha256`, in `folder` of the cache: fetched, verified, looked at, and
    put there whole. A second call meanwhile waits, and finds it there.

    Raises BadInput, DriverUnavailable, DriverError, PlaceError; what was fetched so far is gone on from next time.
    """
    with locked(folder, on_wait=lambda: say(f"waiting for another lab that fetches {shown(where)}")):
        if kept.manifest(folder) is not None:
            return
        fetched = resumable(cache_dir, f"brought-{sha256}")
        with filling("a guest's disk image", cache_dir):
            _fetch(where, fetched, sha256, say)
            try:
                looked = look(fetched, told=shown(where))
                with partial(cache_dir, "guest", what="a guest's disk image") as made:
                    made.mkdir()
                    _lay_out(fetched, made, looked, where, say)
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    shutil.rmtree(folder, ignore_errors=True)  # of another form, or without a manifest
                    made.replace(folder)
            finally:
                fetched.unlink(missing_ok=True)


def _fetch(where: str, to: Path, sha256: str, say: Callable[[str], None]) -> None:
    """Have `to` hold what is at `where`. Raises BadInput where its hash is another than `sha256`."""
    resumed = to.exists() and to.stat().st_size > 0
    try:
        if is_remote(where):
            _download(where, to, say)
        else:
            _copy(_file(where), to, say)
    except BaseException as error:
        if not is_remote(where) or (isinstance(error, OSError) and error.errno in FULL):
            to.unlink(missing_ok=True)  # it would only be in the way
        raise
    found = kept.sha256_of(to)
    if found != sha256 and resumed:  # what the earlier attempt left may be of another content
        to.unlink()
        _fetch(where, to, sha256, say)
    elif found != sha256:
        to.unlink()
        raise BadInput(
            f"{shown(where)} has the SHA-256 {found}, and not {sha256}",
            resolution="use neither before you know which is right: see its publisher's list of hashes",
        )


def _lay_out(fetched: Path, made: Path, looked: Looked, where: str, say: Callable[[str], None]) -> None:
    """Move what was fetched into the folder `made`, as qcow2, with its manifest."""
    disk = made / kept.DISK
    if looked.kind == "raw":
        say(f"making a qcow2 of {shown(where)}")
        argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(fetched), str(disk)]
        programs.run(argv, doing="make a qcow2 of it", timeout_s=_CONVERT_S)
    else:
        fetched.replace(disk)
    disk.chmod(0o600)
    kept.write_manifest(
        made,
        virtual_bytes=looked.virtual_bytes,
        facts={"image": Path(urlsplit(where).path if is_remote(where) else where).name, "format": looked.kind},
        origin=shown(where),
    )


def _file(where: str) -> Path:
    path = Path(where).expanduser()
    if not path.exists():
        raise BadInput(f"there is no file {where}", resolution="give a disk image's path, or https://…")
    if not path.is_file():
        raise BadInput(f"{where} is no ordinary file", resolution="give a disk image's path, or https://…")
    return path


def _copy(path: Path, to: Path, say: Callable[[str], None]) -> None:
    say(f"taking {path} into the cache ({path.stat().st_size / 1e6:.0f} MB)")
    try:
        with path.open("rb") as source, to.open("wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error


def _download(url: str, to: Path, say: Callable[[str], None]) -> None:
    """Fetch `url`, going on from what `to` holds. Raises BadInput, DriverUnavailable."""
    import httpx

    _refuse_url(url)
    name, broken = shown(url), ""
    # What the environment names as a proxy is used, as by any program.
    with httpx.Client(follow_redirects=True, timeout=httpx.Timeout(_SILENCE_S)) as client:
        for attempt in range(_ATTEMPTS):
            if attempt:
                say(f"{name} broke off ({broken}): going on")
                time.sleep(_PAUSE_S)
            try:
                _transfer(client, url, to, say)
            except httpx.TransportError as error:
                broken = " ".join(str(error).split()) or type(error).__name__
            except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
                raise BadInput(f"{name} cannot be asked: {error}") from error
            else:
                return
    raise DriverUnavailable(
        f"{name} could not be fetched: {broken}", resolution="try again, and it goes on where it broke off"
    )


def _transfer(client: httpx.Client, url: str, to: Path, say: Callable[[str], None]) -> None:
    """One request: all of it, or what `to` still lacks. Raises httpx's errors, DriverUnavailable, BadInput."""
    import httpx

    name = shown(url)
    have = to.stat().st_size if to.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # there is no more: its hash tells
        if answer.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise DriverUnavailable(f"{name} is answered with {answer.status_code} {answer.reason_phrase}".rstrip())
        begins = f"bytes {have}-"
        goes_on = answer.status_code == httpx.codes.PARTIAL_CONTENT and answer.headers.get(
            "content-range", ""
        ).startswith(begins)
        if answer.status_code == httpx.codes.PARTIAL_CONTENT and not goes_on:
            raise DriverError(f"{name} is answered with another part of it than was asked for")
        done = have if goes_on else 0
        length = answer.headers.get("content-length", "")
        total = done + int(length) if length.isdigit() else None
        with to.open("ab" if goes_on else "wb") as file:
            _store(answer.iter_bytes(_CHUNK), file.write, done, _teller(name, total, say))


def _store(chunks: Iterable[bytes], write: Callable[[bytes], object], done: int, tell: Callable[[int], None]) -> None:
    for chunk in chunks:
        done += len(chunk)
        if done > _MOST_BYTES:
            raise BadInput(f"more than {_MOST_BYTES >> 30} GiB came, and no end: no disk image")
        write(chunk)
        tell(done)


def _teller(name: str, total: int | None, say: Callable[[str], None]) -> Callable[[int], None]:
    """Tells how far it is: at once, then every few seconds."""
    last_s = -_TELL_EVERY_S

    def tell(done: int) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s >= _TELL_EVERY_S or done == total:
            last_s = now_s
            of = f" of {total / 1e6:.1f}" if total else ""
            say(f"fetching {name}: {done / 1e6:.1f}{of} MB")

    return tell


def _refuse_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https"):
        raise BadInput(f"'{parts.scheme}' is no way to fetch an image", resolution="http://…, https://…, or a path")
    if parts.username or parts.password:
        raise BadInput(
            f"{shown(url)} names a user, which would be kept with the run", resolution="fetch it, and give the file"
        )
