"""What guests boot from: the initramfs' bytes, the root disk's inodes, and the layer over it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from drivers.libvirt import media, rootfs
from drivers.libvirt.guest import Entry, cpio, directory, file, initramfs
from drivers.libvirt.kernel import GuestKernel
from drivers.libvirt.media import write_overlay
from drivers.libvirt.variants import VARIANTS
from lab.driver import Context
from lab.errors import DriverError, Unsupported
from lab.image import ImageArchive
from lab.image.archive import Contents
from lab.image.layers import Layers
from lab.spec import Spec
from lab.units import MIB

SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def entries(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Name → mode, data, device of a newc archive, read by its definition."""
    found = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701" and at % 4 == 0
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name_end = at + 110 + fields[11]
        name = archive[at + 110 : name_end - 1].decode()
        data_at = (name_end + 3) & ~3
        if name == "TRAILER!!!":
            assert data_at == len(archive)
            return found
        assert fields[2] == fields[3] == 0, "root's"
        found[name] = (fields[1], archive[data_at : data_at + fields[6]], (fields[9], fields[10]))
        at = (data_at + fields[6] + 3) & ~3


def test_an_initramfs_has_init_modules_in_order_and_a_console() -> None:
    packed = initramfs(b"INIT", [("b.ko", b"B" * 5), ("a.ko", b"A")], [file("service", b"S", 0o755)])
    found = entries(packed)
    assert found["init"] == (stat.S_IFREG | 0o755, b"INIT", (0, 0))
    assert found["lab/modules"][1] == b"/lab/b.ko\n/lab/a.ko\n"
    assert found["lab/b.ko"][1] == b"B" * 5
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert found["tmp"][0] == stat.S_IFDIR | 0o1777
    assert packed == initramfs(b"INIT", [("b.ko", b"B" * 5), ("a.ko", b"A")], [file("service", b"S", 0o755)])
    names = list(found)
    assert all(str(Path(name).parent) in (".", *names[: names.index(name)]) for name in names), "directories first"


def test_names_and_data_of_any_length_are_padded() -> None:
    made = [directory("d"), *(Entry(path="d/" + "n" * n, mode=stat.S_IFREG, data=b"x" * n) for n in range(1, 9))]
    assert [len(data) for _, data, _ in entries(cpio(made)).values()] == [0, *range(1, 9)]


