"""Which Docker engine gives a run its images, what it is asked, and what is kept; the engine is played."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import resource
import socketserver
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from made_image import Layout, docker_archive, layer, member

from lab.driver import Context
from lab.errors import BadInput, DriverError, DriverUnavailable, LabError, PlaceError, Unsupported
from lab.image import engine as engines
from lab.image import source
from lab.image.credentials import registry_auth
from lab.image.engine import engine_address

IMAGE_ID = "sha256:" + "a" * 64
ELF_ARM64 = b"\x7fELF\x02\x01" + b"\0" * 12 + b"\xb7\0" + b"\0" * 44
ELF_AMD64 = b"\x7fELF\x02\x01" + b"\0" * 12 + b"\x3e\0" + b"\0" * 44


class Engine(http.server.BaseHTTPRequestHandler):
    server: EngineServer
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        server, url = self.server, urlsplit(self.path)
        server.asked.append(self.path)
        if url.path == "/_ping":
            self._answer(200 if server.lives else 500, b"OK")
        elif url.path.endswith("/json"):
            self._answer(*((200, json.dumps(server.told).encode()) if server.has else (404, b'{"message":"no"}')))
        elif url.path.endswith("/get"):
            time.sleep(server.first_byte_s)
            self._answer(200, server.archive, cut=server.cut)
        elif url.path.startswith("/containers/c1/archive"):
            name = parse_qs(url.query)["path"][0]
            known = name in server.files
            self._answer(200 if known else 404, layer(member("x", server.files[name])) if known else b"{}")
        else:
            self._answer(500, b'{"message":"it fails"}')

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.asked.append(self.path)
        self.server.posted.append((dict(self.headers), body))
        if self.path.startswith("/images/create"):
            self.server.has = not self.server.pull_says
            self._answer(200, json.dumps(self.server.pull_says or {"status": "done"}).encode() + b"\n")
        else:
            self._answer(201, b'{"Id":"c1"}')

    def do_DELETE(self) -> None:
        self.server.asked.append(f"DELETE {self.path}")
        self._answer(204, b"")

    def _answer(self, status: int, body: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


class EngineServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, Engine)
        self.asked: list[str] = []
        self.posted: list[tuple[dict[str, str], bytes]] = []
        self.archive = docker_archive([layer(member("f", b"x"))], Cmd=["/f"])
        self.has = self.lives = True
        self.cut = False
        self.first_byte_s = 0.0
        self.pull_says: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.told: dict[str, Any] = {
            "Id": IMAGE_ID, "Os": "linux", "Architecture": "amd64", "Size": 5, "Config": {"Cmd": ["/f"]},
        }  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without Docker's settings, on an amd64 host."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineServer]:
    path = tmp_path / "engine.sock"
    with EngineServer(str(path)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        yield server
        server.shutdown()


def context(tmp_path: Path, said: list[str] | None = None, **options: str) -> Context:
    run_dir = tmp_path / "run"
    run_dir.mkdir(exist_ok=True)
    say = said.append if said is not None else print
    return Context(run_dir=run_dir, cache_dir=tmp_path / "cache", options=options, say=say)


def write_context(home: Path, name: str, host: str) -> None:
    meta = home / ".docker/contexts/meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


def test_the_engine_is_the_one_that_dockers_command_line_would_take(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine_address({}).host == "unix:///var/run/docker.sock"
    write_context(home, "rootless", "unix:///run/user/1000/docker.sock")
    write_context(home, "other", "unix:///other.sock")
    (home / ".docker/config.json").write_text('{"currentContext": "rootless"}')
    found = engine_address({})
    assert (found.host, found.named_by) == ("unix:///run/user/1000/docker.sock", "the context 'rootless'")
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    assert engine_address({}).host == "unix:///other.sock"
    monkeypatch.setenv("DOCKER_HOST", "unix:///by-host.sock")
    assert engine_address({}).named_by == "DOCKER_HOST"
    assert engine_address({"docker-host": "unix:///mine.sock"}).host == "unix:///mine.sock"


def test_a_context_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(BadInput, match="no Docker context 'gone', which DOCKER_CONTEXT names"):
        engine_address({})


def test_all_targets_get_the_same_image_whatever_its_name_comes_to_mean(engine: EngineServer, tmp_path: Path) -> None:
    first = source.find("web:1", context(tmp_path))
    engine.told = {**engine.told, "Id": "sha256:" + "b" * 64}
    assert source.find("web:1", context(tmp_path)) == first
    assert first.digest == first.engine_id == IMAGE_ID
    assert "the Docker engine at unix://" in first.origin and "(DOCKER_HOST)" in first.origin


def test_an_image_is_saved_once_by_its_id_and_is_not_for_all(engine: EngineServer, tmp_path: Path) -> None:
    found = source.find("web:1", context(tmp_path))
    for _ in range(2):
        with source.open_source(found, context(tmp_path)) as image:
            assert [entry.path for entry in image.entries()] == ["f"]
    assert [path for path in engine.asked if path.endswith("/get")] == [f"/images/{IMAGE_ID}/get"]
    (kept,) = (tmp_path / "cache/images").iterdir()
    assert kept.name == "a" * 64 + ".tar" and kept.stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "cache/partial").iterdir()) == []


def test_an_engines_archive_in_another_form_is_kept_plain(engine: EngineServer, tmp_path: Path) -> None:
    layout = Layout()
    engine.archive = layout.tar(layout.image([layer(member("g"))]))
    with source.open_source(source.find("web:1", context(tmp_path)), context(tmp_path)) as image:
        assert [entry.path for entry in image.entries()] == ["g"]
    (kept,) = (tmp_path / "cache/images").iterdir()
    assert kept.read_bytes()[:5] != b"index" and kept.stat().st_mode & 0o777 == 0o600


def test_a_save_cut_short_leaves_nothing(engine: EngineServer, tmp_path: Path) -> None:
    found = source.find("web:1", context(tmp_path))
    engine.cut = True
    with pytest.raises(DriverUnavailable):
        source.open_source(found, context(tmp_path))
    assert not list((tmp_path / "cache/images").iterdir())
    assert not list((tmp_path / "cache/partial").iterdir())


def test_a_slow_engine_is_waited_for_with_a_word_and_a_dead_one_is_not(
    engine: EngineServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_PATIENCE_S", 0.1)
    said: list[str] = []
    found = source.find("web:1", context(tmp_path, said))
    engine.first_byte_s = 1.0
    source.open_source(found, context(tmp_path, said)).close()
    assert len(said) >= 3 and all("waiting for the Docker engine to save the image" in line for line in said)
    (tmp_path / "cache/images" / ("a" * 64 + ".tar")).unlink()
    engine.first_byte_s, engine.lives = 60.0, False
    started = time.monotonic()
    with pytest.raises(DriverUnavailable, match="stopped answering"):
        source.open_source(found, context(tmp_path, said))
    assert time.monotonic() - started < 20


def test_what_the_engine_has_not_is_pulled_once_and_before_anything_is_asked_of_it(
    engine: EngineServer, tmp_path: Path, home: Path
) -> None:
    engine.has = False
    said: list[str] = []
    assert source.look("reg.example/web:1", context(tmp_path, said)) is None
    assert not any("create" in path for path in engine.asked)
    (home / ".docker").mkdir()
    auth = base64.b64encode(b"me:secret").decode()
    (home / ".docker/config.json").write_text(json.dumps({"auths": {"reg.example": {"auth": auth}}}))
    assert source.find("reg.example/web:1", context(tmp_path, said)).engine_id == IMAGE_ID
    assert "pulling it" in said[0]
    pulled = next(path for path in engine.asked if path.startswith("/images/create"))
    assert parse_qs(urlsplit(pulled).query) == {"fromImage": ["reg.example/web"], "tag": ["1"]}
    headers = engine.posted[0][0]
    given = json.loads(base64.urlsafe_b64decode(next(v for k, v in headers.items() if k.lower() == "x-registry-auth")))
    assert given == {"username": "me", "password": "secret", "serveraddress": "reg.example"}


def test_a_pull_that_fails_says_so(engine: EngineServer, tmp_path: Path) -> None:
    engine.has, engine.pull_says = False, {"error": "manifest unknown"}
    with pytest.raises(DriverError, match="the image 'web:9' is not here, and Docker could not pull it: manifest"):
        source.find("web:9", context(tmp_path))


def test_an_image_for_another_machine_is_refused_by_its_config(engine: EngineServer, tmp_path: Path) -> None:
    engine.told = {**engine.told, "Architecture": "s390x"}
    with pytest.raises(BadInput, match="the image web:1 is for s390x, this host is"):
        source.find("web:1", context(tmp_path))


def test_the_programs_header_counts_more_than_the_config(engine: EngineServer, tmp_path: Path) -> None:
    other = "arm64" if source.Platform.of({}).architecture == "amd64" else "amd64"
    engine.files = {"/f": ELF_ARM64 if other == "arm64" else ELF_AMD64}
    with pytest.raises(BadInput, match=f"the image web:1 is for {other}"):
        source.find("web:1", context(tmp_path))
    assert engine.asked[-1].startswith("DELETE /containers/c1"), "the container that was looked into is gone"
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive([layer(member("f", engine.files["/f"]))], Cmd=["/f"]))
    with pytest.raises(BadInput, match=f"image.tar is for {other}"):
        source.find(str(path), context(tmp_path))


@pytest.mark.parametrize(
    ("host", "error"),
    [
        ("ssh://there", Unsupported),
        ("unix:///absent.sock", DriverUnavailable),
        ("tcp://127.0.0.1:1", DriverUnavailable),
    ],
)
def test_no_engine_says_who_named_it_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, error: type[LabError]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(error) as raised:
        source.find("web:1", context(tmp_path))
    assert "DOCKER_HOST" in raised.value.brief and "docker save" in raised.value.resolution


@pytest.mark.parametrize("reference", ["", "-x", "a b", "../../x", "a?b", "x" * 300, "./absent", "/absent"])
def test_what_is_no_reference_is_never_asked_for(engine: EngineServer, tmp_path: Path, reference: str) -> None:
    with pytest.raises(BadInput):
        source.find(reference, context(tmp_path))
    assert engine.asked == []


def test_a_plain_file_is_taken_as_it_is_and_another_is_unpacked_into_the_cache(tmp_path: Path) -> None:
    plain = tmp_path / "plain.tar"
    plain.write_bytes(docker_archive([layer(member("f"))]))
    assert source.find(str(plain), context(tmp_path)).archive == str(plain)
    layout = Layout()
    layout.write(tmp_path / "layout", layout.image([layer(member("g"))]))
    found = source.find(str(tmp_path / "layout"), context(tmp_path))
    assert Path(found.archive).parent == tmp_path / "cache/images" and "the directory" in found.origin
    assert Path(found.archive).stat().st_mode & 0o777 == 0o600


def test_a_file_that_changes_during_the_run_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive([layer(member("f"))]))
    found = source.find(str(path), context(tmp_path))
    path.write_bytes(docker_archive([layer(member("g"))]))
    with pytest.raises(BadInput, match="another image than it was"):
        source.open_source(found, context(tmp_path))


def test_a_helper_that_is_gone_is_named_with_its_file_and_warns_of_nothing(home: Path) -> None:
    folder = home / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text('{"credsStore": "gone"}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DriverError, match=r"config\.json names the credentials helper docker-credential-gone"):
            registry_auth("web:1", folder)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ('echo \'{"Username":"u","Secret":"s"}\'', {"username": "u", "password": "s", "serveraddress": "r.io"}),
        ('echo \'{"Username":"<token>","Secret":"t"}\'', {"identitytoken": "t", "serveraddress": "r.io"}),
        ("echo credentials not found in native keychain; exit 1", {}),
        ("echo locked; exit 1", "failed: locked"),
        ("echo no json", "cannot be used"),
    ],
)
def test_a_helper_is_asked_as_docker_asks_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: dict[str, str] | str
) -> None:
    folder = home / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text('{"credHelpers": {"r.io": "mine"}}')
    program = home / "docker-credential-mine"
    program.write_text(f"#!/bin/sh\nread registry\n[ $registry = r.io ] && {script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")
    if isinstance(found, str):
        with pytest.raises(DriverError, match=found):
            registry_auth("r.io/web:1", folder)
        return
    told = registry_auth("r.io/web:1", folder).get("X-Registry-Auth", "e30=")
    assert json.loads(base64.urlsafe_b64decode(told)) == found


def test_a_limit_on_files_names_the_place_and_leaves_nothing(
    engine: EngineServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.archive = docker_archive([layer(member("f", b"x" * 3_000_000))], Cmd=["/f"])
    engine.told = {**engine.told, "Size": 3_000_000}
    found = source.find("web:1", context(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(PlaceError, match=r"cache cannot be written to: no larger file .* needs 3.0 MB"):
            source.open_source(found, context(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "cache/images").iterdir()) and not list((tmp_path / "cache/partial").iterdir())
