"""Lessons' folders: those that ship are whole in every language, and a faulty one is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import BadInput
from lab.lesson.ahead import reading_s
from lab.lesson.command import parse as parse_command
from lab.lesson.lesson import find, read, shipped
from lab.lesson.text import PARTS
from lab.lesson.text import parse as parse_text

TABLE = """
format = 1
name = "mine"

[[steps]]
id = "measure"
predict = { unit = "s", row = { of = ["docker"], metric = "boot_s" } }
run = "lab run boot -t process,docker --rounds 10"

[[steps]]
id = "choose"
answer = { kind = "choice", choices = ["a", "b"], correct = ["b"] }
"""
TEXT = """# Mine
Words.
## measure: Measure
How long?
```
# no heading
```
### why: Why
Since.
## choose: Choose
- `a`: one
- `b`: other
"""


def make(folder: Path, table: str = TABLE, text: str = TEXT) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "lesson.toml").write_text(table)
    (folder / "text.en.md").write_text(text)
    return folder


def test_there_are_the_seven_lessons() -> None:
    assert shipped() == ["bad-benchmark", "boot", "isolation", "memory", "neighbour", "orchestration", "serverless"]


@pytest.mark.parametrize("name", shipped())
def test_a_lesson_that_ships_is_whole_in_english_and_german(name: str) -> None:
    lesson = find(name)
    assert (lesson.name, sorted(lesson.texts)) == (name, ["de", "en"])
    for text in lesson.texts.values():
        for step in lesson.steps:
            assert set(text.sections[step.id].parts) == set(PARTS), step.id
        assert set(text.sections) == set(lesson.texts["en"].sections)
    drivers = {target.partition(":")[0] for command in lesson.commands for target in command.targets}
    told = {name.removeprefix("without-") for name in lesson.texts["en"].sections if name.startswith("without-")}
    assert told == drivers - {"process", "socket"}  # which are everywhere
    minutes = [reading_s(lesson, code) / 60 for code in lesson.texts]
    assert all(5 < one < 15 for one in minutes) and max(minutes) / min(minutes) < 1.25
    assert all(command.rounds >= 6 or command.scenario == "surface" for command in lesson.commands)


def test_a_folder_is_a_lesson(tmp_path: Path) -> None:
    lesson = read(make(tmp_path / "mine"))
    assert [step.id for step in lesson.steps] == list(lesson.order) == ["measure", "choose"]
    assert lesson.steps[0].command is not None and lesson.steps[0].command.targets == ["process", "docker"]
    assert (lesson.steps[0].command.rounds, lesson.steps[0].command.warmup) == (10, 1)
    assert "# no heading" in lesson.section("measure", "en").question
    assert lesson.section("measure", "xx").parts == {"why": ("Why", "Since.")}
    assert lesson.digest != read(make(tmp_path / "other", text=TEXT + "more\n")).digest


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format = 1", "format = 2", "format"),
        ('name = "mine"', 'name = "../mine"', "name"),
        ('name = "mine"', 'name = "mine"\ncolour = "red"', "colour: there is no such key"),
        ('id = "choose"', 'id = "choose"\npoint = 2', "steps.1.point: there is no such key"),
        ('id = "choose"', 'id = "measure"', "'measure' is there twice"),
        ('id = "choose"', 'id = "choose"\nafter = ["none"]', "there is no step 'none'"),
        ('id = "choose"', 'id = "choose"\nuses = "choose"', "has no run"),
        ('id = "measure"', 'id = "measure"\nafter = ["choose"]', "in a circle: "),
        ('id = "measure"', 'id = "measure"\nafter = ["measure"]', "in a circle: "),
        ('correct = ["b"]', 'correct = ["c"]', "there is no choice c"),
        ('choices = ["a", "b"]', 'choices = ["a", "b", "c"]', "'choose' offers a, b, not a, b, c"),
        ("lab run boot", "rm -rf", "does not begin with: lab run SCENARIO"),
        ("lab run boot", "lab run bot", "bot"),
        ("--rounds 10", "--rounds ten", "'ten' is no number of rounds"),
        ("--rounds 10", "--image x", "and not '--image'"),
        ("-t process,docker", "-t process,dockr", "there is no driver for dockr"),
        ("-t process,docker", "-t process", "docker is none of the run's targets"),
        ("--rounds 10", "'", "No closing quotation"),
        ('unit = "s"', 'unit = "parsec"', "steps.0.predict.unit"),
        ('kind = "choice"', 'kind = "guess"', "steps.1.answer.kind"),
        ("[[steps]]", "[[steps", "is no TOML"),
    ],
)
def test_a_faulty_table_is_refused_in_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TABLE
    folder = make(tmp_path / "mine", table=TABLE.replace(old, new, 1))
    with pytest.raises(BadInput) as refused:
        read(folder)
    assert said in refused.value.brief and str(folder) in refused.value.brief
    assert "\n" not in refused.value.brief


def test_an_interval_needs_six_rounds_and_a_run(tmp_path: Path) -> None:
    answer = 'answer = { kind = "interval", row = { of = ["docker"], metric = "boot_s" } }'
    for table, said in (
        (TABLE.replace("--rounds 10", f'--rounds 5"\n{answer}\n#'), "an interval needs 6 rounds"),
        (TABLE + f'[[steps]]\nid = "last"\n{answer}\n', "its row is of a run"),
        (TABLE + f'[[steps]]\nid = "last"\nuses = "measure"\n{answer}\n', "must be among 'after'"),
    ):
        with pytest.raises(BadInput, match=said):
            read(make(tmp_path / "mine", table=table))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# Mine\n", "", "has no '# Title'"),
        ("## measure: Measure", "## Measure", "line 3: 'Measure' has no name"),
        ("## choose: Choose", "## chose: Choose", "it has no section '## choose: …'"),
        ("## choose: Choose", "## measure: Choose", "'measure' is there twice"),
        ("### why: Why", "### because: Why", "'because' is none of why, wrong, sources"),
        ("## choose: Choose", "# Choose", "there is one '# Title' only"),
        ("- `b`: other", "", "offers a, not a, b"),
    ],
)
def test_faulty_words_are_refused_in_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(BadInput) as refused:
        read(make(tmp_path / "mine", text=TEXT.replace(old, new, 1)))
    assert said in refused.value.brief and "text.en.md" in refused.value.brief


def test_nothing_outside_of_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text(TEXT)
    for name in ("text.en.md", "text.de.md", "lesson.toml"):
        folder = make(tmp_path / name.replace(".", "-"))
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("../secret.md")
        with pytest.raises(BadInput, match="leads out of the lesson's folder"):
            read(folder)
    folder = make(tmp_path / "loop")
    (folder / "text.en.md").unlink()
    (folder / "text.en.md").symlink_to("text.en.md")
    with pytest.raises(BadInput, match="cannot be read"):
        read(folder)


def test_what_is_no_folder_of_a_lesson_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    large, strange = make(tmp_path / "large"), make(tmp_path / "strange")
    (large / "text.en.md").write_text("x" * 300_001)
    (strange / "text.en.md").write_bytes(b"# \xff")
    alone = make(tmp_path / "alone")
    (alone / "text.en.md").unlink()
    for folder in (tmp_path / "absent", tmp_path / "empty", large, strange, alone, tmp_path / "alone" / "lesson.toml"):
        with pytest.raises(BadInput) as refused:
            find(str(folder))
        assert "\n" not in refused.value.brief
    with pytest.raises(BadInput) as refused:
        find("bot")
    assert refused.value.resolution == "did you mean 'boot'?"


@given(st.text(alphabet=st.sampled_from(list("#`-~: abwhy\n\t*")), max_size=120))
def test_any_words_are_read_or_refused(text: str) -> None:
    try:
        found = parse_text(text)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert found.title


@given(st.text(max_size=60))
def test_any_command_is_taken_apart_or_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_command(text)
    with pytest.raises(ValueError, match=r"."):
        parse_command(f"lab run {text or '-'} -t")
