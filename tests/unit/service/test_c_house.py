"""The order that the service's C sources are kept in: no circle of includes or of calls, and folders that stand on
those below them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from lab.service.build import PROGRAMS, SOURCE_DIR, available_compilers, source_files

Graph = Mapping[str, Set[str]]
"""For each file, those that it uses."""

MOST_FILES = 16
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
_NAMED = re.compile(r"\b(?:struct|enum)\s+(\w+)\s*{|#\s*define\s+(\w+)|\b(\w+)\s*\(")
_EXTERN = re.compile(r"\bextern\b([^;]*);")
_VARIABLE = re.compile(r"(\w+)\s*(?:\[\])?\s*(?:,|$)")


def code(path: Path) -> str:
    return _COMMENT.sub(" ", path.read_text())


def includes(root: Path, files: Sequence[str]) -> Graph:
    """What each of `files` includes of its own; all is named from `root`, as the compiler is told."""
    return {file: set(_INCLUDE.findall(code(root / file))) for file in files}


def calls(root: Path, files: Sequence[str], objects: Path) -> Graph:
    """Which of the C files use a function or a variable of which, as their objects' symbols tell."""
    compilers, nm = available_compilers(), shutil.which("nm")
    if not compilers or nm is None:
        pytest.skip("the symbols of objects are told by nm, which comes with gcc: apt-get install gcc")
    made = {}  # the file by its object
    objects.mkdir()
    for file in (file for file in files if file.endswith(".c")):
        path = str(objects / f"{file.replace('/', '-')}.o")
        command = [*compilers[0].command, "-std=c11", "-D_GNU_SOURCE", "-I.", "-O0", "-c", "-o", path, file]
        subprocess.run(command, cwd=root, check=True, timeout=60)
        made[path] = file

    def symbols(which: str) -> Iterator[tuple[str, str]]:
        command = [nm, "--extern-only", "--format=posix", "--print-file-name", which, *made]
        said = subprocess.run(command, capture_output=True, check=True, timeout=60)
        for line in said.stdout.decode().splitlines():
            where, name = line.split()[:2]
            yield made[where.removesuffix(":")], name

    defined_in = {name: file for file, name in symbols("--defined-only")}
    graph: dict[str, set[str]] = {file: set() for file in made.values()}
    for file, name in symbols("--undefined-only"):
        if name in defined_in:
            graph[file].add(defined_in[name])
    return graph


def circle(graph: Graph) -> list[str]:
    """Files of which each uses the one behind it, from one to itself again; empty where there is no such circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # graphlib tells who is used first
    return []


def upward(graph: Graph, folders: Sequence[str]) -> list[tuple[str, str]]:
    """Each use of a file in a folder above one's own, or in a folder that is none of `folders`."""
    floor = {folder: at for at, folder in enumerate(folders)}

    def of(file: str) -> int:
        return floor.get(str(Path(file).parent), len(floor))

    return sorted((file, used) for file, all_used in graph.items() for used in all_used if of(used) > of(file))


def idle(root: Path, graph: Graph) -> Iterator[tuple[str, str]]:
    """Each include of a header of which nothing is named in the file that includes it."""
    for file, headers in graph.items():
        words = set(re.findall(r"\w+", _INCLUDE.sub("", code(root / file))))
        for header in headers:
            text = code(root / header)
            named = {name for found in _NAMED.findall(text) for name in found}
            variables = {name for names in _EXTERN.findall(text) for name in _VARIABLE.findall(names)}
            if not (named | variables) & words:
                yield file, header


@pytest.fixture(scope="session")
def called(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Graph]:
    """Each program's calls."""
    objects = tmp_path_factory.mktemp("objects")
    return {program: calls(SOURCE_DIR, source_files(program), objects / program) for program in PROGRAMS}


# The sources.


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_file_includes_itself_by_others_nor_one_of_a_folder_above(program: str) -> None:
    graph = includes(SOURCE_DIR, source_files(program))
    assert {file for used in graph.values() for file in used} <= set(graph)
    assert circle(graph) == []
    assert upward(graph, PROGRAMS[program]) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_file_calls_itself_by_others_nor_one_of_a_folder_above(program: str, called: Mapping[str, Graph]) -> None:
    assert circle(called[program]) == []
    assert upward(called[program], PROGRAMS[program]) == []


