"""A GPU of fake tensors: no values, but each operation's devices and the order of its memory."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Hosts(TorchDispatchMode):
    """Notes the operations that take or give tensors of the CPU: on a GPU the step waits for such a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                self.found.append(str(func))
        return result


def fake(like: torch.Tensor) -> torch.Tensor:
    """Inside FakeTensorMode: a tensor like this one, on the GPU."""
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="cuda")


def move(net: nn.Module) -> None:
    """Inside FakeTensorMode: all parameters and buffers of the network to the GPU."""
    for module in net.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(fake(parameter))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)
