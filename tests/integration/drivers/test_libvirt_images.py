"""Another maker's image in a guest: it runs as whom, where and with what it was meant to."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drivers.libvirt import LibvirtDriver
from drivers.libvirt.media import disk_path
from drivers.libvirt.rootfs import write_disk
from lab.driver import Context
from lab.image import open_image
from lab.launch.session import Session
from lab.service.build import available_compilers
from lab.spec import Spec
from lab.timeline import Phase, SystemClock

pytestmark = [pytest.mark.engine("libvirt"), pytest.mark.timeout(300)]
READY_S = 120

MakeContext = Callable[..., Context]


@pytest.fixture
def make_driver(make_context: MakeContext) -> Iterator[Callable[..., LibvirtDriver]]:
    with contextlib.ExitStack() as closing:

        def make(variant: str = "", **options: str) -> LibvirtDriver:
            driver = LibvirtDriver(variant, make_context(**options))
            closing.callback(driver.close)
            return driver

        yield make


@contextlib.contextmanager
def launched(driver: LibvirtDriver, spec: Spec) -> Iterator[Session]:
    driver.prepare(spec)
    with Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=READY_S) as session:
        session.launch()
        yield session


def get(session: Session, path: str) -> dict[str, object]:
    endpoint = session.instance.endpoint
    with socket.create_connection((endpoint.host, endpoint.port), 20) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Lab-Nonce: {session.spec.nonce}\r\n\r\n"
        connection.sendall(head.encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return json.loads(answer.partition(b"\r\n\r\n")[2])


NET_BIND_SERVICE = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""security.capability of revision 2: permitted and effective, for one capability (linux/capability.h)."""


def witness_image(tmp_path: Path) -> Path:
    """An image of another maker: a non-root user by name, groups, and files of every kind."""
    program = _compile(Path(__file__).parent / "witness.c", tmp_path / "witness")
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mtime = kind, len(data), 1_000_000_000
            for key, value in fields.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(data))

        def xattr(name: str, value: bytes) -> dict[str, str]:
            return {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")}

        add("etc", tarfile.DIRTYPE, mode=0o755)
        add("etc/passwd", data=b"root:x:0:0::/root:/bin/sh\nwit:x:1234:2345::/home/wit:/bin/sh\n", mode=0o644)
        add("etc/group", data=b"wit:x:2345:\nextra:x:3456:wit\n", mode=0o644)
        add(
            "witness", data=program.read_bytes(), mode=0o755, pax_headers=xattr("security.capability", NET_BIND_SERVICE)
        )
        add("data", tarfile.DIRTYPE, mode=0o3775, uid=1234, gid=70000)
        add("data/owned", data=b"owned", mode=0o4755, uid=100_001, gid=7, pax_headers=xattr("user.note", b"kept"))
        # As builders write it: a hard link's header has what the file has, and engines apply it to the file.
        add("data/linked", tarfile.LNKTYPE, linkname="data/owned", mode=0o4755, uid=100_001, gid=7)
        add("data/secret", data=b"secret", mode=0o600)
        add("data/null", tarfile.CHRTYPE, mode=0o622, devmajor=1, devminor=3)
        add("data/pipe", tarfile.FIFOTYPE, mode=0o640, uid=5)
        add("data/symbolic", tarfile.SYMTYPE, linkname="/data/owned", mode=0o777, uid=9)
        add('data/with "quotes" and spaces', data=b"q", mode=0o644, uid=77)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": "wit",
            "Entrypoint": ["/witness"],
            "Cmd": ["by", "default"],
            "Env": ["WITNESS=a value with spaces"],
            "WorkingDir": "/srv/made by the engine",
        },
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    return _archive(tmp_path / "witness.tar", config, layer.getvalue())


def _archive(path: Path, config: dict[str, object], layer: bytes) -> Path:
    config["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    encoded = json.dumps(config).encode()
    name = f"{hashlib.sha256(encoded).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": ["witness:1"], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as tar:
        for file, data in ((name, encoded), ("layer.tar", layer), ("manifest.json", manifest)):
            member = tarfile.TarInfo(file)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def _compile(source: Path, program: Path) -> Path:
    for compiler in available_compilers():
        argv = [*compiler.command, "-D_GNU_SOURCE", "-O1", "-static", "-s", "-o", str(program), str(source)]
        if subprocess.run(argv, capture_output=True, timeout=300, check=False).returncode == 0:
            return program
    pytest.fail("no compiler builds a static program here")


@pytest.mark.parametrize("variant", ("microvm", "q35", "pc"))
def test_a_foreign_image_runs_as_its_maker_meant(
    variant: str, make_driver: Callable[..., LibvirtDriver], labels: dict[str, str], tmp_path: Path
) -> None:
    driver = make_driver(variant)
    image = witness_image(tmp_path)
    spec = Spec(image=str(image), port=80, ready_path="/", labels=labels, environment={"PATH": "/usr/bin"})
    if variant == "q35" and os.geteuid() == 0:
        _prepare_unprivileged(driver, spec, image)
    with launched(driver, spec) as session:
        _check_witness(get(session, "/"))
        assert {Phase.INIT, Phase.READY} <= {mark.phase for mark in session.timeline}
        assert Phase.LISTENING not in session.timeline
        session.stop(timeout_s=30)
    if variant == "microvm":
        with launched(driver, spec) as session:  # what the first one wrote is gone: it wrote the same name anew
            _check_witness(get(session, "/"))


def _check_witness(told: dict[str, object]) -> None:
    assert (told["uid"], told["gid"], told["groups"]) == (1234, 2345, [2345, 3456])
    assert told["cwd"] == "/srv/made by the engine"
    assert (told["argc"], told["last"]) == (3, "default")
    assert (told["env"], told["path"], told["home"]) == ("a value with spaces", "/usr/bin", "/home/wit")
    assert told["written"] == 1, "the root is writable, by its directory's owner"
    assert told["readable"] == 0, "another's secret is not"
    files = told["files"]
    assert isinstance(files, dict)
    when = 1_000_000_000
    assert files["/data/owned"] == [100_001, 7, "104755", 2, 0, 0, "kept", when]
    assert files["/data/linked"] == files["/data/owned"]
    assert files["/data/secret"] == [0, 0, "100600", 1, 0, 0, "", when]
    assert files["/data/null"] == [0, 0, "20622", 1, 1, 3, "", when]
    assert files["/data/pipe"] == [5, 0, "10640", 1, 0, 0, "", when]
    assert files["/data/symbolic"][:3] == [9, 0, "120777"]
    assert files["/data"][:3] == [1234, 70000, "43775"]
    assert files["quoted"] == [0, 77]


def _prepare_unprivileged(driver: LibvirtDriver, spec: Spec, image: Path) -> None:
    """Have `nobody` write the root disk, and put it where the driver expects its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as text:
        folder = Path(text)
        folder.chmod(0o777)
        # Once as root, so that all modules are imported: nobody may be unable to read this Python's.
        shutil.copy(image, folder / "image.tar")
        (folder / "image.tar").chmod(0o644)
        write_disk(open_image(folder / "image.tar"), folder / "by-root")
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                write_disk(open_image(folder / "image.tar"), folder / "by-nobody")
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (folder / "by-nobody").stat().st_uid == 65534
        target = disk_path(spec, driver._context.run_dir)
        target.parent.mkdir()
        (folder / "by-nobody").rename(target)
