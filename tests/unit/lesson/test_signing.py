"""What a lesson's export says of itself, and what its signatures show."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import BadInput
from lab.figures import stats
from lab.lesson.record import Figure, HostFacts, Mistake, Progress, State, Step, is_progress, parse, read
from lab.lesson.signing import problem, read_key, sign

KEY = b"k" * 32
VALUES = (0.30, 0.31, 0.32, 0.33, 0.34, 0.35, 0.36)


def figure(key: bytes | None = None, **changed: object) -> Figure:
    found = stats.estimate(VALUES)
    about = {"run_id": "20260101-aaaa", "host_id": "host", "target": "docker", "metric": "boot_s", "unit": "s"}
    signature = sign(**about, dimensions={"a": "b"}, values=VALUES, key=key)  # type: ignore[arg-type]
    told = {**about, "label": "docker", "dimensions": {"a": "b"}, "values": list(VALUES), "signature": signature}
    told |= {"n": found.n, "low": found.low, "mid": found.median, "high": found.high} | changed
    return Figure.model_validate(told)


def progress(**changed: object) -> Progress:
    steps = [Step(id="guess", title="A guess", state=State.FAILED, mistakes=[Mistake.EDITED], points=1, max_points=2)]
    told = {"lab_version": "0.1", "lesson": "boot", "lesson_digest": "d", "language": "en", "started_at": "2026"}
    told |= {"updated_at": "2026", "host": HostFacts(id="host"), "steps": steps, "figures": [figure()]} | changed
    return Progress.model_validate(told)


@pytest.mark.parametrize("key", [None, KEY])
def test_a_figure_as_it_was_signed_has_no_problem(key: bytes | None) -> None:
    assert problem(figure(key), key) == ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"mid": 0.2}, "not that of its raw values"),
        ({"low": None, "high": None}, "not that of its raw values"),
        ({"n": 100}, "not that of its raw values"),
        ({"run_id": "20260101-bbbb"}, "not those that were signed"),
        ({"host_id": "another"}, "not those that were signed"),
        ({"metric": "stop_s"}, "not those that were signed"),
        ({"dimensions": {}}, "not those that were signed"),
        ({"values": []}, "no raw values"),
        ({"signature": "sha256:0"}, "not those that were signed"),
        ({"signature": "nonsense"}, "not those that were signed"),
    ],
)
def test_a_figure_that_was_changed_has_one(changed: dict[str, object], said: str) -> None:
    assert said in problem(figure(**changed))


def test_with_the_class_key_only_what_was_signed_with_it_passes() -> None:
    assert problem(figure(), KEY) == "it was signed without the class key"
    assert problem(figure(b"j" * 32), KEY) == "it was signed with another key"
    assert "not those" in problem(figure(KEY, run_id="x"), KEY)
    assert problem(figure(KEY)) == ""


def test_a_key_is_read_from_its_file_and_a_short_one_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0123456789abcdef\n")
    assert read_key(tmp_path / "key") == b"0123456789abcdef"
    (tmp_path / "short").write_text("1234\n")
    for name in ("short", "absent"):
        with pytest.raises(BadInput):
            read_key(tmp_path / name)


def test_an_export_comes_back_as_it_was_written(tmp_path: Path) -> None:
    made = progress()
    (tmp_path / "e.json").write_text(made.model_dump_json())
    assert read(tmp_path / "e.json") == made
    assert (made.points, made.max_points, made.mistakes) == (1, 2, {Mistake.EDITED: 1})
    assert is_progress(made.model_dump()) and not is_progress({"format": "stratalab run"}) and not is_progress([])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"format": "stratalab lesson"}', '{"format": "stratalab run", "version": 2}', "\x00", "1e999"],
)
def test_what_is_no_export_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput, match="is no lesson's export") as refused:
        parse(text, name="e.json")
    assert "\n" not in refused.value.brief


def test_neither_an_unknown_field_nor_what_is_no_number_is_taken() -> None:
    whole = progress().model_dump_json()
    for wrong in (
        whole.replace('"student"', '"colour":"red","student"'),
        whole.replace('"mid":0.33', '"mid":NaN'),
        whole.replace('"failed"', '"perfect"'),
        whole.replace('"points":1.0', '"points":-1'),
    ):
        assert wrong != whole
        with pytest.raises(BadInput):
            parse(wrong, name="e.json")
