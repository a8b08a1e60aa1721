"""Finding, fetching and unpacking kernels and modules, on files made here; apt is played by functions."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import drivers.libvirt as libvirt_driver
from drivers.libvirt import bzimage, kernel, modules
from lab.driver import Context
from lab.errors import BadInput, DriverUnavailable, Unsupported
from lab.spec import Spec

RELEASE = "6.1.0-9-cloud-amd64"
DRIVERS = ("virtio_pci", "virtio_mmio", "virtio_net", "virtio_blk", "ext4")


def bz_image(release: str = RELEASE, payload: bytes = b"") -> bytes:
    """A bzImage's header with one set-up sector after the first, and `payload` at once behind them."""
    image = bytearray(1024)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x100)
    struct.pack_into("<II", image, 0x248, 0, len(payload))
    text = f"{release} (someone) #1 SMP\0".encode()
    image[0x300 : 0x300 + len(text)] = text
    return bytes(image) + payload


def elf(*, pvh: bool) -> bytes:
    """An ELF with one note segment: Xen's PVH entry, or another of Xen's."""
    note = struct.pack("<III", 4, 4, 18 if pvh else 17) + b"Xen\0" + b"\0\0\0\1"
    other = struct.pack("<III", 4, 20, 3) + b"GNU\0" + b"\0" * 20
    header = bytearray(64 + 56)
    header[:4] = b"\x7fELF"
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 1)
    struct.pack_into("<IIQQQQ", header, 64, 4, 0, 120, 0, 0, len(other + note))
    return bytes(header) + other + note


def install(root: Path, release: str, *, drivers: tuple[str, ...] = DRIVERS, readable: bool = True) -> Path:
    """A kernel in /boot and its modules in /lib/modules, below `root`."""
    folder = root / "lib/modules" / release / "kernel"
    folder.mkdir(parents=True)
    (folder.parent / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n" if "ext4" in drivers else "")
    for name in drivers:
        (folder / f"{name}.ko").write_bytes(b"\x7fELF\0depends=\0")
    (root / "boot").mkdir(exist_ok=True)
    image = root / "boot" / f"vmlinuz-{release}"
    image.write_bytes(bz_image(release))
    return image


def find(option: str, root: Path) -> kernel.GuestKernel | None:
    return kernel.find(option, root / "cache", boot=root / "boot", root=root)


def test_the_release_is_read_from_the_header() -> None:
    assert bzimage.read_release(bz_image(), "k") == RELEASE
    for wrong in (b"", b"\x7fELF" + b"\0" * 1000, bz_image()[:0x206]):
        with pytest.raises(Unsupported):
            bzimage.read_release(wrong, "k")


@pytest.mark.parametrize("packed", ["gzip", "xz"])
def test_a_kernel_that_boots_by_pvh_is_unpacked(packed: str, tmp_path: Path) -> None:
    pack = gzip.compress if packed == "gzip" else lzma.compress
    size = b"" if packed == "gzip" else b"\1\0\0\0"
    source = tmp_path / "bz"
    source.write_bytes(bz_image(payload=pack(elf(pvh=True)) + size))
    assert bzimage.write_uncompressed(source, tmp_path / "vmlinux")
    assert (tmp_path / "vmlinux").read_bytes() == elf(pvh=True)


def test_a_kernel_that_does_not_stays_as_it_is(tmp_path: Path) -> None:
    assert bzimage.uncompressed(bz_image(payload=gzip.compress(elf(pvh=False)))) is None
    assert bzimage.uncompressed(bz_image(payload=gzip.compress(b"no ELF"))) is None
    assert bzimage.uncompressed(bz_image(payload=b"BZh9 not known here")) is None


def test_legacy_lz4_literals_long_lengths_and_overlaps() -> None:
    literal = b"\xf0\x01" + b"abcdefghijklmnop"  # 16 literals: 15 in the token, 1 after it
    overlap = b"\x1f" + b"Z" + b"\x01\x00" + b"\x0a"  # 1 literal, then 29 bytes at distance 1
    far = b"\x02" + struct.pack("<H", 46) + b"\x10!"  # 6 bytes at distance 46, then a last literal
    block = literal[:2] + literal[2:] + b"\x08\x00" + overlap + far
    # the first token has a match too: 4 bytes at distance 8
    expected = b"abcdefghijklmnop" + b"ijkl" + b"Z" * 30
    expected += expected[-46 : -46 + 6] + b"!"
    frame = b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block
    assert bzimage.unlz4_legacy(frame) == expected
    assert bzimage.unlz4_legacy(frame + frame[4:]) == expected * 2
    with pytest.raises(ValueError):
        bzimage.unlz4_legacy(frame[:-3])


def test_the_running_kernel_comes_first_then_the_newest_that_suits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "6.1.0-9-amd64")
    install(tmp_path, "6.1.0-10-amd64")
    install(tmp_path, "6.9.0-1-amd64", drivers=("virtio_pci",))
    found = find("", tmp_path)
    assert found is not None and found.release == "6.1.0-10-amd64", "9 is older than 10; 6.9 lacks drivers"
    monkeypatch.setattr(kernel.os, "uname", lambda: type("u", (), {"release": "6.1.0-9-amd64"}))
    found = find("", tmp_path)
    assert found is not None and found.release == "6.1.0-9-amd64"
    monkeypatch.setattr(kernel.os, "access", lambda *_: False)
    assert find("", tmp_path) is None, "what cannot be read is passed over, as Ubuntu's /boot is"


