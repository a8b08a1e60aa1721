"""Where the lab keeps things, and what such a place must allow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.store.place import require_exec


def test_a_usual_folder_runs_programs(tmp_path: Path) -> None:
    require_exec(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts, in a namespace of its own")
def test_a_folder_mounted_noexec_is_named_with_its_mount_and_what_helps(tmp_path: Path) -> None:
    cache = tmp_path / "no exec" / "stratalab"
    cache.mkdir(parents=True)
    code = (
        "import sys; from pathlib import Path\n"
        "from lab.errors import LabError; from lab.store.place import require_exec\n"
        "try: require_exec(Path(sys.argv[1]))\n"
        "except LabError as error: print(error)"
    )
    script = 'mount -t tmpfs -o noexec none "$1" && mkdir "$1/stratalab" && exec "$2" -c "$3" "$1/stratalab"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(cache.parent), sys.executable, code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"{cache.parent} is mounted noexec" in done.stdout and "XDG_CACHE_HOME" in done.stdout
