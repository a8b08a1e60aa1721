"""The lines of a memory table."""

from __future__ import annotations

import pytest

from lab.figures import density
from lab.figures.series import Series
from lab.show.table_memory import GROUPED, grouped


@pytest.mark.parametrize("metric", sorted(GROUPED))
def test_every_metric_that_is_grouped_has_a_name_in_its_group(metric: str) -> None:
    told = {"role": "shim", "part": "total", "version": "1", "process": "dockerd", "level": "1", "of": density.PSS}
    row = Series(
        target="docker",
        label="docker",
        metric=metric,
        unit="bytes",
        dimensions={**told, "after": "ready"},
        values=(1.0, 2.0),
    )
    ((title, name, shown),), nothing = grouped([row])
    assert title and name and shown is row and not nothing
