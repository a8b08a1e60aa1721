"""What processes take of the CPUs is read from their own clocks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from lab.host.cpu import cpu_ns, cpus_used
from lab.host.procs import Process


def test_a_process_that_works_is_told_from_one_that_waits() -> None:
    busy, waiting = (
        subprocess.Popen([sys.executable, "-c", code]) for code in ("while True: pass", "import time; time.sleep(60)")
    )
    try:
        time.sleep(0.3)  # both have begun
        working, idle = cpus_used([busy.pid], 0.3), cpus_used([waiting.pid], 0.3)
        assert 0.02 < working < 1.5
        assert idle < working / 4
        together = cpus_used([busy.pid, waiting.pid], 0.1)
        assert together > 0.02
    finally:
        for process in (busy, waiting):
            process.kill()
            process.wait()
    assert cpus_used([busy.pid], 0.01) == 0


def test_threads_that_ended_are_counted() -> None:
    me = Process.of(os.getpid())
    assert me is not None
    before = cpu_ns(me)
    thread = threading.Thread(target=lambda: sum(range(2_000_000)))
    thread.start()
    thread.join()
    after = cpu_ns(me)
    assert before is not None and after is not None
    assert after - before > 1_000_000


def test_of_a_process_that_is_gone_nothing_is_told() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process is not None and cpu_ns(process) is not None  # 0 where it has not yet had its turn
    child.kill()
    child.wait()
    assert cpu_ns(process) is None