def test_a_given_kernel_is_used_or_refused_in_one_line(tmp_path: Path) -> None:
    image = install(tmp_path, RELEASE)
    found = find(str(image), tmp_path)
    assert found is not None and found.release == RELEASE and str(image) in found.origin
    with pytest.raises(BadInput) as missing:
        find(str(tmp_path / "none"), tmp_path)
    with pytest.raises(BadInput):
        find(str(tmp_path), tmp_path)
    text = tmp_path / "text"
    text.write_text("no kernel")
    with pytest.raises(Unsupported):
        find(str(text), tmp_path)
    other = tmp_path / "other"
    other.write_bytes(bz_image("9.9.9"))
    with pytest.raises(Unsupported) as without:
        find(str(other), tmp_path)
    for error in (missing.value, without.value):
        assert error.resolution and "\n" not in error.brief


def test_modules_come_after_what_they_need_and_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "kernel/drivers"
    folder.mkdir(parents=True)
    (tmp_path / "modules.builtin").write_text("kernel/lib/built-in.ko\n")
    (folder / "virtio-net.ko.xz").write_bytes(lzma.compress(b"net\0depends=virtio,net_failover,built-in\0"))
    (folder / "net_failover.ko.gz").write_bytes(gzip.compress(b"net_failover\0depends=failover\0"))
    (folder / "failover.ko").write_bytes(b"failover\0depends=\0")
    (folder / "virtio.ko").write_bytes(b"virtio\0alias=x\0depends=\0")
    found = modules.resolve(tmp_path, ["virtio_net", "virtio"])
    assert [name for name, _ in found] == ["virtio.ko", "failover.ko", "net_failover.ko", "virtio_net.ko"]
    assert dict(found)["virtio_net.ko"].startswith(b"net\0")
    with pytest.raises(Unsupported, match="nvme"):
        modules.resolve(tmp_path, ["nvme"])


def signed(module: bytes, signature: bytes, *, length: int | None = None) -> bytes:
    """As scripts/sign-file does: id_type PKCS#7, then the signature's length as a big-endian word."""
    about = struct.pack(">BBBBB3xI", 0, 0, 2, 0, 0, len(signature) if length is None else length)
    return module + signature + about + b"~Module signature appended~\n"


def test_a_module_is_as_before_it_was_signed_and_what_is_no_signature_stays() -> None:
    module = b"\x7fELF~Module signature appended~\n and more"
    assert modules.without_signature(signed(module, b"PKCS7" * 100)) == module
    assert modules.without_signature(module) == module
    for odd in (signed(module, b"", length=0), signed(b"", b"x", length=9), signed(module, b"x", length=2**32 - 1)):
        assert modules.without_signature(odd) == odd


def test_a_zstd_module_without_zstd_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/virtio.ko.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    monkeypatch.setattr(bzimage.shutil, "which", lambda _name: None)
    with pytest.raises(Unsupported) as raised:
        modules.resolve(tmp_path, ["virtio"])
    assert "zstd" in raised.value.resolution


