"""Image-classification experiments that can be believed."""

import importlib
from typing import Any

__version__ = "0.1.0"

_FUNCTIONS = {"compare": ("imagenette.report.pair", "compare_runs")}
"""Name -> where it is. Imported when it is asked for: `import imagenette` itself costs nothing."""


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, function = _FUNCTIONS[name]
    return getattr(importlib.import_module(module), function)
