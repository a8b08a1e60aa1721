"""Images of services from Debian's own packages, without a registry: each package unpacked, with all that it needs."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from lab.image.archive import machine_architecture

_LEFT_OUT = {
    "debconf",
    "debconf-2.0",
    "perl-base",
    "dpkg",
    "tar",
    "init-system-helpers",
    "adduser",
    "passwd",
    "mailcap",
}
"""What packages need to be set up, and no service to run."""
_USERS = "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/sh\n"
_GROUPS = "root:x:0:\nadm:x:4:\nwww-data:x:33:\nnogroup:x:65534:\n"


def debian_image(path: Path, packages: Sequence[str], *, cache: Path, files: dict[str, str], **run: object) -> Path:
    """Write a docker-archive of `packages` and `files` to `path`; `run` is the config's section. Raises OSError,
    CalledProcessError where Debian's archive is not to be had."""
    root = path.with_suffix(".root")
    for archive in _downloaded(packages, cache):
        subprocess.run(["dpkg-deb", "-x", str(archive), str(root)], check=True, timeout=120)
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for name, text in {"etc/passwd": _USERS, "etc/group": _GROUPS, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for folder in ("run", "tmp", "var/lib", "var/log"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as out:
        for child in sorted(root.iterdir()):
            out.add(child, arcname=child.name, filter=_as_roots)
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    config = json.dumps(
        {
            "architecture": machine_architecture(),
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    )
    (path.parent / "config.json").write_text(config)
    manifest = [{"Config": "config.json", "RepoTags": [f"made/{packages[0]}:1"], "Layers": ["layer.tar"]}]
    (path.parent / "manifest.json").write_text(json.dumps(manifest))
    with tarfile.open(path, "w") as out:
        out.add(path.parent / "manifest.json", arcname="manifest.json")
        out.add(path.parent / "config.json", arcname="config.json")
        out.add(layer, arcname="layer.tar")
    layer.unlink()
    shutil.rmtree(root)
    return path


def _downloaded(packages: Sequence[str], cache: Path) -> list[Path]:
    """The archives of `packages` and of all that they depend on, kept in `cache`."""
    told = subprocess.run(
        ["apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks",
         "--no-replaces", "--no-enhances", *packages],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    names = sorted(
        {line.strip() for line in told.splitlines() if re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", line)} - _LEFT_OUT
    )
    cache.mkdir(parents=True, exist_ok=True)
    uris = subprocess.run(
        ["apt-get", "download", "--print-uris", *names], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    wanted = [(match[1], match[2]) for match in re.finditer(r"^'[^']+' (\S+) \d+ (\S*)", uris, re.MULTILINE)]
    missing = [name for name, _ in wanted if not (cache / name).exists()]
    if missing:
        chosen = sorted({name.split("_")[0] for name in missing})
        # As this user: apt's own could not write here.
        options = ["-o", "APT::Sandbox::User=root"]
        subprocess.run(["apt-get", *options, "-qq", "download", *chosen], cwd=cache, check=True, timeout=300)
    return [cache / name for name, _ in wanted]


def _as_roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
