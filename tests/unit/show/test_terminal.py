"""Text for streams of any encoding."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from lab.show.terminal import printable, take_any_text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r", "shift_jis", "utf-8", "utf-16"])
def test_what_an_encoding_lacks_is_replaced_and_never_raises(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    take_any_text(stream)
    stream.write("main \N{RIGHTWARDS ARROW} ready 2 \N{MICRO SIGN}s \N{FULL BLOCK} \N{SNOWMAN} \udcff\n")
    stream.flush()
    told = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert told.startswith("main ") and told.rstrip().endswith("?")
    if encoding == "ascii":
        assert told == "main -> ready 2 us # ? ?\n"


def test_a_command_ends_well_where_the_output_is_ascii() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "lab", "scenarios"], env=environment, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0 and done.stdout.isascii() and b"Traceback" not in done.stderr


def test_a_terminal_is_told_nothing_that_it_would_obey() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\N{REPLACEMENT CHARACTER}[2Jb c"
