"""One measured value, raw and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A value with its unit and its place in the run.

    `iteration` counts rounds from 0, warm-up rounds included; `warmup` samples are kept and left out of every
    figure. `dimensions` tell apart what may not share a row (`from`, `to`, `wait_method`, `accel`, ...).
    """

    target: str
    metric: str
    value: float
    unit: str
    iteration: int
    warmup: bool = False
    dimensions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimensions", MappingProxyType(dict(sorted(self.dimensions.items()))))
