"""The marker `kind`, and the names that LAB_REQUIRE takes, in a pytest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def collect(required: str, *options: str) -> subprocess.CompletedProcess[str]:
    path = "tests/integration/drivers/test_kubernetes.py"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options, path],
        env={**os.environ, "LAB_REQUIRE": required},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_tests_of_a_real_kubernetes_are_marked_kind() -> None:
    marked = collect("kind,docker", "-m", "kind")
    assert marked.returncode == 0 and "test_boot_tells_the_phases" in marked.stdout
    assert "deselected" not in marked.stdout


def test_an_unknown_name_in_lab_require_ends_the_session() -> None:
    refused = collect("kind,dokcer")
    assert refused.returncode == 4
    assert "LAB_REQUIRE names dokcer, which is no driver; there are: " in refused.stderr
    assert " docker, " in refused.stderr.partition("there are:")[2]
    assert "Traceback" not in refused.stderr
