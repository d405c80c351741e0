"""Muon: momentum whose singular values are all made about 1 before it moves a filter (Jordan et al. 2024).

torch.optim.Muon takes matrices only, and nearly all weights of a ResNet are filters; this one takes a filter
as a matrix [out, in * height * width]. It iterates on the small Gram matrix, which for a filter of 512 x 4608
costs a third of the arithmetic of iterating on the filter itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from imagenette.network.uncompiled import uncompiled

PLAIN_RATE = 2.0  # rate of what is not orthogonalized, as a multiple of the filters'
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic: steep at 0, between 0.7 and 1.2 near 1
ITERATIONS = 3


class Muon(torch.optim.Optimizer):
    """Filters (four dimensions) move by their orthogonalized Nesterov momentum; everything else, the head and
    the vectors, by plain Nesterov momentum at PLAIN_RATE times the rate. Weight decay is decoupled."""

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float | Tensor,
        momentum: float,
        nesterov: bool = True,
        bfloat16: bool = False,
    ) -> None:
        """bfloat16: whether the two large products of each step may be rounded to it, which halves their
        time."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.0})
        self._products = torch.bfloat16 if bfloat16 else torch.float32

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # returns no loss
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            filters = [p for p in moved if p.ndim == 4]
            others = [p for p in moved if p.ndim != 4]
            if filters:
                _move(filters, self._orthogonal(filters, group), group["lr"], group["weight_decay"])
            if others:
                _move(others, self._momentum(others, group), PLAIN_RATE * group["lr"], group["weight_decay"])

    def _momentum(self, params: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Each parameter's gradient with its momentum, which this call updates."""
        grads = [p.grad for p in params if p.grad is not None]
        for p in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momentum = [self.state[p]["momentum"] for p in params]
        torch._foreach_mul_(momentum, group["momentum"])
        torch._foreach_add_(momentum, grads)
        if not group["nesterov"]:
            return momentum
        return list(torch._foreach_add(grads, momentum, alpha=group["momentum"]))

    def _orthogonal(self, filters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """The filters' steps at rate 1; those of one shape are computed together."""
        directions = self._momentum(filters, group)
        alike: dict[torch.Size, list[int]] = defaultdict(list)
        for i, direction in enumerate(directions):
            alike[direction.shape].append(i)
        for shape, places in alike.items():
            made = orthogonalize(torch.stack([directions[i].flatten(1) for i in places]), self._products)
            made *= max(1, shape[0] / shape[1:].numel()) ** 0.5
            for i, matrix in zip(places, made, strict=True):
                directions[i] = matrix.view(shape)
        return directions


def muon(
    groups: Iterable[dict[str, Any]], *, lr: float | Tensor, momentum: float, nesterov: bool, bfloat16: bool
) -> Muon:
    """As `config.OPTIMIZERS` names it."""
    return uncompiled(Muon)(groups, lr=lr, momentum=momentum, nesterov=nesterov, bfloat16=bfloat16)


def _move(params: list[Tensor], directions: list[Tensor], rate: float | Tensor, weight_decay: float) -> None:
    """rate: a number, or a tensor on the device. Reading that tensor's number would wait for the device."""
    torch._foreach_mul_(params, 1 - rate * weight_decay)
    torch._foreach_sub_(params, torch._foreach_mul(directions, rate))


def orthogonalize(matrices: Tensor, products: torch.dtype = torch.float32) -> Tensor:
    """float32 [n, r, c] to the same shape: singular vectors kept, singular values about 1 (0.6 to 1.4; those
    below a thirtieth of the largest less). Newton-Schulz on X X^T; a matrix of zeros stays one.

    products: the type that the two large products are computed in. The error of bfloat16 lies below that
    thirtieth; but with it, two gradients that differ in a last bit give visibly different steps."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalize(matrices.mT, products).mT
    a, b, c = COEFFICIENTS
    rounded = matrices.to(products)
    gram = (rounded @ rounded.mT).float()
    size = gram.norm(dim=(1, 2), keepdim=True).clamp_min(1e-30)  # at least the largest eigenvalue
    gram = gram / size
    eye = torch.eye(gram.shape[1], device=gram.device)
    whole = a * eye + b * gram + c * (gram @ gram)
    factor = whole
    for _ in range(ITERATIONS - 1):
        gram = factor @ (factor @ gram)  # all are polynomials of one symmetric matrix: they commute
        factor = a * eye + b * gram + c * (gram @ gram)
        whole = factor @ whole
    made: Tensor = (whole / size.sqrt()).to(products) @ rounded
    return made.float()
