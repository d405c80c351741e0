"""torchvision, torch's optimizers and DistributedDataParallel without torch's compiler: its import takes
longer than all the rest of a start, and nothing before a model's export compiles; torch.export imports it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

_PACKAGE, _UTILS = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def _compiler_on_demand() -> Iterator[None]:
    """Inside, the compiler is a stand-in with what is asked of it while torchvision 0.26 to 0.29 is imported
    and while a DistributedDataParallel is made."""
    if _PACKAGE in sys.modules:
        yield
        return
    package, utils = ModuleType(_PACKAGE), ModuleType(_UTILS)
    package.__path__ = []

    def is_compile_supported(device_type: str) -> bool:
        from torch._dynamo.utils import is_compile_supported

        return bool(is_compile_supported(device_type))

    vars(utils).update(
        is_compile_supported=is_compile_supported, get_optimize_ddp_mode=lambda: "ddp_optimizer"
    )
    vars(package).update(utils=utils)
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

__all__ = ["data_parallel", "resnet", "torchvision", "uncompiled"]

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
    return cast(_Kind, type(kind.__name__, (kind,), methods))


def data_parallel(net: nn.Module, **options: Any) -> DistributedDataParallel:
    """`DistributedDataParallel(net, **options)`, uncompiled in the same way."""
    with _compiler_on_demand():
        return _DataParallel(net, **options)


class _DataParallel(DistributedDataParallel):
    _inside_ddp_forward = contextmanager(inspect.unwrap(DistributedDataParallel._inside_ddp_forward))