def test_an_overlay_is_what_qemu_img_would_make(tmp_path: Path) -> None:
    backing = tmp_path / "root disk.ext4"
    with backing.open("wb") as disk:
        disk.truncate(3 * 1024 * MIB + 4096)
    overlay = write_overlay(backing, tmp_path / "over.qcow2")
    assert stat.S_IMODE(overlay.stat().st_mode) == 0o600
    header = overlay.read_bytes()[:72]
    assert header[:4] == b"QFI\xfb" and struct.unpack(">I", header[4:8]) == (2,)
    assert struct.unpack(">Q", header[24:32]) == (3 * 1024 * MIB + 4096,)
    if shutil.which("qemu-img"):
        done = subprocess.run(["qemu-img", "check", overlay], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        told = subprocess.run(
            ["qemu-img", "info", "-U", overlay], capture_output=True, text=True, timeout=60, check=True
        )
        assert f"backing file: {backing}" in told.stdout


def image_of(tar: bytes) -> ImageArchive:
    layers = Layers()
    layers.add(io.BytesIO(tar))
    contents = Contents(config=b'{"architecture": "amd64"}', layers=[io.BytesIO(tar)], names=[], plain=True)
    return ImageArchive(contents, layers, contextlib.ExitStack())


def layer(*members: tuple[str, bytes, dict[str, object]]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data, fields in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in fields.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


def inode(disk: Path, path: str) -> dict[str, str]:
    said = debugfs(disk, f'stat "{path}"')
    found = {key: match[1] for key in ("Mode", "User", "Group", "Type", "Links") if (match := _field(key, said))}
    if device := re.search(r"Device major/minor number: (\d+):(\d+)", said):
        found["Device"] = f"{int(device[1])}:{int(device[2])}"
    return found


def _field(key: str, text: str) -> re.Match[str] | None:
    return re.search(rf"{key}:\s+(\S+)", text)


def debugfs(disk: Path, request: str) -> str:
    return subprocess.run(
        ["debugfs", "-R", request, str(disk)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": SBIN},
    ).stdout


def test_every_owner_mode_device_and_xattr_of_an_image_is_on_its_disk(tmp_path: Path) -> None:
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    pax = {"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")}
    owned: dict[str, object] = {"mode": 0o4755, "uid": 100_000, "gid": 70_000, "pax_headers": pax}
    tar = layer(
        ("srv", b"", {"type": tarfile.DIRTYPE, "mode": 0o2750, "uid": 1, "gid": 2}),
        ("srv/program", b"P", owned),
        ("srv/hard", b"", {**owned, "type": tarfile.LNKTYPE, "linkname": "srv/program"}),
        ("srv/a name \"with\" 'quotes' $HOME <12> \\", b"q", {"uid": 3}),
        ("srv/null", b"", {"type": tarfile.CHRTYPE, "mode": 0o666, "devmajor": 1, "devminor": 3}),
        ("srv/pipe", b"", {"type": tarfile.FIFOTYPE, "mode": 0o600, "uid": 4}),
        ("srv/link", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/shadow", "uid": 5, "mode": 0o777}),
    )
    disk = tmp_path / "disk"
    rootfs.write_disk(image_of(tar), disk)
    assert stat.S_IMODE(disk.stat().st_mode) == 0o600
    assert inode(disk, "/srv") == {"Mode": "02750", "User": "1", "Group": "2", "Type": "directory", "Links": "2"}
    program = {"Mode": "04755", "User": "100000", "Group": "70000", "Type": "regular", "Links": "2"}
    assert inode(disk, "/srv/program") == program == inode(disk, "/srv/hard")
    assert inode(disk, '/srv/a name ""with"" \'quotes\' $HOME <12> \\')["User"] == "3"
    assert inode(disk, "/srv/null")["Device"] == "1:3" and inode(disk, "/srv/null")["Mode"] == "0666"
    assert inode(disk, "/srv/pipe")["Type"] == "FIFO" and inode(disk, "/srv/pipe")["User"] == "4"
    assert inode(disk, "/srv/link")["User"] == "5"
    assert inode(disk, "/") | {"Links": ""} == {
        "Mode": "0755", "User": "0", "Group": "0", "Type": "directory", "Links": "",
    }  # fmt: skip
    value = tmp_path / "value"
    debugfs(disk, f"ea_get -f {value} /srv/program security.capability")
    assert value.read_bytes() == capability
    checked = subprocess.run(
        ["e2fsck", "-fn", str(disk)], capture_output=True, text=True, timeout=60, check=False, env={"PATH": SBIN}
    )
    assert checked.returncode == 0, checked.stdout
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".root")] == []


def test_a_name_with_a_line_break_is_a_files_and_no_command(tmp_path: Path) -> None:
    rootfs.write_disk(image_of(layer(("a\nsif <2> uid 1", b"", {"uid": 7}))), tmp_path / "disk")
    assert b"a\nsif <2> uid 1" in debugfs(tmp_path / "disk", "ls -p /").encode()
    assert inode(tmp_path / "disk", "/")["User"] == "0"


def test_a_device_that_debugfs_could_not_be_told_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported):
        rootfs.write_disk(
            image_of(layer(("a\nsif <2> uid 1", b"", {"type": tarfile.CHRTYPE, "devminor": 1}))), tmp_path / "disk"
        )
    assert not (tmp_path / "disk").exists()


def test_a_word_of_debugfs_is_a_failure_and_without_it_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DriverError) as raised:
        rootfs._run(["/bin/sh", "-c", "echo File not found >&2"], "owners", quiet=True)
    assert raised.value.details == "File not found"
    rootfs._run(["/bin/sh", "-c", "echo '/bin/sh 1.47.0' >&2"], "owners", quiet=True)
    with pytest.raises(DriverError) as missing:
        rootfs._run(["no-such-mke2fs"], "disk")
    assert "e2fsprogs" in missing.value.resolution


def test_media_are_written_once_and_not_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "bz"
    image.write_bytes(b"\0" * 0x250)
    modules_folder = tmp_path / "6.1"
    (modules_folder / "kernel").mkdir(parents=True)
    names = "".join(f"kernel/{name}.ko\n" for name in ("virtio_pci", "virtio_net", "virtio_mmio"))
    (modules_folder / "modules.builtin").write_text(names)
    program = tmp_path / "program"
    program.write_bytes(b"program")
    monkeypatch.setattr(media, "build_service", lambda _cache, **_: program)
    monkeypatch.setattr(media, "build_guest_init", lambda _cache, **_: program)
    kernel = GuestKernel(image=image, modules=modules_folder, release="6.1", origin="test")
    run, cache = tmp_path / "run", tmp_path / "cache"
    run.mkdir()

    def prepared(spec: Spec) -> media.Media:
        return media.prepare_media(spec, VARIANTS["q35"], kernel, Context(run_dir=run, cache_dir=cache))

    first = prepared(Spec())
    before = {path: path.stat().st_mtime_ns for path in (first.kernel, first.initramfs)}
    assert prepared(Spec(labels={"lab.run": "x"}, nonce="n")) == first
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in before)
    assert list((cache / "partial").iterdir()) == []
    assert stat.S_IMODE((run / "libvirt").stat().st_mode) == 0o711
    other = prepared(Spec(environment={"A": "1"}))
    assert other.initramfs != first.initramfs and other.kernel == first.kernel
    assert b"env\0A=1\0" in entries(other.initramfs.read_bytes())["lab/config"][1]
