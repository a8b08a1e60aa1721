"""A value of --env is kept as a digest: the same for the same value, and of no use without the key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.store.digest import KEY_NAME, concealed, digests, without_values
from lab.store.place import state_dir


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return state_dir()


def test_a_change_is_seen_and_equal_values_are_equal() -> None:
    first = digests({"A": "1", "B": "1"})
    assert first == digests({"A": "1", "B": "1"})
    assert first["A"]["digest"] != digests({"A": "2"})["A"]["digest"]
    assert first["A"]["digest"] != first["B"]["digest"], "equal values of two names are not told to be equal"


def test_without_the_key_no_value_is_found_by_trying(state: Path) -> None:
    first = digests({"A": "1"})
    (state / KEY_NAME).unlink()
    second = digests({"A": "1"})
    assert first["A"]["digest"] != second["A"]["digest"]
    assert first["A"]["key"] != second["A"]["key"], "that two keys cannot be compared is to be seen"


def test_the_key_is_its_owners_alone(state: Path) -> None:
    digests({"A": "1"})
    assert stat.S_IMODE((state / KEY_NAME).stat().st_mode) == 0o600
    assert [path.name for path in state.iterdir()] == [KEY_NAME]


def test_no_key_is_made_where_there_is_nothing_to_digest(state: Path) -> None:
    assert digests({}) == {} and not (state / KEY_NAME).exists()


def test_a_damaged_key_is_named(state: Path) -> None:
    (state / KEY_NAME).write_text("short")
    with pytest.raises(LabError, match=r"digest.key is no key"):
        digests({"A": "1"})


def test_an_older_runs_values_are_shown_as_digests(state: Path) -> None:
    older = {"spec": {"image": "x", "environment": {"A": "hush"}}, "seed": 1}
    shown = without_values(older)
    assert shown == {"spec": {"image": "x", "environment": digests({"A": "hush"})}, "seed": 1}
    assert without_values(shown) == shown
    (state / KEY_NAME).write_text("short")
    assert "hush" not in str(without_values(older)), "a key that cannot be had brings no value back"


@pytest.mark.parametrize("parameters", [{}, {"spec": None}, {"spec": {}}, {"spec": {"environment": {}}}])
def test_a_run_without_an_environment_is_left_as_it_is(parameters: dict[str, object]) -> None:
    assert without_values(parameters) == parameters


def test_what_repeats_a_value_is_told_without_it() -> None:
    environment = {"TOKEN": "hush-hush", "LONGER": "hush-hush-hush", "N": "1", "LINES": "a line\nanother"}
    said = 'env TOKEN=hush-hush N=1 (1 error): {"LONGER": "hush-hush-hush", "LINES": "a line\\nanother"}'
    told = concealed(said, environment)
    assert told == (
        "env TOKEN=(the value of TOKEN) N=(the value of N) (1 error): "
        '{"LONGER": "(the value of LONGER)", "LINES": "(the value of LINES)"}'
    )


def test_an_empty_value_changes_nothing() -> None:
    assert concealed("some text", {"A": ""}) == "some text"
