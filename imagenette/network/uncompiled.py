"""torchvision, and torch's optimizers, without torch's compiler: its import takes longer than all the rest
of a start, and nothing before a model's export compiles. Whoever needs it (torch.export, DDP) does so then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

import torch

_PACKAGE, _UTILS = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def _compiler_on_demand() -> Iterator[None]:
    """Inside, `from torch._dynamo.utils import is_compile_supported`, all that torchvision 0.26 to 0.29 takes
    from the compiler while it is imported, gives a function that imports it when it is called."""
    if _PACKAGE in sys.modules:
        yield
        return
    package, utils = ModuleType(_PACKAGE), ModuleType(_UTILS)
    package.__path__ = []

    def is_compile_supported(device_type: str) -> bool:
        from torch._dynamo.utils import is_compile_supported

        return bool(is_compile_supported(device_type))

    utils.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {_PACKAGE: package, _UTILS: utils}
    try:
        yield
    finally:
        for name, module in {_PACKAGE: package, _UTILS: utils}.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


try:
    with _compiler_on_demand():
        import torchvision
        from torchvision.models import resnet
except ImportError:  # it takes more from the compiler than that: then as slowly as everybody
    import torchvision
    from torchvision.models import resnet

__all__ = ["resnet", "torchvision", "uncompiled"]

_Kind = TypeVar("_Kind", bound=type[torch.optim.Optimizer])


def uncompiled(kind: _Kind) -> _Kind:
    """An optimizer's class with the same methods, but for torch's wrappers, which import the compiler at the
    first call to tell it to leave them alone. Its state_dict is the same."""
    methods = {}
    for name in ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict"):
        method = getattr(kind, name)
        inner = getattr(method, "__wrapped__", None)
        if inner is not None and method.__module__.startswith("torch."):
            methods[name] = torch.no_grad()(inner) if name == "step" else inner
    return type(kind.__name__, (kind,), methods)  # type: ignore[return-value]
