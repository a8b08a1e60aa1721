"""`lab --help`: what it says, and what it does not wait for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lab.cli.main import app

HEAVY = [
    "scipy",
    "numpy",
    "plotly",
    "sqlalchemy",
    "pydantic",
    "rich",
    "pygments",
    "markdown_it",
    "httpx",
    "psutil",
    "docker",
    "libvirt",
    "lxml",
    "kubernetes",
    "yaml",
    "requests",
    "urllib3",
    "websocket",
    "asyncio",
    "importlib.metadata",
]
"""All that the lab or its drivers use beyond the command line itself."""

_TELLS_WHAT_IT_IMPORTED = """
import sys
sys.argv = ["lab", *sys.argv[1:]]
from lab.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sorted(sys.modules), sep="\\n", file=sys.stderr)
"""


def _run(*arguments: str) -> tuple[str, set[str]]:
    """What `lab` with these arguments prints, and every module that it imported for it."""
    command = [sys.executable, "-c", _TELLS_WHAT_IT_IMPORTED, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout, set(ran.stderr.split())


@pytest.fixture(scope="module")
def help_run() -> tuple[str, set[str]]:
    return _run("--help")


def test_help_imports_nothing_heavy(help_run: tuple[str, set[str]]) -> None:
    _, imported = help_run
    assert not imported & set(HEAVY)
    assert not imported & {"lab.cli.options", "lab.registry", "lab.run.runner", "lab.store.database", "lab.show.table"}
    assert not [name for name in imported if name.split(".")[0] in ("drivers", "scenarios")]


def test_the_list_of_heavy_modules_is_of_what_the_lab_uses() -> None:
    """A module that no longer exists under its name would be absent from `lab --help` for that reason alone."""
    _, imported = _run("scenarios")
    assert imported >= {"rich", "pydantic", "importlib.metadata"}


def test_the_list_of_runs_imports_nothing_that_makes_figures(tmp_path: Path) -> None:
    said, imported = _run("runs", "--store", str(tmp_path / "lab.db"))
    assert "no runs yet" in said
    assert not imported & {"scipy", "numpy", "lab.show.table", "lab.registry", "lab.run.runner"}
    assert not [name for name in imported if name.startswith("lab.figures")]


def test_help_lists_every_command_with_its_whole_summary(help_run: tuple[str, set[str]]) -> None:
    said = " ".join(help_run[0].split())
    for command in app.registered_commands:
        assert command.callback is not None
        summary = " ".join((command.callback.__doc__ or "").split())
        assert f"{command.name or command.callback.__name__} {summary}" in said


def test_help_has_no_markup_left_in_it(help_run: tuple[str, set[str]]) -> None:
    assert "[bold]" not in help_run[0] and "`lab doctor`" in help_run[0]
