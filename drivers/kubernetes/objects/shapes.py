"""What a target's instances are in a cluster, as its variant says: a pod, or an object that makes one, and of which
RuntimeClass."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from lab.errors import Unsupported

_RUNTIME_CLASS = "runtimeclass="
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""A DNS subdomain, as the name of a RuntimeClass is (k8s.io/kubernetes, pkg/apis/node/validation)."""


class Shape(enum.StrEnum):
    """The object that is made."""

    POD = ""
    DEPLOYMENT = "deployment"
    JOB = "job"
    VMI = "vmi"


_SHAPES = frozenset(shape.value for shape in Shape if shape.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A variant, taken apart: `deployment`, `runtimeclass=kata`, or both by a `+`."""

    shape: Shape = Shape.POD
    runtime_class: str = ""

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Raises Unsupported for what is no variant."""
        shape, runtime_class = Shape.POD, ""
        for word in text.split("+") if text else ():
            if word.startswith(_RUNTIME_CLASS) and _NAME.fullmatch(word.removeprefix(_RUNTIME_CLASS)):
                runtime_class = word.removeprefix(_RUNTIME_CLASS)
            elif word in _SHAPES:
                shape = Shape(word)
            else:
                raise Unsupported(
                    f"kubernetes has no variant '{text}'",
                    resolution="a RuntimeClass is kubernetes:runtimeclass=NAME; see `lab targets`",
                )
        return cls(shape=shape, runtime_class=runtime_class)
