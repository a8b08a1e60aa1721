"""The house's order that import-linter does not hold: no circle, no crowded folder, nothing outside the floors."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
MOST_AT_THE_TOP = 10
MOST_IN_A_FOLDER = 16


def circle(*packages: str) -> Sequence[str]:
    """Modules that import each other in a circle, within functions and for type checking included."""
    graph = grimp.build_graph(*packages, cache_dir=None)
    uses = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as found:
        return list(found.args[1])
    return []


def files_by_folder(root: Path, *tops: str) -> Mapping[str, int]:
    """How many files each folder has beside its face, `__init__.py`."""
    found = {}
    for top in tops:
        for folder in (root / top, *(root / top).rglob("*/")):
            files = {path.name for path in folder.iterdir() if path.suffix in (".py", ".c", ".h")}
            found[str(folder.relative_to(root))] = len(files - {"__init__.py"})
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle("lab", "drivers", "scenarios") == []


@pytest.mark.parametrize(
    "last",
    [
        "import house.a\n",
        "def f() -> None:\n    from house import a\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.a import x\n",
    ],
)
def test_a_circle_is_seen_wherever_the_import_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    house = tmp_path / "house"
    (house / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py"):
        (house / name).touch()
    (house / "a.py").write_text("from house.inner.b import y\nx = 1\n")
    (house / "inner/b.py").write_text(last + "y = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"house.a", "house.inner.b"} <= set(circle("house"))
    (house / "inner/b.py").write_text("y = 1\n")
    assert circle("house") == []


def test_no_folder_is_crowded() -> None:
    files = files_by_folder(ROOT, "lab", "drivers", "scenarios")
    assert files["lab"] + 1 <= MOST_AT_THE_TOP  # with its face
    assert len(files) > 20
    assert {folder: count for folder, count in files.items() if count > MOST_IN_A_FOLDER} == {}


def test_every_room_has_its_floor() -> None:
    """A module or folder of `lab` that the contract does not name could import whatever it likes."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = [one for one in settings["contracts"] if one["type"] == "layers" and "containers" not in one]
    on_a_floor = {name.strip() for floor in contract["layers"] for name in re.split("[|:]", floor)}
    rooms = {f"lab.{path.stem}" for path in (ROOT / "lab").iterdir() if path.suffix == ".py" or _is_package(path)}
    entrances = {"lab.__init__", "lab.__main__"}  # which nothing imports
    assert rooms - entrances == {name for name in on_a_floor if name.startswith("lab.")}
    assert set(settings["root_packages"]) <= {name.partition(".")[0] for name in on_a_floor}


def _is_package(path: Path) -> bool:
    return (path / "__init__.py").exists()
