"""The pages for readers: what they name is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FOLDERS = ("docs", "drivers", "findings", "lab", "scenarios", "tests", "vagrant")
_PATH = re.compile(rf"(?<![\w./-])((?:{'|'.join(_FOLDERS)})/[\w./-]*\w)")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def _exists(name: str) -> bool:
    return any((ROOT / one).exists() for one in (name, f"{name}.py"))  # a module on a floor is named without its ending


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    named = {name for name in _PATH.findall(page.read_text()) if "NAME" not in name}
    assert not sorted(name for name in named if not _exists(name))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert not [name for name in _LINK.findall(page.read_text()) if not (page.parent / name).exists()]


def test_the_readme_leads_to_every_page() -> None:
    linked = set(_LINK.findall((ROOT / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


def test_the_picture_of_the_floors_has_those_that_are_held() -> None:
    picture = (ROOT / "docs" / "architecture.md").read_text().split("```")[1]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one["type"] == "layers" and "containers" not in one)
    places = []
    for layer in layers:
        names = [name.replace(".", "/") for name in re.split(r" [|:] ", layer)]
        assert not [name for name in names if name not in picture]
        places.append([picture.index(name) for name in names])
    first = [min(found) for found in places]
    assert first == sorted(first)


def test_every_room_of_the_lab_is_in_the_picture() -> None:
    picture = (ROOT / "docs" / "architecture.md").read_text().split("```")[1]
    rooms = [path for path in (ROOT / "lab").iterdir() if path.is_dir() or path.suffix == ".py"]
    names = {f"lab/{path.stem}" for path in rooms if not path.stem.startswith("__")}
    assert not sorted(name for name in names if name not in picture)
