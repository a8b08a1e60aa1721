"""NumPy starts no threads that nothing needs, and what the lab launches hears nothing of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_TELL = """
import os
from lab.figures.arrays import numpy
assert numpy().arange(3).sum() == 3
print(len(os.listdir("/proc/self/task")), os.environ.get("OPENBLAS_NUM_THREADS"))
"""


@pytest.mark.parametrize("chosen", [None, "2"])
def test_numpy_has_one_thread_unless_the_user_says_how_many(chosen: str | None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    told = subprocess.run(
        [sys.executable, "-c", _TELL],
        env=environment | ({"OPENBLAS_NUM_THREADS": chosen} if chosen else {}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    assert told[1] == str(chosen)
    if chosen is None:
        assert told[0] == "1"
