"""Studies: TOML definitions, their cells as rows of a database, workers that claim them, a driver a machine.

A cell is trained as the same Job that `imagenette train` runs, and its end is the same Result. The rows
decide what is done; Optuna's trials and MLflow's runs follow them. Never imports serving or server.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """`from imagenette import study` gives this folder, whose name is the verb's too."""

    def __call__(self, name: str, **options: Any) -> Any:
        """See `imagenette.study.call.study`."""
        from imagenette.study.call import study

        return study(name, **options)


sys.modules[__name__].__class__ = _Callable
