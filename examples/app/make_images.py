#!/usr/bin/env python3
"""Makes the images of this example from Debian's packages, without a registry: each package unpacked, with all that it
needs, as an archive that `docker load` and the lab take.

    python3 make_images.py [--to images] [--cache FOLDER]

It takes what apt of this machine knows (Debian 12 or 13, Ubuntu 24.04), installs nothing, and needs no root. Where the
packages cannot be had, that is told, and the exit code is 2.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
STORES = ("valkey-server", "redis-server")
SETUP_ONLY = re.compile(
    r"adduser|debconf.*|dpkg|init-system-helpers|iproute2|libperl.*|lsb-.*|mailcap|media-types|passwd|perl.*|procps"
    r"|sysvinit-utils|tar"
)
"""What packages need to be set up, and no service to run."""
USERS = "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/sh\n"
GROUPS = "root:x:0:\nadm:x:4:\nwww-data:x:33:\nnogroup:x:65534:\n"
MERGED = ("bin", "sbin", "lib", "lib64")


def images(store: str) -> dict[str, dict[str, Any]]:
    """Each image: its packages, the files beside them, and its configuration."""
    listen = ["--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]  # noqa: S104  its own
    return {
        "web": {
            "packages": ["nginx-light", "busybox-static"],
            "files": {"entry": (HERE / "web.sh").read_text()},
            "run": {"Entrypoint": ["/bin/busybox", "sh", "/entry"], "ExposedPorts": {"8080/tcp": {}}},
        },
        "worker": {
            "packages": ["python3-minimal", "libpython3-stdlib"],
            "files": {"worker.py": (HERE / "worker.py").read_text()},
            "run": {"Entrypoint": ["python3", "/worker.py"], "ExposedPorts": {"8080/tcp": {}}},
        },
        "store": {
            "packages": [store],
            "files": {},
            "run": {"Entrypoint": [store, *listen], "ExposedPorts": {"6379/tcp": {}}},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=HERE / "images", help="where the archives go")
    parser.add_argument("--cache", type=Path, default=None, help="where downloaded packages are kept; nowhere without")
    given = parser.parse_args()
    store = next((name for name in STORES if known(name)), None)
    if store is None:
        give_up("neither valkey-server nor redis-server is known to apt here: sudo apt-get update")
    given.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        cache = given.cache or Path(scratch) / "packages"
        for name, wanted in images(store).items():
            path = given.to / f"{name}.tar"
            make(path, Path(scratch) / name, downloaded(wanted["packages"], cache), wanted["files"], wanted["run"])
            print(path)  # noqa: T201


def give_up(why: str) -> NoReturn:
    print(f"make_images: {why}", file=sys.stderr)  # noqa: T201
    sys.exit(2)


def known(package: str) -> bool:
    if shutil.which("apt-cache") is None:
        give_up("there is no apt here: run it on Debian or Ubuntu")
    told = subprocess.run(["apt-cache", "show", package], capture_output=True, check=False)
    return told.returncode == 0


def downloaded(packages: Sequence[str], cache: Path) -> list[Path]:
    """The archives of `packages` and of all that they depend on."""
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    no = [f"--no-{kind}" for kind in kinds]
    told = output(["apt-cache", "depends", "--recurse", *no, *packages])
    # A line by itself is a package; what it is related to, and what is virtual, is indented or in angles.
    lines = {line for line in told.splitlines() if re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", line)}
    names = {line for line in lines if not SETUP_ONLY.fullmatch(line)}
    cache.mkdir(parents=True, exist_ok=True)
    listed = output(["apt-get", "download", "--print-uris", *sorted(names)])
    wanted = re.findall(r"^'[^']+' (\S+) \d+", listed, re.MULTILINE)
    if missing := sorted({name.split("_")[0] for name in wanted if not (cache / name).exists()}):
        as_oneself = ["-o", f"APT::Sandbox::User={'root' if os.geteuid() == 0 else ''}"]  # apt's own cannot write there
        done = subprocess.run(
            ["apt-get", *as_oneself, "-qq", "download", *missing], cwd=cache, check=False, timeout=600
        )
        if done.returncode:
            give_up("apt cannot download the packages: sudo apt-get update, and see that its archive is reached")
    return [cache / name for name in wanted]


def make(path: Path, root: Path, archives: Sequence[Path], files: Mapping[str, str], run: Mapping[str, Any]) -> None:
    """Write the image: one layer of the unpacked archives and of `files`."""
    root.mkdir()
    for archive in archives:
        subprocess.run(["dpkg-deb", "-x", str(archive), str(root)], check=True, timeout=120)
    for folder in ("doc", "man", "locale", "info", "lintian"):
        shutil.rmtree(root / "usr" / "share" / folder, ignore_errors=True)
    for name in MERGED:  # where the distribution has all of it below /usr, what leads there is of no package's
        if (root / "usr" / name).is_dir() and not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for name, text in {"etc/passwd": USERS, "etc/group": GROUPS, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in ("run", "tmp", "var/lib", "var/log"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    layer = root.with_suffix(".layer")
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as out:
        for child in sorted(root.iterdir()):
            out.add(child, arcname=child.name, filter=as_roots)
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = json.dumps(
        {
            "architecture": machine,
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    tag = f"stratalab-example/{path.stem}:1"
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    part = path.with_suffix(".part")
    with tarfile.open(part, "w") as out:
        for name, content in (("manifest.json", manifest), ("config.json", config)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
        out.add(layer, arcname="layer.tar", filter=as_roots)
    part.replace(path)
    layer.unlink()
    shutil.rmtree(root)


def as_roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Root's, of 1970 and by mode alone: the same packages make the same image."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = stat.S_IMODE(member.mode)
    return member


def output(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        give_up(f"{' '.join(argv[:2])}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
