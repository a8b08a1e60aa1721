"""axe-core (dequelabs/axe-core), which finds what a page keeps from those who use a keyboard or a screen reader."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from browser import Tab

from lab.store.place import cache_dir

VERSION = "4.14.1"
_TIMEOUT_S = 120


def script() -> str:
    """Its script, fetched once by npm, which checks it; empty where that cannot be had."""
    kept = cache_dir() / "tests" / f"axe-core-{VERSION}.js"
    if not kept.exists():
        if shutil.which("npm") is None:
            return ""
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            command = ["npm", "pack", "--silent", f"axe-core@{VERSION}", "--pack-destination", folder]
            ran = subprocess.run(command, cwd=folder, capture_output=True, timeout=_TIMEOUT_S, check=False)
            packed = Path(folder) / f"axe-core-{VERSION}.tgz"
            if ran.returncode or not packed.exists():
                return ""
            with tarfile.open(packed) as archive:
                found = archive.extractfile("package/axe.min.js")
                assert found is not None
                (Path(folder) / "axe.js").write_bytes(found.read())
            (Path(folder) / "axe.js").rename(kept)
    return kept.read_text()


def grave(tab: Tab, axe: str) -> list[dict[str, Any]]:
    """What of the page, frames of other origins left out, is a serious or critical violation; each with where."""
    tab.eval(f"{axe};0")
    told = json.loads(tab.eval("axe.run({iframes: false}).then(found => JSON.stringify(found.violations))"))
    return [
        {"rule": one["id"], "impact": one["impact"], "where": [node["html"][:200] for node in one["nodes"]]}
        for one in told
        if one["impact"] in ("serious", "critical")
    ]
