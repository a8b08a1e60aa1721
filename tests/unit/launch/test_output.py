"""A stream that grows is followed line by line, and the last 64 KiB of it are kept."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from lab.errors import DriverError
from lab.launch.output import KEPT_BYTES, Output
from lab.timeline import Phase, Source


class _Heard:
    def __init__(self) -> None:
        self.lines: list[tuple[bytes, Source]] = []
        self.some = threading.Event()

    def __call__(self, phase: Phase, *, source: Source) -> None:
        raise AssertionError("a stream tells of no phase")

    def line(self, text: bytes, *, source: Source) -> None:
        self.lines.append((text, source))
        self.some.set()

    def moment(self) -> _Heard:
        return self

    def failed(self, error: DriverError) -> None:
        raise error


def _followed(on_end: Callable[[], None] = lambda: None) -> tuple[Output, _Heard, int]:
    reading, writing = os.pipe()
    heard = _Heard()
    return Output(reading, heard, name="a test", source=Source.CONSOLE, on_end=on_end), heard, writing


def test_a_line_is_handed_on_while_the_stream_is_still_open_and_the_rest_at_its_end() -> None:
    ended = threading.Event()
    output, heard, writing = _followed(ended.set)
    os.write(writing, b"one\ntwo")
    assert heard.some.wait(10)
    assert heard.lines == [(b"one", Source.CONSOLE)] and not ended.is_set()
    os.close(writing)
    output.close()
    output.close()
    assert heard.lines == [(b"one", Source.CONSOLE), (b"two", Source.CONSOLE)] and ended.is_set()
    assert output.tail() == b"one\ntwo"


def test_only_the_last_64_kib_are_kept_and_its_descriptor_and_thread_are_let_go() -> None:
    before = set(Path("/proc/self/fd").iterdir()), set(threading.enumerate())
    output, heard, writing = _followed()
    for number in range(3000):
        os.write(writing, b"%060d\n" % number)
    os.close(writing)
    output.close()
    assert len(output.tail()) == KEPT_BYTES and output.tail().endswith(b"2999\n")
    assert len(heard.lines) == 3000
    assert (set(Path("/proc/self/fd").iterdir()), set(threading.enumerate())) == before
