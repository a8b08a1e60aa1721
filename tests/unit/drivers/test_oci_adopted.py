"""What a program leaves behind is the lab's own child while it adopts, and nobody's business before and after."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from drivers.oci.adopted import _taking, adopting

LEAVES_A_CHILD = """
import os, time
if (pid := os.fork()) == 0:
    os.close(1)
    time.sleep(0.3)
    os._exit(5)
print(pid, flush=True)
"""


def _left_behind() -> int:
    return int(subprocess.run([sys.executable, "-c", LEAVES_A_CHILD], capture_output=True, check=True).stdout)


def test_an_orphan_of_these_moments_tells_this_process_its_status() -> None:
    with adopting():
        pid = _left_behind()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5


def test_no_other_orphan_comes_here() -> None:
    with adopting():
        pass
    with pytest.raises(ChildProcessError):
        os.waitpid(_left_behind(), 0)


def test_the_last_of_several_ends_it() -> None:
    before = _taking()
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with adopting():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    with adopting():
        pass
    assert _taking() == 1, "the other still adopts"
    leave.set()
    thread.join()
    assert _taking() == before == 0
