"""The service's unit and its environment: no value breaks out of its place."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.libvirt.whole.unit import (
    command_line,
    end_drop_in,
    ending_of,
    environment_file,
    service_unit,
    workload_unit,
)
from lab.errors import BadInput
from lab.launch.ends import Ending
from lab.spec import Restart, Spec

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def told_by_systemd(text: str) -> dict[str, str]:
    """What systemd.exec(5) says that it reads from an environment file in double quotes."""
    found, rest = {}, text
    while rest:
        name, _, rest = rest.partition('="')
        value = ""
        while not rest.startswith('"'):
            if rest[0] == "\\":
                rest = rest[1:]
            value, rest = value + rest[0], rest[1:]
        assert rest[1] == "\n"
        found[name], rest = value, rest[2:]
    return found


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), TEXT, max_size=4))
def test_each_variable_is_told_as_it_is(environment: dict[str, str]) -> None:
    assert told_by_systemd(environment_file(environment)) == environment


@pytest.mark.parametrize("name", ["A B", "1A", "A-B", "É"])
def test_a_name_that_systemd_leaves_out_without_a_word_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=name):
        environment_file({name: "x"})


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_a_command_stays_on_its_line_and_nothing_in_it_is_expanded(argv: list[str]) -> None:
    line = command_line(argv)
    assert "\n" not in line and "\r" not in line
    assert "%" not in line.replace("%%", "") and "$" not in line.replace("$$", "")
    assert line.count('"') - line.replace("\\\\", "").count('\\"') == 2 * len(argv)


def test_the_restart_that_was_asked_for_is_the_units() -> None:
    assert "\nRestart=no\n" in service_unit(Spec())
    assert "\nRestart=always\n" in service_unit(Spec(restart=Restart.BEST))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lab-service.service", service_unit(Spec(command=('a b "%n" $HOME \\ \n', "-x")))),
        ("lab-workload.service", workload_unit("app.service", "0" * 32)),
    ],
)
def test_systemd_finds_nothing_amiss(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text.replace("=/service", "=/bin/true").replace('="/service"', '="/bin/true"'))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:/lib/systemd/system", "PATH": "/usr/bin:/bin"},
    )
    assert name not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("how", "status", "ending"),
    [
        ("exited", "3", Ending(status=3)),
        ("exited", "131", Ending(status=131)),
        ("killed", "KILL", Ending(signal=9)),
        ("dumped", "SEGV", Ending(signal=11)),
        ("killed", "_DFL", Ending()),
        ("exited", "", Ending()),
    ],
)
def test_how_it_ended_is_told_in_systemds_words(how: str, status: str, ending: Ending) -> None:
    assert ending_of(how, status) == ending


def test_a_users_unit_is_given_the_environment_where_there_is_one() -> None:
    assert "EnvironmentFile=" not in end_drop_in(with_environment=False)
    assert "EnvironmentFile=/etc/stratalab/environment\n" in end_drop_in(with_environment=True)
