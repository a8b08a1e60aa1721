"""The console's reader, with this test at QEMU's end of the FIFOs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drivers.libvirt.console import KEPT_BYTES, STOP_LINE, Console, fifos, type_into
from lab.timeline import Phase, Source


class Marks:
    def __init__(self) -> None:
        self.phases: list[tuple[Phase, Source]] = []
        self.lines: list[bytes] = []

    def __call__(self, phase: Phase, *, source: Source) -> None:
        self.phases.append((phase, source))

    def line(self, text: bytes, *, source: Source) -> None:
        assert source is Source.CONSOLE
        self.lines.append(text)

    def moment(self) -> Marks:
        return self


class Rig:
    """A console, its marks, and the end that QEMU would write to and read from."""

    def __init__(self, path: Path) -> None:
        self.marks = Marks()
        self.heard: list[bytes] = []
        self.hung_up: list[bytes] = []
        self.console = Console(
            path, self.marks, self.heard.append, lambda: self.hung_up.append(self.console.text().splitlines()[-1])
        )
        self.guest = os.open(fifos(path)[0], os.O_RDWR)
        self.keyboard = os.open(fifos(path)[1], os.O_RDWR | os.O_NONBLOCK)

    def say(self, text: bytes) -> None:
        os.write(self.guest, text)

    def hang_up(self) -> None:
        os.close(self.keyboard)
        self.keyboard = os.open("/dev/null", os.O_RDONLY)

    def close(self) -> None:
        self.console.close()
        os.close(self.guest)
        os.close(self.keyboard)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "console")
    yield made
    made.close()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert true()


def test_firmware_is_no_kernel_and_the_kernels_first_bytes_are(rig: Rig) -> None:
    rig.say(b"SeaBIOS (version 1.16)\r\n[ menu ] Booting from ROM..\r\nProbing EDD... ok\r\n")
    until(lambda: len(rig.marks.lines) == 3)
    assert rig.marks.phases == []
    rig.say(b"[    0.0")
    rig.say(b"00000] Lin")
    until(lambda: rig.marks.phases)
    assert rig.marks.phases == [(Phase.KERNEL, Source.CONSOLE)], "before the line ends"
    rig.say(b"ux version 6.1\r\n[    0.000001] more\r\n")
    until(lambda: len(rig.marks.lines) == 5)
    assert rig.marks.lines[3:] == [b"[    0.000000] Linux version 6.1", b"[    0.000001] more"]
    assert len(rig.marks.phases) == 1


def test_what_was_written_before_the_end_is_read_to_the_last_byte(rig: Rig) -> None:
    lines = [b"line %d" % number for number in range(5000)]
    writer = threading.Thread(target=lambda: [rig.say(line + b"\r\n") for line in lines])
    writer.start()
    writer.join(10)
    rig.say(b"unfinished")
    rig.console.close()
    assert rig.marks.lines == [*lines, b"unfinished"]


def test_only_the_end_is_kept(rig: Rig) -> None:
    for _ in range(3):
        rig.say(b"x" * 60_000 + b"\n")
        until(lambda: rig.console.text().endswith(b"\n"))
    rig.say(b"the end\n")
    until(lambda: rig.console.text().endswith(b"the end\n"))
    assert len(rig.console.text()) == KEPT_BYTES


def test_the_guest_is_asked_by_this_process_and_by_another(rig: Rig) -> None:
    assert rig.console.write(STOP_LINE)
    assert os.read(rig.keyboard, 100) == STOP_LINE
    assert type_into(rig.console.path, STOP_LINE)
    assert os.read(rig.keyboard, 100) == STOP_LINE
    assert not type_into(rig.console.path.with_name("none"), STOP_LINE)


def test_the_end_of_what_writes_is_told_once_all_of_it_was_read(rig: Rig) -> None:
    rig.say(b"first\n")
    until(lambda: rig.heard == [b"first"])
    assert rig.console.write(b"still typed\n") and os.read(rig.keyboard, 100) == b"still typed\n"
    rig.say(b"x\n" * 20_000 + b"last\n")
    rig.hang_up()
    until(lambda: rig.hung_up)
    time.sleep(0.05)
    assert rig.hung_up == [b"last"] and rig.heard[-1] == b"last"
    assert not rig.console.write(STOP_LINE), "there is nobody to read it"


def test_a_console_that_nobody_wrote_to_hangs_up_for_nobody(rig: Rig) -> None:
    rig.hang_up()
    time.sleep(0.1)
    assert rig.hung_up == []


def test_close_is_idempotent_from_several_threads_and_leaves_nothing(rig: Rig, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    threads = [threading.Thread(target=rig.console.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    rig.console.close()
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 4
    assert not rig.console.write(b"x")
