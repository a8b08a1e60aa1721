"""NumPy for figures of many values, imported where it is needed."""

from __future__ import annotations

import os
import sys
from types import ModuleType

_THREADS = "OPENBLAS_NUM_THREADS"


def numpy() -> ModuleType:
    """The module, with one thread where it has not been imported yet and the user does not say how many: to start one
    for each CPU takes as long as all else of the import, and products of some thousand values gain nothing by it."""
    if "numpy" not in sys.modules and _THREADS not in os.environ:
        os.environ[_THREADS] = "1"
        try:
            import numpy as np
        finally:
            del os.environ[_THREADS]  # it is no business of what the lab launches
    import numpy as np

    return np
