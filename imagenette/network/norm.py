"""Batch norm over a chosen set of images: groups of the local batch, or the global batch.

torchvision's networks take either as `norm_layer`. torch's own SyncBatchNorm refuses the CPU; this one
runs on both, and two processes then compute what one would.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class GroupedBatchNorm(nn.BatchNorm2d):
    """Normalizes each run of `group` images by its own statistics, as nn.DataParallel's replicas do. The
    running statistics follow the first group: the replicas' own were thrown away but device 0's."""

    group = 0

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.group == 0 or len(input) <= self.group:
            return super().forward(input)
        first, *others = groups(input, self.group)
        return torch.cat([super().forward(first), *map(self._normalize, others)])

    def _normalize(self, part: Tensor) -> Tensor:
        return F.batch_norm(part, None, None, self.weight, self.bias, training=True, eps=self.eps)


def groups(batch: Tensor, group: int) -> list[Tensor]:
    """Consecutive runs of `group` images. A last single image joins its neighbours: alone, its variance at
    1 x 1 px would be undefined."""
    parts = list(batch.split(group))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


class SyncBatchNorm(nn.BatchNorm2d):
    """Normalizes by the statistics of the global batch; sums and their gradients are reduced over ranks."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        x = input.float()
        local = torch.full((1,), x.numel() / x.shape[1], device=x.device)  # made there: a copy would wait
        total = sum_over_ranks(torch.cat([x.sum((0, 2, 3)), local]))
        mean, count = total[:-1] / total[-1], total[-1].detach()
        # The deviations need the mean first: E[x^2] - E[x]^2 in one pass would lose digits.
        variance = sum_over_ranks((x - mean[:, None, None]).square().sum((0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        normalized: Tensor = x * scale[:, None, None] + shift[:, None, None]
        return normalized.to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


class _SumOverRanks(torch.autograd.Function):
    """Every rank's loss depends on the sum, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(values: Tensor) -> Tensor:
    """Element-wise, differentiable."""
    total: Tensor = _SumOverRanks.apply(values)
    return total
