"""`--env` and `--env-file` as `docker run` reads them (docker/cli, pkg/kvfile), and no word of a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cli.environment import read_environment
from lab.errors import BadInput

OWN = {"HOME": "/home/me", "EMPTY": ""}


def _file(folder: Path, content: bytes) -> dict[str, str]:
    (folder / "env").write_bytes(content)
    return read_environment([], [folder / "env"], own=OWN)


def test_a_name_alone_takes_its_value_from_here_and_is_left_out_where_there_is_none() -> None:
    assert read_environment(["HOME", "EMPTY", "NOT_SET", "A="], [], own=OWN) == {
        "HOME": "/home/me",
        "EMPTY": "",
        "A": "",
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"A=1\nB=2", {"A": "1", "B": "2"}),
        (b"# a comment\n   # another\n\nA=1 # none\n", {"A": "1 # none"}),
        (b"A=\"quoted\"\nB='so'\n", {"A": '"quoted"', "B": "'so'"}),
        (b"  A= spaces kept \n\t\nB=x=y\n", {"A": " spaces kept ", "B": "x=y"}),
        (b"\xef\xbb\xbfA=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        (b"HOME\nNOT_SET\nEMPTY\n", {"HOME": "/home/me", "EMPTY": ""}),
        (b"A=1\nA=2\n", {"A": "2"}),
        (b"export.dotted-name=1\n", {"export.dotted-name": "1"}),
        (b"A=\xc3\xa4\n", {"A": "\u00e4"}),
        (b"", {}),
    ],
)
def test_a_file_is_read_as_docker_does(tmp_path: Path, content: bytes, expected: dict[str, str]) -> None:
    assert _file(tmp_path, content) == expected


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"A=1\n=hush\n", "line 2 names no variable"),
        (b"export A=hush\n", "line 1 has a space in the variable's name"),
        (b"A B\n", "line 1 has a space"),
        (b"A=1\nB=hush\xff\n", "line 2 is not UTF-8"),
    ],
)
def test_what_docker_refuses_is_refused_by_its_line_and_without_the_value(
    tmp_path: Path, content: bytes, told: str
) -> None:
    with pytest.raises(BadInput, match=told) as raised:
        _file(tmp_path, content)
    assert "hush" not in str(raised.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Is a directory"):
        read_environment([], [tmp_path])
