"""How an end is told, and that a child's end is told once, at once, and only where nobody asked for it."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys

import pytest

from lab.errors import DriverError
from lab.launch.ends import ChildWatch, Ending, last_lines
from lab.launch.output import Output
from lab.timeline import Phase, Source
from lab.units import MIB


class Heard:
    """A Mark that keeps the failures."""

    def __init__(self) -> None:
        self.failures: queue.SimpleQueue[DriverError] = queue.SimpleQueue()

    def __call__(self, phase: Phase, *, source: Source) -> None: ...
    def line(self, text: bytes, *, source: Source) -> None: ...
    def moment(self) -> Heard:
        return self

    def failed(self, error: DriverError) -> None:
        self.failures.put(error)


@pytest.mark.parametrize(
    "ending,told",
    [
        (Ending(status=0), "the service ended with exit status 0"),
        (Ending(status=3), "the service ended with exit status 3"),
        (Ending(status=137), "the service ended with exit status 137"),
        (Ending(signal=signal.SIGKILL), "the service was ended by signal SIGKILL (9)"),
        (Ending(signal=40), "the service was ended by signal 40"),
        (Ending(), "the service ended by itself"),
        (
            Ending(signal=signal.SIGKILL, out_of_memory=True),
            "the service was killed: it wanted more than the 128 MiB of --memory",
        ),
        (
            Ending(status=1, out_of_memory=True),
            "the service ended with exit status 1 after a process of it was killed: it wanted more than the 128 MiB of "
            "--memory",
        ),
    ],
)
def test_an_ending_in_words(ending: Ending, told: str) -> None:
    error = ending.error(memory_bytes=128 * MIB, output=b"a\nb\n")
    assert error.brief == told
    assert error.details == "a\nb"
    assert ("--memory" in error.resolution) is ending.out_of_memory


@pytest.mark.parametrize(
    "code,status,number",
    [(0, 0, None), (2, 2, None), (128, 128, None), (137, None, 9), (143, None, 15), (192, None, 64), (255, 255, None)],
)
def test_an_engines_code_is_a_signal_where_it_says_so(code: int, status: int | None, number: int | None) -> None:
    assert Ending.by_code(code) == Ending(status=status, signal=number)


def test_ten_lines_that_say_something_are_the_last() -> None:
    written = "".join(f"line {number}\r\n\n" for number in range(1, 31)).encode() + b"\xff without an end"
    lines = last_lines(written).splitlines()
    assert lines == [*(f"line {number}" for number in range(22, 31)), "� without an end"]
    assert last_lines(b"") == ""


def test_a_guests_kernel_does_not_take_the_services_lines_away() -> None:
    kernel = "".join(f"[    1.{number:06}] of the kernel\n" for number in range(30)).encode()
    assert last_lines(b"of the service\n" + kernel) == "of the service"
    assert last_lines(kernel).splitlines()[0] == "[    1.000020] of the kernel"


def _watched(
    program: str, *, killed_for_memory: bool = False, reap: bool = True, itself: bool = True
) -> tuple[ChildWatch, Heard, int]:
    reading, writing = os.pipe()
    pid = subprocess.Popen([sys.executable, "-c", program], stdout=writing, stdin=subprocess.PIPE).pid
    os.close(writing)
    heard = Heard()
    output = Output(reading, heard, name="a test")
    watch = ChildWatch(
        pid,
        heard,
        output=output,
        memory_bytes=64 * MIB,
        killed_for_memory=lambda: killed_for_memory,
        reap=reap,
        itself=itself,
    )
    return watch, heard, pid


@pytest.mark.parametrize("reap", [True, False])
def test_a_childs_end_is_told_with_what_it_wrote_last(reap: bool) -> None:
    _, heard, pid = _watched("print('last words'); raise SystemExit(3)", reap=reap)
    error = heard.failures.get(timeout=10)
    assert (error.brief, error.details) == ("the service ended with exit status 3", "last words")
    if reap:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)
    else:
        assert os.waitpid(pid, 0)[0] == pid, "that was left to the caller"


def test_an_end_is_told_though_a_grandchild_holds_on_to_the_output() -> None:
    """A service's worker outlives it, and with it the pipe stays open."""
    program = "import os, time\nif os.fork() == 0: time.sleep(5)\nelse: os._exit(4)"
    _, heard, _ = _watched(program)
    assert heard.failures.get(timeout=4).brief == "the service ended with exit status 4"


def test_a_kill_for_memory_is_told_as_such() -> None:
    _, heard, pid = _watched("import time; time.sleep(60)", killed_for_memory=True)
    os.kill(pid, signal.SIGKILL)
    told = "the service was killed: it wanted more than the 64 MiB of --memory"
    assert heard.failures.get(timeout=10).brief == told


def test_an_end_that_is_expected_is_not_told() -> None:
    watch, heard, pid = _watched("import time; time.sleep(60)")
    watch.expect()
    os.kill(pid, signal.SIGTERM)
    watch._thread.join(10)
    assert not watch._thread.is_alive()
    assert heard.failures.empty()


def test_a_sandboxs_status_is_not_the_services() -> None:
    _, heard, _ = _watched("raise SystemExit(0)", itself=False)
    assert heard.failures.get(timeout=10).brief == "the service ended by itself"


def test_the_end_of_anothers_child_is_told_without_its_status() -> None:
    """Only a parent learns the status: here that of a grandchild, which is not this process's own."""
    program = "import os, time\npid = os.fork()\nif pid: print(pid, flush=True); os.wait()\nelse: time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        reading, writing = os.pipe()
        os.close(writing)
        heard = Heard()
        ChildWatch(
            pid,
            heard,
            output=Output(reading, heard, name="a test"),
            memory_bytes=MIB,
            killed_for_memory=lambda: False,
            reap=True,
        )
        os.kill(pid, signal.SIGKILL)
        assert heard.failures.get(timeout=10).brief == "the service ended by itself"
