"""Finding, fetching and unpacking kernels and modules, on files made here; apt is played by functions."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import drivers.libvirt as libvirt_driver
from drivers.libvirt import bzimage, kernel, media, modules
from drivers.libvirt.kernel import Wanted
from drivers.libvirt.kernels import archive, images
from drivers.libvirt.kernels.architecture import AARCH64, RISCV64, X86_64, Architecture
from drivers.libvirt.kernels.archive import Apt as RealApt
from drivers.libvirt.variants import VARIANTS
from lab.driver import Context
from lab.errors import BadInput, DriverUnavailable, Unsupported
from lab.spec import Endpoint, Spec

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
    return kernel.find(Wanted(path=option), root / "cache", boot=root / "boot", root=root)


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
    monkeypatch.setattr(RealApt, "show", lambda _, package: made.show(package))
    monkeypatch.setattr(RealApt, "kernels", lambda _, architecture: archive.packaged(made.archives, architecture))
    monkeypatch.setattr(kernel, "_run", made.run)
    monkeypatch.setattr(kernel.shutil, "which", lambda name: f"/usr/bin/{name}")
    return made


def test_a_kernel_is_fetched_once_with_its_modules_package(apt: Apt, tmp_path: Path) -> None:
    found = kernel._fetch(Wanted(), tmp_path)
    assert apt.downloaded == [f"linux-image-{RELEASE}", f"linux-modules-{RELEASE}"]
    assert found.release == RELEASE and (found.modules / "kernel/virtio_net.ko").exists()
    assert apt.folders == {tmp_path / "partial"}, "where it is found if it is killed"
    again = kernel.find(Wanted(), tmp_path, boot=tmp_path / "none", root=tmp_path / "none")
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
    monkeypatch.setattr(apt, "show", lambda package: stanza(package) and {**stanza(package), "SHA256": "0" * 64})
    with pytest.raises(DriverUnavailable) as raised:
        kernel._fetch(Wanted(), tmp_path)
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
    assert kernel.fetchable(Wanted(), tmp_path) == ""
    with pytest.raises(DriverUnavailable) as raised:
        kernel.obtain(Wanted(), tmp_path) if kernel.find(Wanted(), tmp_path) is None else kernel._fetch(
            Wanted(), tmp_path
        )
    assert "--kernel" in raised.value.resolution


def test_apts_index_is_read_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Package: p\nVersion: 1\nDescription: d\n more: text\nSHA256: ab\n\nPackage: p\nVersion: 0\n"
    done = subprocess.CompletedProcess([], 0, text, "")
    monkeypatch.setattr(archive.subprocess, "run", lambda *_, **__: done)
    found = archive.HOST.show("p")
    assert (found["Version"], found["SHA256"]) == ("1", "ab")


NAMES = (
    "linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-9-amd64", "linux-image-6.1.0-10-amd64",
    "linux-image-6.12-cloud-amd64", "linux-image-6.12.117+deb12-rt-amd64", "linux-image-6.12.117+deb12-cloud-amd64",
    "linux-image-6.12.117+deb12-amd64", "linux-image-6.12.90+deb12.1-cloud-amd64", "linux-image-6.1.0-9-cloud-arm64",
    "linux-image-6.1.0-9-cloud-amd64-dbg", "linux-image-6.1.0-9-cloud-amd64-unsigned", "linux-image-amd64",
    "linux-image-6.8.0-31-generic",
)  # fmt: skip


def test_packages_are_kernels_in_the_order_of_their_versions_the_one_made_for_guests_last() -> None:
    releases = [one.release for one in archive.packaged(NAMES, X86_64)]
    assert releases == [
        "6.1.0-9-amd64",
        "6.1.0-9-cloud-amd64",
        "6.1.0-10-amd64",
        "6.8.0-31-generic",
        "6.12.90+deb12.1-cloud-amd64",
        "6.12.117+deb12-amd64",
        "6.12.117+deb12-cloud-amd64",
    ]
    assert [one.release for one in archive.packaged(NAMES, AARCH64)] == ["6.1.0-9-cloud-arm64"]
    assert archive.told(archive.packaged(NAMES, X86_64)) == "6.1.0-10, 6.8.0-31, 6.12.117+deb12"
    assert archive.told([]) == "none"


@pytest.mark.parametrize(
    ("release", "wanted", "meant"),
    [
        ("6.12.117+deb12-cloud-amd64", "6.12", True),
        ("6.12.117+deb12-cloud-amd64", "6.12.117", True),
        ("6.12.117+deb12-cloud-amd64", "6.12.117+deb12-cloud-amd64", True),
        ("6.12.117+deb12-cloud-amd64", "6.1", False),
        ("6.12.117+deb12-cloud-amd64", "6.12.11", False),
        ("6.1.0-57-cloud-amd64", "6.1", True),
        ("6.1.0-57-cloud-amd64", "6.1.0-5", False),
    ],
)
def test_a_version_means_whole_numbers_of_a_release(release: str, wanted: str, meant: bool) -> None:
    assert archive.meets(release, wanted) is meant


def test_a_kernel_by_version_is_fetched_once_and_nobody_gets_it_who_asks_for_none(apt: Apt, tmp_path: Path) -> None:
    wanted = Wanted(version="6.1")
    found = kernel.obtain(wanted, tmp_path)
    assert found.release == RELEASE and apt.downloaded
    apt.downloaded.clear()
    assert kernel.obtain(wanted, tmp_path) == found and not apt.downloaded
    assert kernel.find(Wanted(), tmp_path, boot=tmp_path / "none", root=tmp_path / "none") is None
    default = kernel._fetch(Wanted(), tmp_path)
    assert default.release == RELEASE and default.image != found.image
    assert kernel.find(Wanted(version="6.2"), tmp_path) is None


def test_a_version_that_there_is_not_is_refused_on_one_line_with_those_that_there_are(
    apt: Apt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = RealApt(("-o", "another"))
    monkeypatch.setattr(archive, "of_debian", lambda *_, **__: others)
    monkeypatch.setattr(
        RealApt, "kernels", lambda apt, _: archive.packaged(NAMES[4:] if apt == others else NAMES[:3], X86_64)
    )
    with pytest.raises(BadInput) as raised:
        kernel.fetchable(Wanted(version="6.13"), tmp_path)
    assert raised.value.brief == "the archive has no kernel 6.13 for amd64: it has 6.8.0-31, 6.12.117+deb12"
    assert kernel.fetchable(Wanted(version="6.12"), tmp_path) == "linux-image-6.12.117+deb12-cloud-amd64"
    assert kernel.fetchable(Wanted(version="6.1"), tmp_path) == "linux-image-6.1.0-10-amd64", "the host's own first"

    def none(*_: object, **__: object) -> None:
        raise DriverUnavailable("no keys", resolution="install them")

    monkeypatch.setattr(archive, "of_debian", none)
    with pytest.raises(BadInput, match=r"has no kernel 6.13: it has 6.1.0-10 "):
        kernel.fetchable(Wanted(version="6.13"), tmp_path)


@pytest.mark.parametrize("version", ["six", "6", "6.1/../..", "6.1 -o APT::x=y", "-6.1", "6.1\n"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(BadInput, match="is no kernel's version"):
        Wanted(version=version)


def test_a_kernel_cannot_be_both_given_and_asked_for() -> None:
    with pytest.raises(BadInput, match="another is asked for"):
        Wanted(version="6.1", path="/boot/vmlinuz")


def test_a_target_names_its_own_kernel_over_the_option_of_all(tmp_path: Path) -> None:
    context = Context(run_dir=tmp_path, cache_dir=tmp_path, options={"guest-kernel": "6.1"})
    made = {name: libvirt_driver.LibvirtDriver(name, context)._wanted.version for name in ("q35", "q35+6.12", "")}
    assert made == {"q35": "6.1", "q35+6.12": "6.12", "": "6.1"}
    for wrong in ("q35+", "q35+x"):
        with pytest.raises(BadInput, match="is no kernel's version"):
            libvirt_driver.LibvirtDriver(wrong, Context(run_dir=tmp_path, cache_dir=tmp_path))
    with pytest.raises(Unsupported, match="no variant 'none'"):
        libvirt_driver.LibvirtDriver("none+6.1", context)


def flat(magic: bytes, release: str = "6.1.0-9-arm64") -> bytes:
    """A plain kernel image with its magic number, and the banner that every kernel holds."""
    return b"MZ".ljust(0x38, b"\0") + magic + b"\0" * 64 + f"Linux version {release} (a@b) #1\0".encode()


@pytest.mark.parametrize(("architecture", "magic"), [(AARCH64, b"ARM\x64"), (RISCV64, b"RSC\x05")])
def test_another_machines_kernel_tells_its_release_and_is_refused_for_a_third(
    architecture: Architecture, magic: bytes, tmp_path: Path
) -> None:
    image = tmp_path / "vmlinuz"
    for content in (flat(magic), gzip.compress(flat(magic)), zboot(flat(magic))):
        image.write_bytes(content)
        assert images.read_release(image, architecture) == "6.1.0-9-arm64"
        assert images.plain_image(content) == flat(magic)
    for wrong in (flat(b"XXXX"), b"", b"MZ", bz_image(), flat(magic)[:0x60]):
        image.write_bytes(wrong)
        with pytest.raises(Unsupported, match="Linux kernel"):
            images.read_release(image, architecture)


def zboot(image: bytes, kind: bytes = b"gzip") -> bytes:
    """A kernel that is a program of EFI and unpacks itself (drivers/firmware/efi/libstub/zboot-header.S)."""
    packed = gzip.compress(image)
    header = struct.pack("<2s2x4sII8x32s", b"MZ", b"zimg", 64, len(packed), kind)
    return header.ljust(64, b"\0") + packed


def test_a_kernel_packed_in_a_way_not_known_here_is_refused() -> None:
    with pytest.raises(Unsupported, match="packed by lzma"):
        images.plain_image(zboot(b"x", b"lzma"))


def test_apt_of_the_labs_own_trusts_debians_keys_alone_and_touches_nothing_of_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = tmp_path / "keys.gpg"
    with pytest.raises(DriverUnavailable) as without:
        archive.of_debian(AARCH64, tmp_path / "cache", keyring=keyring)
    assert "debian-archive-keyring" in without.value.resolution
    keyring.touch()
    ran: list[list[str]] = []
    sources: list[str] = []

    def run(argv: list[str], **_: object) -> SimpleNamespace:
        ran.append(argv)
        settings = dict(word.split("=", 1) for word in argv if "=" in word)
        if "update" in argv:
            sources.extend(Path(settings["Dir::Etc::sourcelist"]).read_text().splitlines())
            assert all(str(tmp_path) in settings[name] for name in ("Dir::State", "Dir::Cache", "Dir::Etc"))
            assert settings["APT::Architecture"] == "arm64"
            (Path(settings["Dir::State"]) / "lists/x_Packages").touch()
        return SimpleNamespace(stdout=b"", said="", code=100)

    monkeypatch.setattr(archive.programs, "run", run)
    monkeypatch.setattr(archive.shutil, "which", lambda name: f"/usr/bin/{name}")
    apt = archive.of_debian(AARCH64, tmp_path / "cache", suites=("trixie",), keyring=keyring)
    assert len(sources) == 3 and all(f"signed-by={keyring}" in line and "arch=arm64" in line for line in sources)
    before = len(ran)
    assert archive.of_debian(AARCH64, tmp_path / "cache", suites=("trixie",), keyring=keyring) == apt
    assert len(ran) == before, "its lists are of today"
    os.utime(tmp_path / "cache/archive/arm64-trixie/fetched", (0, 0))
    archive.of_debian(AARCH64, tmp_path / "cache", suites=("trixie",), keyring=keyring)
    assert len(ran) > before and not list((tmp_path / "cache/partial").iterdir())


def test_without_a_compiler_for_it_another_machine_is_a_row_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = libvirt_driver.LibvirtDriver("arm64", Context(run_dir=tmp_path, cache_dir=tmp_path))
    monkeypatch.setattr(driver, "_connected", lambda: SimpleNamespace(connection=None))
    monkeypatch.setattr(driver, "_asked", lambda: SimpleNamespace(emulator=None))
    monkeypatch.setattr(libvirt_driver, "cross_compiles", lambda: False)
    with pytest.raises(DriverUnavailable, match="cannot be built for arm64") as raised:
        driver.info()
    assert raised.value.resolution == "pip install 'stratalab[zig]'"


def test_images_are_not_run_on_another_machine(tmp_path: Path) -> None:
    found = kernel.GuestKernel(image=tmp_path / "image", modules=tmp_path, release=RELEASE, origin="played")
    found.image.write_bytes(flat(b"ARM\x64"))
    (tmp_path / "modules.builtin").write_text("".join(f"kernel/{name}.ko\n" for name in (*DRIVERS, "virtio_rng")))
    with pytest.raises(Unsupported, match="this guest is arm64"):
        media.prepare_media(
            Spec(image="nginx"), VARIANTS["arm64"], found, Context(run_dir=tmp_path, cache_dir=tmp_path)
        )


def test_what_each_of_several_services_boots_from_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def prepare(spec: Spec, *_: object) -> str:
        made.append(spec.alias)
        return f"of {spec.image}"

    monkeypatch.setattr(libvirt_driver, "prepare_media", prepare)
    monkeypatch.setattr(libvirt_driver.kernel, "find", lambda *_: object())
    driver = libvirt_driver.LibvirtDriver("q35", Context(run_dir=tmp_path, cache_dir=tmp_path))
    specs = [Spec(image=name, peers="app", alias=name) for name in ("web", "store")]
    for spec in specs:
        driver.prepare(spec)
    assert [driver._media(spec.for_launch()) for spec in specs * 2] == ["of web", "of store"] * 2
    assert made == ["web", "store"]
    assert driver.peer_address(specs[0], Endpoint("127.0.0.1", 20_001)) == ("10.0.2.2", 20_001)
