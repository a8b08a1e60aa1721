"""The host's control instance: bounded by itself, however short it is asked to be."""

from __future__ import annotations

import psutil
import pytest

from lab.service.control import control


@pytest.mark.parametrize(("seconds", "bound"), [(0.2, "1"), (1.2, "2"), (30, "30")])
def test_no_part_of_a_second_makes_it_endless_or_shorter(seconds: float, bound: str, labels: dict[str, str]) -> None:
    with control(labels, seconds=seconds):
        (bounded,) = [child for child in psutil.Process().children() if child.name() == "timeout"]
        assert bounded.cmdline()[1:4] == ["-s", "KILL", bound]
