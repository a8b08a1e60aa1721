"""Streams that outlast the terminal, the reader or the disk that they go to."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.show.lasting import Lasting


def _stream(descriptor: int, *, whatever: bool = False) -> Lasting:
    return Lasting(os.fdopen(descriptor, "w", encoding="utf-8"), whatever=whatever)


def test_what_has_no_reader_any_more_drops_what_is_written() -> None:
    reading, writing = os.pipe()
    stream = _stream(writing)
    print("heard", file=stream, flush=True)
    assert os.read(reading, 100) == b"heard\n"
    os.close(reading)
    for _ in range(3):
        print("x" * 100_000, file=stream, flush=True)
    stream.close()


def test_a_terminal_that_was_hung_up_drops_what_is_written() -> None:
    master, slave = pty.openpty()
    stream = _stream(slave)
    os.close(master)
    print("unheard", file=stream, flush=True)
    assert not stream.isatty()
    stream.close()


def test_a_full_disk_under_the_results_is_told_once_and_under_the_progress_not_at_all() -> None:
    results = _stream(os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(LabError, match="standard output cannot be written: No space left"):
        print("x", file=results, flush=True)
    results.close()
    progress = _stream(os.open("/dev/full", os.O_WRONLY), whatever=True)
    print("x", file=progress, flush=True)
    progress.close()


def test_a_reader_that_is_slow_for_a_moment_is_not_given_up() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    stream = _stream(writing, whatever=True)
    for _ in range(20):
        print("x" * 100_000, file=stream, flush=True)
    while True:
        os.set_blocking(reading, False)
        try:
            os.read(reading, 1 << 20)
        except BlockingIOError:
            break
    print("again", file=stream, flush=True)
    assert os.read(reading, 1 << 20)
    os.close(reading)


def test_it_is_a_text_stream_like_the_one_it_replaces(tmp_path: Path) -> None:
    file = (tmp_path / "out").open("w", encoding="utf-8", errors="backslashreplace")
    stream = Lasting(file, whatever=False)
    assert (stream.encoding, stream.errors) == ("utf-8", "backslashreplace")
    stream.write("ä\n")
    stream.close()
    assert (tmp_path / "out").read_bytes() == "ä\n".encode()