class Apt:
    """apt and dpkg as `kernel` calls them: packages by name, and what was downloaded."""

    def __init__(self, archives: dict[str, bytes], depends: dict[str, str]) -> None:
        self.archives, self.depends = archives, depends
        self.downloaded: list[str] = []
        self.folders: set[Path] = set()

    def show(self, package: str) -> dict[str, str]:
        if package not in self.archives:
            return {}
        digest = hashlib.sha256(self.archives[package]).hexdigest()
        return {"Version": "1:6.1-1", "SHA256": digest, "Depends": self.depends.get(package, "")}

    def run(self, argv: list[str], folder: Path, brief: str) -> None:
        self.folders.add(folder.parent)
        if argv[0] == "apt-get":
            name, _, version = argv[2].partition("=")
            assert version == "1:6.1-1", "the version whose hash is known"
            self.downloaded.append(name)
            (folder / f"{name}_1.deb").write_bytes(self.archives[name])
        else:
            root = folder / argv[-1]
            if argv[2].startswith("linux-modules"):
                install(root, RELEASE)
            else:
                (root / "boot").mkdir(parents=True, exist_ok=True)
                (root / "boot" / f"vmlinuz-{RELEASE}").write_bytes(bz_image())


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> Apt:
    names = ("linux-image-virtual", f"linux-image-{RELEASE}", f"linux-modules-{RELEASE}")
    made = Apt(
        {name: name.encode() for name in names},
        {
            "linux-image-virtual": f"linux-image-{RELEASE} (= 6.1), initramfs-tools",
            f"linux-image-{RELEASE}": f"kmod, linux-base (>= 4), linux-modules-{RELEASE}",
        },
    )
    monkeypatch.setattr(kernel, "_show", made.show)
    monkeypatch.setattr(kernel, "_run", made.run)
    monkeypatch.setattr(kernel.shutil, "which", lambda name: f"/usr/bin/{name}")
    return made


def test_a_kernel_is_fetched_once_with_its_modules_package(apt: Apt, tmp_path: Path) -> None:
    found = kernel._fetch(tmp_path)
    assert apt.downloaded == [f"linux-image-{RELEASE}", f"linux-modules-{RELEASE}"]
    assert found.release == RELEASE and (found.modules / "kernel/virtio_net.ko").exists()
    assert apt.folders == {tmp_path / "partial"}, "where it is found if it is killed"
    again = kernel.find("", tmp_path, boot=tmp_path / "none", root=tmp_path / "none")
    assert again == found
    assert [path.name for path in (tmp_path / "kernels").iterdir()] == [f"linux-image-{RELEASE}_1%3a6.1-1"]


def test_a_host_that_was_asked_without_a_kernel_is_asked_again_once_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = kernel.GuestKernel(image=tmp_path, modules=tmp_path, release=RELEASE, origin="played")
    there: list[kernel.GuestKernel] = []
    asked = iter(["without a kernel", "with one"])
    monkeypatch.setattr(kernel, "find", lambda *_: there[0] if there else None)
    monkeypatch.setattr(kernel, "obtain", lambda *_: there.append(got) or got)
    monkeypatch.setattr(libvirt_driver, "prepare_media", lambda *_, **__: None)
    monkeypatch.setattr(libvirt_driver, "ask_host", lambda *_, **__: next(asked))
    driver = libvirt_driver.LibvirtDriver("q35", Context(run_dir=tmp_path, cache_dir=tmp_path))
    monkeypatch.setattr(driver, "_connected", lambda: SimpleNamespace(connection=None))
    assert driver._asked() == "without a kernel"
    driver.prepare(Spec())
    assert driver._asked() == "with one"
    driver.prepare(Spec(port=81))
    assert driver._asked() == "with one", "a kernel that was there changes nothing"


def test_a_package_of_another_hash_is_refused_and_leaves_nothing(
    apt: Apt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stanza = apt.show
    monkeypatch.setattr(kernel, "_show", lambda package: stanza(package) and {**stanza(package), "SHA256": "0" * 64})
    with pytest.raises(DriverUnavailable) as raised:
        kernel._fetch(tmp_path)
    assert "0" * 64 in raised.value.details
    assert list((tmp_path / "kernels").iterdir()) == []


def test_a_download_that_fails_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DriverUnavailable) as raised:
        kernel._run(["/bin/sh", "-c", "echo no network >&2; exit 100"], tmp_path, "apt could not download it")
    assert raised.value.brief == "apt could not download it" and raised.value.details == "no network"
    assert raised.value.resolution == "sudo apt-get update"
    with pytest.raises(DriverUnavailable):
        kernel._run(["/nonexistent/apt-get"], tmp_path, "apt could not download it")


def test_without_apt_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel.shutil, "which", lambda _name: None)
    assert kernel.fetchable() == ""
    with pytest.raises(DriverUnavailable) as raised:
        kernel.obtain("", tmp_path) if kernel.find("", tmp_path) is None else kernel._fetch(tmp_path)
    assert "--kernel" in raised.value.resolution


def test_apts_index_is_read_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Package: p\nVersion: 1\nDescription: d\n more: text\nSHA256: ab\n\nPackage: p\nVersion: 0\n"
    done = subprocess.CompletedProcess([], 0, text, "")
    monkeypatch.setattr(kernel.subprocess, "run", lambda *_, **__: done)
    found = kernel._show("p")
    assert (found["Version"], found["SHA256"]) == ("1", "ab")
