"""A page as a PDF, by a browser that is installed: Chromium or Chrome, headless."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.errors import BadInput, LabError
from lab.store.place import write_whole

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_TIMEOUT_S = 60.0


def write_pdf(page: str, path: Path) -> None:
    """Raises BadInput where there is no such browser, LabError where it fails."""
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise BadInput(
            "a PDF is made by Chromium or Chrome, and neither is installed",
            resolution="write --html FILE, open it in your browser, and print it to a file",
        )
    with tempfile.TemporaryDirectory(prefix="stratalab-pdf-") as folder:
        source, made = Path(folder) / "report.html", Path(folder) / "report.pdf"
        source.write_text(page, encoding="utf-8")
        command = [browser, "--headless", "--disable-gpu", f"--user-data-dir={folder}/profile", "--no-first-run"]
        command += ["--disable-background-networking", "--no-pdf-header-footer", f"--print-to-pdf={made}"]
        if os.geteuid() == 0:  # Chromium refuses its sandbox to root; what it shows is the lab's own page
            command.append("--no-sandbox")
        try:
            done = subprocess.run(
                [*command, source.as_uri()],
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LabError(f"{browser} made no PDF: {error}", resolution="write --html FILE and print that") from error
        if not made.is_file():
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise LabError(f"{browser} made no PDF: {''.join(last)}", resolution="write --html FILE and print that")
        write_whole(path, made.read_bytes())
