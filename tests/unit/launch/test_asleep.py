"""What the kernel shows of processes that sleep: of real ones, that this test stops and lets go on."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import DriverError, Unsupported
from lab.features import SleepState
from lab.launch.asleep import await_asleep, how_asleep, require_offered, virtual_cpus_ran_ns


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as made:
        yield made
        made.kill()


def test_a_stopped_process_is_told_from_one_that_runs_and_from_one_that_is_gone(
    process: subprocess.Popen[bytes],
) -> None:
    assert how_asleep([process.pid]) == ""
    with pytest.raises(DriverError, match=f"processes {process.pid} of it run"):
        await_asleep(lambda: [process.pid], timeout_s=0)
    process.send_signal(signal.SIGSTOP)
    await_asleep(lambda: [process.pid], timeout_s=30)
    assert how_asleep([process.pid]) == "stopped"
    process.kill()
    process.wait()
    assert how_asleep([process.pid]) == how_asleep([]) == "gone"


def test_of_several_all_must_sleep(process: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        process.send_signal(signal.SIGSTOP)
        await_asleep(lambda: [process.pid], timeout_s=30)
        assert how_asleep([process.pid, other.pid]) == ""
        other.kill()


def test_the_time_of_virtual_cpus_goes_on_only_while_they_run() -> None:
    go, done, end = threading.Event(), threading.Event(), threading.Event()
    named: list[int] = []

    def be_a_cpu() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("CPU 0/TCG")
        named.append(threading.get_native_id())
        done.set()
        go.wait()
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass
        done.set()
        end.wait()

    own = int(Path("/proc/self").resolve().name)
    assert virtual_cpus_ran_ns([own]) is None
    cpu = threading.Thread(target=be_a_cpu)
    cpu.start()
    try:
        done.wait()
        done.clear()
        while Path(f"/proc/self/task/{named[0]}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.01)  # until it waits
        still = virtual_cpus_ran_ns([own])
        assert still is not None and virtual_cpus_ran_ns([own]) == still
        go.set()
        done.wait()
        ran = virtual_cpus_ran_ns([own])
        assert ran is not None and ran - still >= 10_000_000
    finally:
        go.set()
        end.set()
        cpu.join()


def test_a_state_that_is_not_offered_is_refused_with_its_reason() -> None:
    states = {SleepState.PAUSED: "", SleepState.SAVED: "there is no room"}
    require_offered(states, SleepState.PAUSED)
    with pytest.raises(Unsupported, match="cannot be saved here: there is no room"):
        require_offered(states, SleepState.SAVED)
    with pytest.raises(Unsupported, match="knows no state 'zero'"):
        require_offered(states, SleepState.ZERO)
