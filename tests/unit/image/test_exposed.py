"""EXPOSE is read before anything is prepared, from a file or from the engine that has the image."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from lab.image.archive import machine_architecture
from lab.image.exposed import exposed_ports, tcp_ports


@pytest.mark.parametrize(
    "exposed,ports",
    [
        ((), ()),
        (("80/tcp",), (80,)),
        (("80",), (80,)),
        (("443/tcp", "80/tcp", "53/udp"), (80, 443)),
        (("8000-8002/tcp",), (8000, 8001, 8002)),
        (("0/tcp", "70000/tcp", "x/tcp", "", "5/sctp"), ()),
    ],
)
def test_only_tcp_ports_count(exposed: tuple[str, ...], ports: tuple[int, ...]) -> None:
    assert tcp_ports(exposed) == ports


def test_a_files_ports_are_read(tmp_path: Path) -> None:
    assert exposed_ports(str(_archive(tmp_path / "a.tar", {"ExposedPorts": {"80/tcp": {}, "443/tcp": {}}}))) == (
        80,
        443,
    )
    assert exposed_ports(str(_archive(tmp_path / "b.tar", {}))) == ()


def test_what_is_no_image_exposes_nothing_here(tmp_path: Path) -> None:
    """Whoever prepares it says what is wrong with it."""
    (tmp_path / "no.tar").write_bytes(b"no image")
    assert exposed_ports(str(tmp_path / "no.tar")) == ()
    assert exposed_ports("some/image:1", docker_host=f"unix://{tmp_path}/no.sock") == ()


def test_the_engine_of_the_run_is_asked_for_a_name(engine: Path) -> None:
    assert exposed_ports("some/image:1", docker_host=f"unix://{engine}") == (6379,)
    assert exposed_ports("not/there:1", docker_host=f"unix://{engine}") == ()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Path]:
    """The socket of what answers as a Docker engine does that has one image."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/images/some/image:1/json"
            body = json.dumps(
                {"Id": "sha256:1", "Config": {"ExposedPorts": {"6379/tcp": {}}}} if known else {"message": "no"}
            ).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return ""

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingUnixStreamServer(str(tmp_path / "engine.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield tmp_path / "engine.sock"
        server.shutdown()
        thread.join()


def _archive(path: Path, config: object) -> Path:
    layer = io.BytesIO()
    tarfile.open(fileobj=layer, mode="w").close()
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    image = {"architecture": machine_architecture(), "os": "linux", "config": config}
    image["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    files = {
        "c.json": json.dumps(image).encode(),
        "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l.tar"]}]).encode(),
        "l.tar": layer.getvalue(),
    }
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path
