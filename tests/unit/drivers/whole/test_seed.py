"""What one launch's guest is given: in the initramfs, by credentials, on cloud-init's disk."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from drivers.libvirt.whole import seed
from drivers.libvirt.whole.keys import Keys, new_keys
from drivers.libvirt.whole.seed import Placed
from lab.errors import BadInput

pytest.importorskip("paramiko")
pycdlib = pytest.importorskip("pycdlib")
SECRET = "k3y of a user's"


@pytest.fixture(scope="module")
def keys() -> Keys:
    return new_keys()


def files_of(packed: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {entry.name: entry for entry in tar}


def test_files_links_and_copies_are_roots_and_as_they_are(tmp_path: Path) -> None:
    app = tmp_path / "app"
    (app / "sub").mkdir(parents=True)
    (app / "sub/run").write_text("x")
    (app / "sub/run").chmod(0o750)
    (app / "out").symlink_to("/etc/shadow")
    os.mkfifo(app / "fifo")
    packed = seed.archive(
        [Placed(path="/etc/stratalab/environment", data=SECRET.encode(), mode=0o600)],
        enabled=["app.service"],
        copies=[(app, "/opt/app")],
    )
    found = files_of(packed)
    assert found["etc/stratalab/environment"].mode == 0o600
    assert found["etc/systemd/system/multi-user.target.wants/app.service"].linkname == "/etc/systemd/system/app.service"
    assert found["opt/app/sub/run"].mode == 0o750
    assert found["opt/app/out"].issym() and found["opt/app/out"].linkname == "/etc/shadow", "not what it leads to"
    assert "opt/app/fifo" not in found
    assert {(entry.uid, entry.gid) for entry in found.values()} == {(0, 0)}


def test_more_than_a_guests_memory_can_pass_on_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as made:
        made.truncate(65 << 20)
    with pytest.raises(BadInput, match="64 MiB"):
        seed.archive([], copies=[(large, "/large")])


def test_the_images_initramfs_stays_as_it_is_and_the_labs_part_comes_after(tmp_path: Path, keys: Keys) -> None:
    image = tmp_path / "initrd"
    image.write_bytes(b"\x1f\x8b images own" + b"x" * 5)
    made = seed.initramfs_with(image, b"packed", keys)
    own = image.read_bytes()
    assert made.startswith(own)
    start = len(own) + -len(own) % 4
    assert made[start : start + 6] == b"070701", "a cpio archive begins at a multiple of four"
    assert b"scripts/init-bottom/ORDER\0" in made and b"lab/seed.tar\0" in made


def test_the_user_is_let_in_by_a_credential_and_no_secret_is_among_them(keys: Keys) -> None:
    (credential,) = seed.login_credentials(keys)
    name, _, value = credential.partition("=")
    assert name == "io.systemd.credential.binary:ssh.authorized_keys.root"
    assert base64.b64decode(value).decode() == f"{keys.user.public}\n"
    assert "PRIVATE" not in base64.b64decode(value).decode()


def test_cloud_init_finds_its_disk_by_label_with_all_that_it_needs(keys: Keys) -> None:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(seed.no_cloud(b"packed", ["app.service"], keys, instance="i-1")))
    assert iso.pvd.volume_identifier.strip() == b"cidata"
    told = {}
    for name in ("user-data", "meta-data", "seed.tar"):
        data = io.BytesIO()
        iso.get_file_from_iso_fp(data, rr_path=f"/{name}")
        told[name] = data.getvalue()
    iso.close()
    assert told["seed.tar"] == b"packed"
    first, _, rest = told["user-data"].partition(b"\n")
    config = json.loads(rest)
    assert first == b"#cloud-config"
    assert config["users"][0]["ssh_authorized_keys"] == [keys.user.public]
    assert config["ssh_keys"]["ed25519_private"] == keys.host.private
    assert ["systemctl", "start", "--no-block", "app.service"] in config["runcmd"]
    assert json.loads(told["meta-data"])["instance-id"] == "i-1"


def test_keys_are_another_pair_each_time_and_tell_no_secret(keys: Keys) -> None:
    other = new_keys()
    assert len({keys.user.public, keys.host.public, other.user.public, other.host.public}) == 4
    assert "PRIVATE" not in repr(keys)
