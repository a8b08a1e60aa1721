"""An image whose service ends as its environment says (`ending.c`), as `docker save` writes one."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

from lab.image.archive import machine_architecture
from lab.service.build import available_compilers

_SOURCE = Path(__file__).parent / "ending.c"


def make(folder: Path) -> Path:
    """The archive, in `folder`."""
    program = folder / "ending"
    for compiler in available_compilers():
        argv = [*compiler.command, "-O1", "-static", "-s", "-o", str(program), str(_SOURCE)]
        if subprocess.run(argv, capture_output=True, timeout=300, check=False).returncode == 0:
            break
    else:
        raise AssertionError("no compiler builds a static program here")
    layer = _tar({"ending": program.read_bytes()}, 0o755)
    config = {
        "architecture": machine_architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/ending"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    encoded = json.dumps(config).encode()
    name = f"{hashlib.sha256(encoded).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": ["ending:1"], "Layers": ["layer.tar"]}]).encode()
    archive = folder / "ending.tar"
    archive.write_bytes(_tar({name: encoded, "layer.tar": layer, "manifest.json": manifest}, 0o644))
    return archive


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()