def test_what_is_called_is_seen(called: Mapping[str, Graph]) -> None:
    assert "server/connections.c" in called["service"]["server/children.c"]  # a function
    assert "tasks/troubles.c" in called["service"]["tasks/lifecycle.c"]  # a variable
    there = {file for graph in called.values() for file in graph}
    used = {file for graph in called.values() for several in graph.values() for file in several}
    programs = {"service/main.c", "pid1/init.c", "cgroup/enter.c", "sandbox/inside.c", "activation/activator.c"}
    assert there - used == programs


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_header_is_included_for_nothing(program: str) -> None:
    assert list(idle(SOURCE_DIR, includes(SOURCE_DIR, source_files(program)))) == []


def test_every_source_belongs_to_a_program() -> None:
    there = {path.relative_to(SOURCE_DIR).as_posix() for path in SOURCE_DIR.rglob("*") if path.is_file()}
    assert there == {file for program in PROGRAMS for file in source_files(program)}


def test_folders_stay_small_and_no_file_only_repeats_its_folder_s_name() -> None:
    files = {Path(file) for program in PROGRAMS for file in source_files(program)}
    assert {folder: count for folder, count in Counter(f.parent for f in files).items() if count > MOST_FILES} == {}
    assert [file for file in files if file.stem == file.parent.name] == []


# The checks, on sources made for them.


def test_a_circle_of_calls_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("extern int told;\nint asked(void)\n{\n    return told;\n}\n")
    (tmp_path / "b.c").write_text("int asked(void);\nint told;\nint ask(void)\n{\n    return asked();\n}\n")
    (tmp_path / "c.c").write_text("int ask(void);\nint main(void)\n{\n    return ask();\n}\n")
    graph = calls(tmp_path, ["a.c", "b.c", "c.c"], tmp_path / "objects")
    assert graph == {"a.c": {"b.c"}, "b.c": {"a.c"}, "c.c": {"b.c"}}
    assert circle(graph) in (["a.c", "b.c", "a.c"], ["b.c", "a.c", "b.c"])


def test_a_function_that_is_handed_over_makes_no_circle(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int asked(int (*handed)(void))\n{\n    return handed();\n}\n")
    (tmp_path / "b.c").write_text(
        "int asked(int (*)(void));\nint told(void)\n{\n    return 1;\n}\nint ask(void)\n{\n    return asked(told);\n}\n"
    )
    graph = calls(tmp_path, ["a.c", "b.c"], tmp_path / "objects")
    assert graph == {"a.c": set(), "b.c": {"a.c"}}
    assert circle(graph) == []


def test_a_circle_of_includes_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.h").write_text('#include "b.h"\n')
    (tmp_path / "b.h").write_text('  # include "a.h"\n/*\n#include "c.h"\n*/\n#include <stdio.h>\n')
    graph = includes(tmp_path, ["a.h", "b.h"])
    assert graph == {"a.h": {"b.h"}, "b.h": {"a.h"}}
    assert circle(graph) in (["a.h", "b.h", "a.h"], ["b.h", "a.h", "b.h"])


def test_a_use_of_a_folder_above_or_unknown_is_found() -> None:
    graph = {"low/a.c": {"high/b.c", "low/c.c"}, "high/b.c": {"low/a.c", "elsewhere/d.c"}}
    assert upward(graph, ["low", "high"]) == [("high/b.c", "elsewhere/d.c"), ("low/a.c", "high/b.c")]


def test_a_header_of_which_nothing_is_used_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.h").write_text("/* The used. */\nint used(int other);\n")
    (tmp_path / "b.h").write_text("#define UNUSED 1\n")
    (tmp_path / "a.c").write_text('#include "a.h"\n#include "b.h"\nint one = used(1); /* UNUSED */\n')
    assert list(idle(tmp_path, includes(tmp_path, ["a.c"]))) == [("a.c", "b.h")]
