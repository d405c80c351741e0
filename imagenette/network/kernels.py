"""Gradients of convolutions that torch's own kernels for the CPU compute slowly, by one matrix product.

The gradient of a 3 x 3 filter is a sum over all places of a map. oneDNN divides that work by places, of which
maps of 4 x 4 px and smaller, and strides of 2, have few: its kernel then takes several times as long as the
forward pass. Written as one product, of the output's gradient and of the windows that the filter saw, it is
as fast as any product of matrices, for the price of copying each window.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_gradients = torch.ops.aten.convolution_backward


class Conv2d(nn.Conv2d):
    """In training on a CPU, its weights' gradient is computed as said above where that is faster; everything
    else is nn.Conv2d's."""

    def forward(self, input: Tensor) -> Tensor:
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        if not self.training or not pays(self, input, kind):
            return super().forward(input)
        output: Tensor = _Convolution.apply(input.to(kind), self.weight.to(kind), self.stride, self.padding)
        return output


def use(net: nn.Module) -> None:
    """Put them in the place of a network's plain convolutions, in place: weights, names and modes stay."""
    for module in net.modules():
        if type(module) is nn.Conv2d and _plain(module):
            module.__class__ = Conv2d


@contextmanager
def stock(net: nn.Module) -> Iterator[None]:
    """Within it the network computes by torch's own kernels alone."""
    ours: list[nn.Module] = [module for module in net.modules() if type(module) is Conv2d]
    for module in ours:
        module.__class__ = nn.Conv2d
    try:
        yield
    finally:
        for module in ours:
            module.__class__ = Conv2d


def _plain(conv: nn.Conv2d) -> bool:
    """Whether it is what a ResNet is made of."""
    return (
        conv.kernel_size == (3, 3)
        and conv.padding == (1, 1)
        and conv.stride in ((1, 1), (2, 2))
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.bias is None
        and conv.padding_mode == "zeros"
    )


def pays(conv: nn.Conv2d, input: Tensor, kind: torch.dtype) -> bool:
    """Whether the product is the faster one, as measured (benchmarks/kernels.py). kind: computed in it."""
    stride = conv.stride[0]
    side = -(-max(input.shape[2:]) // stride)  # of the output, px
    return input.device.type == "cpu" and side <= stride * (4 if kind is torch.bfloat16 else 2)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.shape = stride, padding
        return F.conv2d(input, weight, stride=stride, padding=padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        input, weight = ctx.saved_tensors
        stride, padding = ctx.shape
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            geometry = (stride, padding, (1, 1), False, (0, 0), 1)
            of_input = _gradients(gradient, input, weight, None, *geometry, (True, False, False))[0]
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(gradient, input, stride=stride[0], padding=padding[0])
        return of_input, of_weight, None, None


def weight_gradient(gradient: Tensor, input: Tensor, *, stride: int, padding: int, side: int = 3) -> Tensor:
    """Of a convolution with filters of side x side px.

    gradient: of the output, [n, out, h', w']; input: [n, in, h, w]. Returns [out, in, side, side]."""
    images = F.pad(input.permute(0, 2, 3, 1), (0, 0, *(4 * [padding]))).contiguous()
    places = gradient.permute(0, 2, 3, 1)
    n, height, width, out = places.shape
    across = images.stride()
    windows = images.as_strided(
        (n, height, width, side, side, images.shape[3]),
        (across[0], stride * across[1], stride * across[2], *across[1:]),
    ).reshape(n * height * width, -1)
    product = places.reshape(-1, out).T @ windows
    return product.view(out, side, side, -1).permute(0, 3, 1, 2)
