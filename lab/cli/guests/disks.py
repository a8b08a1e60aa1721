"""`lab guest build|list|remove`: the disk images of whole guests that are built here, or brought, and kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.driver import Context, Driver
from lab.errors import LabError, Unsupported
from lab.features import KeepsGuests
from lab.registry import driver_class, driver_names, make_driver
from lab.show.terminal import printable
from lab.spec import Target
from lab.store.place import cache_dir


def guest_build(suite: str, *, mirror: str, again: bool, as_json: bool) -> None:
    """Build the image, unless it is there, telling each step. Raises LabError."""
    console = Console(stderr=True)
    with _keeper() as driver, _telling(console) as say:
        told = driver.guest_build(suite, say, mirror=mirror, again=again)
    if as_json:
        _print_json(told)
    else:
        Console().print(_table([told]))


def guest_list(*, as_json: bool) -> None:
    """Show every image that is kept. Raises LabError."""
    with _keeper() as driver:
        found = driver.guest_images()
    if as_json:
        _print_json(found)
    elif found:
        Console().print(_table(found))
    else:
        Console().print("there is none: lab guest build", highlight=False)


def guest_remove(name: str, *, as_json: bool) -> None:
    """Remove one. Raises LabError, BadInput where there is none of that name."""
    with _keeper() as driver:
        told = driver.guest_remove(name)
    if as_json:
        _print_json(told)
    else:
        line = f"removed {told['name']} ({told['bytes'] / 1e6:.0f} MB)"
        Console().print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _keeper() -> Iterator[KeepsGuests]:
    """The driver, of those registered, that keeps guests' images; closed on leaving. Raises Unsupported."""
    name = next((name for name in driver_names() if _keeps(name)), None)
    if name is None:
        raise Unsupported("no driver here has whole guests", resolution="pip install 'stratalab[libvirt]'")
    driver = make_driver(Target(name), Context(run_dir=cache_dir(), cache_dir=cache_dir()))
    try:
        yield cast("KeepsGuests", driver)
    finally:
        driver.close()


def _keeps(name: str) -> bool:
    try:
        cls: type[Driver] = driver_class(name)
    except LabError:  # it is broken, and `lab doctor` says so
        return False
    return issubclass(cls, KeepsGuests)


@contextmanager
def _telling(console: Console) -> Iterator[Callable[[str], None]]:
    """A line for each step, and on a terminal that it goes on."""

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if not console.is_terminal:
        yield line
        return
    with console.status("") as status:

        def step(text: str) -> None:
            line(text)
            status.update(text[:60])

        yield step


def _table(found: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("guest image", no_wrap=True)
    for title in ("what", "its kernel", "on disk", "made"):
        table.add_column(title)
    for one in found:
        made = one["made_at"][:10] + ("" if one["current"] else ", of another lab: build it again")
        what = printable(one["what"])  # a file's name, or what a server calls it
        size = f"{one['bytes'] / 1e6:.0f} MB"
        table.add_row(Text(one["name"][:16]), Text(what), Text(one["facts"].get("kernel", "")), size, made)
    return table


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
