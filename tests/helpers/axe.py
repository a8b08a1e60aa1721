"""axe-core (dequelabs/axe-core), which finds what a page keeps from those who use a keyboard or a screen reader."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from browser import Tab

from lab.store.place import cache_dir

_CARRIER, _VERSION = "axe-playwright-python", "0.1.8"
"""The small wheel that it is taken from, without what that would need: axe-core itself is published for npm only."""
_TIMEOUT_S = 120


def script() -> str:
    """Its script, fetched once; empty where that cannot be had."""
    kept = cache_dir() / "tests" / f"axe-of-{_CARRIER}-{_VERSION}.js"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"{_CARRIER}=={_VERSION}"]
            ran = subprocess.run(command, cwd=folder, capture_output=True, timeout=_TIMEOUT_S, check=False)
            wheels = list(Path(folder).glob("*.whl"))
            if ran.returncode or not wheels:
                return ""
            with zipfile.ZipFile(wheels[0]) as archive:
                (Path(folder) / "axe.js").write_bytes(archive.read("axe_playwright_python/axe.min.js"))
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
