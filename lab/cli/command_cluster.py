"""`lab cluster up|down|status`: the cluster that the lab makes once and uses again."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, cast

from rich.console import Console

from lab.driver import Context, Driver
from lab.errors import LabError, Unsupported
from lab.features import Clustered
from lab.registry import driver_class, driver_names, make_driver
from lab.spec import Target
from lab.store.place import cache_dir


def cluster_up(*, options: Mapping[str, str], as_json: bool) -> None:
    """Make the cluster, unless it is there, telling each step. Raises LabError."""
    console = Console(stderr=True)
    with _Clustered(options) as driver:
        _show(driver.cluster_up(lambda step: console.print(step, markup=False)), as_json)


def cluster_down(*, options: Mapping[str, str], as_json: bool) -> None:
    """Remove the cluster, where there is one. Raises LabError."""
    with _Clustered(options) as driver:
        removed = driver.cluster_down()
    if as_json:
        _show({"removed": removed}, as_json)
    else:
        Console().print("removed" if removed else "there is none")


def cluster_status(*, options: Mapping[str, str], as_json: bool) -> None:
    """Show what the cluster is. Raises LabError, with the remedy where there is none."""
    with _Clustered(options) as driver:
        _show(driver.cluster_status(), as_json)


class _Clustered:
    """The driver, of those registered, whose engine the lab can make; closed on leaving."""

    def __init__(self, options: Mapping[str, str]) -> None:
        name = next((name for name in driver_names() if _can(name)), None)
        if name is None:
            raise Unsupported(
                "no driver here has a cluster that the lab could make", resolution="pip install 'stratalab[kubernetes]'"
            )
        context = Context(run_dir=cache_dir(), cache_dir=cache_dir(), options=options)
        self._driver = make_driver(Target(name), context)

    def __enter__(self) -> Clustered:
        return cast("Clustered", self._driver)

    def __exit__(self, *_: object) -> None:
        self._driver.close()


def _can(name: str) -> bool:
    try:
        cls: type[Driver] = driver_class(name)
    except LabError:  # it is broken, and `lab doctor` says so
        return False
    return issubclass(cls, Clustered)


def _show(told: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(dict(told), indent=2) + "\n")
        return
    console = Console()
    for key, value in told.items():
        text = ", ".join(str(one) for one in value) if isinstance(value, list) else value
        console.print(f"{key.replace('_', ' ')}: {text}", markup=False, highlight=False)
