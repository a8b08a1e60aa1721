"""What one launch's guest is given: files laid over its root file system before its systemd starts, or by cloud-init.

Without cloud-init they come with the initramfs: an archive appended to the image's own (the kernel unpacks both, see
Documentation/driver-api/early-userspace/buffer-format.rst), and a script of initramfs-tools' that unpacks them onto the
root file system, which is the launch's own overlay, just before systemd starts. So the unit is there when systemd reads
its units, as an installed one is, and nothing is reloaded. (systemd takes whole units as credentials from version 257
on, and 252 does not.) With cloud-init they come on a disk of its NoCloud kind, in the formats that it looks for.

Secrets are in files alone, which libvirt gives to QEMU's user: QEMU's arguments, with its SMBIOS strings among them,
are for every user of this host to read.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drivers.libvirt.guest import cpio, directory, file
from drivers.libvirt.whole.keys import Keys
from lab.errors import BadInput, DriverUnavailable

_HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
_ORDER = b"""\
# As the image's own, whose scripts all run; the lab's comes first.
/scripts/init-bottom/lab-seed
for script in /scripts/init-bottom/*; do
    case "${script##*/}" in ORDER | lab-seed) ;; *) "$script" "$@" ;; esac
done
[ -e /conf/param.conf ] && . /conf/param.conf
"""
_SCRIPT = b"""\
#!/bin/sh
# Lays the launch's own files over the root file system. `chroot` and the image's own tar: the initramfs may have none.
[ "$1" = prereqs ] && exit 0
rm -f "${rootmnt}"/etc/ssh/ssh_host_* 2>/dev/null
for archive in /lab/keys.tar /lab/seed.tar; do
    chroot "${rootmnt}" /bin/tar --extract --preserve-permissions --directory=/ --file=- <"$archive" ||
        echo "lab-guest error: the launch's own files could not be laid over the root file system"
done
"""
_LABEL = "cidata"
_MOST_BYTES = 64 << 20
"""Of what is laid over the root file system: it passes through the guest's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A file for the guest's root file system: where, its bytes, its mode. Owned by root; `data` may be a secret."""

    path: str
    data: bytes = field(repr=False)
    mode: int = 0o644


def initramfs_with(image: Path, packed: bytes, keys: Keys) -> bytes:
    """The image's initramfs at `image`, and after it the lab's own part, which lays the archive `packed` over the root
    file system. Raises OSError."""
    own = Placed(path=_HOST_KEY, data=keys.host.private.encode(), mode=0o600)
    public = Placed(path=f"{_HOST_KEY}.pub", data=f"{keys.host.public}\n".encode())
    part = cpio(
        [
            directory("lab"),
            file("lab/seed.tar", packed, 0o600),
            file("lab/keys.tar", archive([own, public]), 0o600),
            directory("scripts"),
            directory("scripts/init-bottom"),
            file("scripts/init-bottom/lab-seed", _SCRIPT, 0o755),
            file("scripts/init-bottom/ORDER", _ORDER),
        ]
    )
    whole = image.read_bytes()
    return whole + b"\0" * (-len(whole) % 4) + part


def archive(placed: Sequence[Placed], *, enabled: Sequence[str] = (), copies: Sequence[tuple[Path, str]] = ()) -> bytes:
    """A tar archive of the files, of the links by which systemd starts the units `enabled`, and of the user's `copies`
    as they are on this host, owned by root. Links within them stay links. Raises OSError, BadInput."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for one in placed:
            entry = tarfile.TarInfo(one.path.lstrip("/"))
            entry.size, entry.mode = len(one.data), one.mode
            tar.addfile(entry, io.BytesIO(one.data))
        for unit in enabled:
            entry = tarfile.TarInfo(f"etc/systemd/system/multi-user.target.wants/{unit}")
            entry.type, entry.linkname = tarfile.SYMTYPE, f"/etc/systemd/system/{unit}"
            tar.addfile(entry)
        for path, to in copies:
            tar.add(path.resolve(), arcname=to.lstrip("/"), filter=_as_roots)
            if packed.tell() > _MOST_BYTES:
                raise BadInput(
                    f"what is to be copied is more than {_MOST_BYTES >> 20} MiB",
                    resolution="bring an image that has it: --guest-image",
                )
    return packed.getvalue()


def _as_roots(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Sockets, FIFOs and devices are left out."""
    if not (entry.isfile() or entry.isdir() or entry.issym() or entry.islnk()):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def login_credentials(keys: Keys) -> list[str]:
    """The SMBIOS strings of type 11 by which systemd lets the lab in (systemd.system-credentials(7)). A public key is
    no secret."""
    key = base64.b64encode(f"{keys.user.public}\n".encode()).decode()
    return [f"io.systemd.credential.binary:ssh.authorized_keys.root={key}"]


def no_cloud(packed: bytes, started: Sequence[str], keys: Keys, *, instance: str) -> bytes:
    """An ISO 9660 disk of cloud-init's data source NoCloud, with the archive `packed` beside the data. Raises
    DriverUnavailable.

    cloud-init lets root in, makes the host key known, and at its end unpacks the files and starts the units."""
    # JSON is YAML.
    user_data = "#cloud-config\n" + json.dumps(
        {
            "locale": "C.UTF-8",  # the one that every image has
            "disable_root": False,
            "users": [{"name": "root", "ssh_authorized_keys": [keys.user.public]}],
            "ssh_deletekeys": True,
            "ssh_keys": {"ed25519_private": keys.host.private, "ed25519_public": keys.host.public},
            "runcmd": [
                ["mkdir", "-p", "/run/stratalab"],
                ["mount", "-o", "ro", f"/dev/disk/by-label/{_LABEL}", "/run/stratalab"],
                ["tar", "--extract", "--preserve-permissions", "--directory=/", "--file=/run/stratalab/seed.tar"],
                ["umount", "/run/stratalab"],
                ["systemctl", "daemon-reload"],
                *(["systemctl", "start", "--no-block", unit] for unit in started),
            ],
        },
        indent=1,
    )
    meta_data = json.dumps({"instance-id": instance, "local-hostname": "lab-guest"})
    files = {"user-data": user_data.encode(), "meta-data": meta_data.encode(), "seed.tar": packed}
    return _iso(files)


def disk_library() -> Any:
    """pycdlib. Raises DriverUnavailable with the remedy."""
    try:
        import pycdlib
    except ImportError as error:
        raise DriverUnavailable(
            "the Python package pycdlib is not installed",
            details=str(error),
            resolution="pip install 'stratalab[libvirt]'",
        ) from error
    return pycdlib


def _iso(files: Mapping[str, bytes]) -> bytes:
    iso = disk_library().PyCdlib()
    iso.new(interchange_level=3, vol_ident=_LABEL, rock_ridge="1.09", joliet=3)
    for number, (name, data) in enumerate(files.items()):
        short = f"/F{number}.;1"
        iso.add_fp(io.BytesIO(data), len(data), short, rr_name=name, joliet_path=f"/{name}")
    packed = io.BytesIO()
    iso.write_fp(packed)
    iso.close()
    return packed.getvalue()
