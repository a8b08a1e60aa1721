"""An image of another maker, whose service tells what it found around it (`witness.c`)."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.image.archive import machine_architecture
from lab.service.build import available_compilers

File = tuple[str, bytes | str | None, int]
"""A path, and a file's content, a link's target or for a directory None, and the mode."""

PASSWD = (
    b"root:x:0:0::/root:/bin/sh\napp:x:1000:50::/home/app:/bin/sh\nalias:x:1000:60::/home/alias:/bin/sh\n"
    b"homeless:x:1001:50:::\n"
)
GROUP = b"root:x:0:\napp:x:50:\nlogs:x:200:app,root\nmore:x:300:other,app,alias\n"


def build_witness(folder: Path) -> bytes:
    """The witness, linked statically. Raises AssertionError with what the compilers said."""
    program, said = folder / "witness", []
    for compiler in available_compilers():
        flags = ["-D_GNU_SOURCE", "-O1", "-static", "-s"]
        argv = [*compiler.command, *flags, "-o", str(program), str(Path(__file__).with_name("witness.c")), "-lresolv"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode == 0:
            return program.read_bytes()
        said.append(done.stderr)
    raise AssertionError(f"no compiler builds the witness here: {said}")


def write_image(path: Path, witness: bytes, run: Mapping[str, Any], files: Sequence[File] = ()) -> Path:
    """A docker-archive with the witness as /opt/bin/witness and /bin/sh, users, `files`, and the config `run`."""
    common: list[File] = [
        ("bin", None, 0o755),
        ("bin/sh", witness, 0o755),
        ("etc", None, 0o755),
        ("etc/passwd", PASSWD, 0o644),
        ("etc/group", GROUP, 0o644),
        ("opt", None, 0o755),
        ("opt/bin", None, 0o755),
        ("opt/bin/witness", witness, 0o755),
        ("tmp", None, 0o755),  # the lab's own is 1777 all the same
    ]
    layer = _tar([*common, *files])
    config = {
        "architecture": machine_architecture(),
        "os": "linux",
        "config": dict(run),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    encoded = json.dumps(config).encode()
    name = f"{hashlib.sha256(encoded).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": ["witness:1"], "Layers": ["layer.tar"]}]).encode()
    path.write_bytes(_tar([(name, encoded, 0o644), ("layer.tar", layer, 0o644), ("manifest.json", manifest, 0o644)]))
    return path


def _tar(files: Sequence[File]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content, mode in files:
            info = tarfile.TarInfo(name)
            info.mode = mode
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return made.getvalue()
