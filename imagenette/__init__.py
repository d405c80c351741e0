"""Image-classification experiments that can be believed."""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["Config", "augmentation", "compare", "load_champion", "optimizer", "runs", "study", "train"]

_PLACES = {
    "Config": ("imagenette.config", "Config"),
    "augmentation": ("imagenette.data.augment", "augmentation"),
    "compare": ("imagenette.report.pair", "compare_runs"),
    "load_champion": ("imagenette.api", "load_champion"),
    "optimizer": ("imagenette.config.plugin", "optimizer"),
    "runs": ("imagenette.report.frame", "runs"),
    "train": ("imagenette.api", "train"),
}
"""Name -> where it is. Imported when it is asked for: `import imagenette` itself costs nothing. `study` is
the folder of that name, which can be called."""


def __getattr__(name: str) -> Any:
    if name == "study":
        return importlib.import_module("imagenette.study")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, thing = _PLACES[name]
    return getattr(importlib.import_module(module), thing)
