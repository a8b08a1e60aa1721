"""docs/glossary.md: no metric, dimension, column, phase, option or parameter lacks its line.

What there is is collected from where it is made, never from a list kept for this test: metrics from the tables in the
docstrings of the registered scenarios' modules and from the calls of `emit`, columns from the calls that make tables.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from lab import registry
from lab.cli.main import app
from lab.figures import density, series
from lab.figures.compared import Verdict
from lab.figures.nights.confirm import Outcome as Confirmation
from lab.figures.nights.verdict import State
from lab.show import table_memory
from lab.store.record import Outcome, RunStatus
from lab.timeline import Phase

ROOT = Path(__file__).parents[3]
GLOSSARY = ROOT / "docs" / "glossary.md"
_ENTRY = re.compile(r"- ((?:[`*]+[^`*]+[`*]+(?:, )?)+): (\S.*)")
_TABLE_MAKERS = {"_table", "plain_table", "_compared_table", "Table", "add_column"}


def _glossary() -> dict[str, dict[str, str]]:
    """By section, each word and what is said of it."""
    sections: dict[str, dict[str, str]] = {}
    for line in GLOSSARY.read_text().splitlines():
        if line.startswith("## "):
            section = sections.setdefault(line.removeprefix("## "), {})
        elif line.startswith("- "):
            found = _ENTRY.fullmatch(line)
            assert found, f"no entry: {line}"
            for word in re.findall(r"`([^`]+)`|\*\*([^*]+)\*\*", found[1]):
                assert "".join(word) not in section, f"twice: {word}"
                section["".join(word)] = found[2]
    return sections


def _trees(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text())


def _calls(tree: ast.AST, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in names:
                yield node


def _scenario_modules() -> list[Any]:
    made = [registry.make_scenario(name) for name in registry.scenario_names()]
    return [inspect.getmodule(type(one)) for one in made]


def _metric_cells() -> Iterator[str]:
    """The first cell of each row of the docstrings' tables, and the head of a row, which may name a dimension."""
    for module in _scenario_modules():
        cells = [line.split("|")[1] for line in (module.__doc__ or "").splitlines() if line.startswith("|")]
        assert cells, f"{module.__name__} says of no metric what it is"
        yield from cells


def _metrics() -> set[str]:
    found = {name for cell in _metric_cells() for name in re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", cell))}
    for _, tree in _trees("scenarios", "lab"):
        for call in _calls(tree, {"emit"}):
            if call.args and isinstance(call.args[0], ast.Constant):
                found.add(call.args[0].value)
    derived = {density.LEVEL, density.MARGINAL, density.PART, series.ABSENT, series.FACT}
    return found | series.EXPLAINING | series.RAW | series.COUNTED | derived


def _keys(node: ast.AST) -> set[str]:
    dicts = [one for one in ast.walk(node) if isinstance(one, ast.Dict)]
    return {key.value for one in dicts for key in one.keys if isinstance(key, ast.Constant)}


def _dimensions() -> set[str]:
    """Of `emit`'s keywords, of the mappings that it is given by `**`, of the docstrings, and what engines add."""
    found = {series.SEEN, series.WAIT_METHOD, "cache"}
    for cell in _metric_cells():
        for told in re.findall(r"\(([^)]*)\)", cell):
            found |= set(re.findall(r"(?<!=)`(\w+)`", re.sub(r"=(`\w+`(, )?)+", "=", told)))
    for _, tree in _trees("scenarios", "lab"):
        for call in _calls(tree, {"emit"}):
            for keyword in call.keywords:
                if keyword.arg is not None:
                    found.add(keyword.arg)
                elif isinstance(keyword.value, ast.Name):
                    for node in ast.walk(tree):
                        if isinstance(node, ast.Assign) and keyword.value.id in map(ast.unparse, node.targets):
                            found |= _keys(node.value)
                else:
                    found |= _keys(keyword.value)
    for _, tree in _trees("drivers"):
        for call in _calls(tree, {"Info"}):
            found |= {key for keyword in call.keywords if keyword.arg == "qualifiers" for key in _keys(keyword.value)}
    return found


def _headings(node: ast.expr, module: Mapping[str, Any], local: Mapping[str, list[ast.expr]]) -> set[str]:
    """The words that an argument of a table's maker may be; none for what is not known before a run is shown."""
    inner: list[ast.expr] = []
    match node:
        case ast.Constant(value=str(word)):
            return {word}
        case ast.Name(id=name) if name in local:
            inner, local = local[name], {other: value for other, value in local.items() if other != name}
        case ast.Starred(value=value):
            inner = [value]
        case ast.List(elts=values) | ast.Tuple(elts=values) | ast.BoolOp(values=values):
            inner = values
        case ast.IfExp(body=one, orelse=other):
            inner = [one, other]
        case ast.Name() | ast.JoinedStr() | ast.Call():
            try:
                value = eval(ast.unparse(node), dict(module))  # noqa: S307  the lab's own source
            except NameError:
                return _returned(node, module) if isinstance(node, ast.Call) else set()
            return {value} if isinstance(value, str) else {word for word in value if isinstance(word, str)}
    return {word for one in inner for word in _headings(one, module, local)}


def _returned(call: ast.Call, module: Mapping[str, Any]) -> set[str]:
    """The words that the called function may return."""
    try:
        called = inspect.unwrap(eval(ast.unparse(call.func), dict(module)))  # noqa: S307  as above
    except NameError:
        return set()
    if not inspect.isfunction(called):
        return set()
    returns = [node for node in ast.walk(ast.parse(inspect.getsource(called))) if isinstance(node, ast.Return)]
    theirs = vars(inspect.getmodule(called))
    return {word for node in returns if node.value is not None for word in _headings(node.value, theirs, {})}


def _columns() -> set[str]:
    found = {"target", "metric", "value", "unit", "iteration", "warmup"}  # of the CSV, beside its dimensions
    for path, tree in _trees("lab/show", "lab/cli"):
        module = vars(import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)))
        local: dict[str, list[ast.expr]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                local.setdefault(node.targets[0].id, []).append(node.value)
        for call in _calls(tree, _TABLE_MAKERS):
            # A table of a page is given its headings as one list, and then its rows.
            headings = call.args[:1] if path.name.startswith("report") else call.args
            found |= {word for one in headings for word in _headings(one, module, local)}
    return {word for word in found if word}


def _commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield f"{path}{name}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path}{name} ")


def _options() -> Iterator[tuple[str, str, str]]:
    """Each option of each command: the command, the option's longest name, and its words in `--help`."""
    root: Any = typer.main.get_command(app)
    for name, command in [("", root), *_commands(root)]:
        for parameter in command.params:
            if parameter.param_type_name == "option":
                yield name, max(parameter.opts, key=len), parameter.help


def _missing(section: str, words: set[str]) -> list[str]:
    return sorted(words - set(_glossary()[section]))


def test_every_metric_has_its_line() -> None:
    metrics = _metrics()
    assert {"boot_s", "phase_s", "marginal_bytes", "slowdown_p99_9", "request_s", "calls_tried"} <= metrics
    assert not _missing("Metrics", metrics)


def test_every_dimension_has_its_line() -> None:
    dimensions = _dimensions()
    assert {"from", "to", "chain", "wait_method", "accel", "route", "seen", "of", "policy", "antagonist"} <= dimensions
    assert not _missing("Dimensions", dimensions)


def test_every_column_has_its_line() -> None:
    columns = _columns()
    known = {"median", "95 % interval", "range", "n", "failed", "x process", "over process", "B / A", "p (Holm)"}
    assert known | {"CPU of waiting", "will be", "instances per GiB", "range or quantiles", "started (UTC)"} <= columns
    assert not _missing("Columns", columns - _metrics())


def test_every_phase_has_its_line() -> None:
    assert not _missing("Phases", set(Phase))


@pytest.mark.parametrize("kind", [Outcome, RunStatus, Verdict, State, Confirmation])
def test_every_word_for_an_end_has_its_line(kind: type[enum.StrEnum]) -> None:
    assert not _missing("Ends and verdicts", set(kind))


def test_every_option_has_its_line_with_the_words_of_help() -> None:
    told = _glossary()["Options"]
    options = list(_options())
    assert {"--rounds", "--driver-option", "--fail-on-regression"} <= {name for _, name, _ in options}
    lacking = {f"- `{name}`: {words}" for _, name, words in options if words not in told.get(name, "")}
    assert not sorted(lacking), "the lines that docs/glossary.md needs, by what --help says"


def test_every_parameter_of_a_scenario_has_its_line() -> None:
    described = registry.describe_scenarios()
    assert not _missing("Parameters", {name for one in described for name in one["parameters"]})


def test_every_scenario_and_driver_has_its_line() -> None:
    assert not _missing("Scenarios", set(registry.scenario_names()))
    assert not _missing("Drivers", set(registry.driver_names()))


def test_nothing_is_explained_that_is_not_there() -> None:
    told = _glossary()
    assert set(told["Metrics"]) <= _metrics()
    assert set(told["Options"]) <= {name for _, name, _ in _options()}
    assert set(told["Phases"]) == set(Phase)
    assert set(told["Parameters"]) <= {name for one in registry.describe_scenarios() for name in one["parameters"]}


@pytest.mark.parametrize("word", ["target", "phase", "ready", "warm-up", "interval", "company", "marginal", "round"])
def test_the_words_that_everything_else_is_told_with_are_there(word: str) -> None:
    told = _glossary()
    assert word in told["Words"] or word in told["Phases"]


def test_every_line_of_a_memory_table_has_its_line() -> None:
    titles = {title for title, _ in table_memory._GROUPS}
    assert set(_glossary()["Lines of a memory table"]) == titles
