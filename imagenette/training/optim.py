"""What moves the weights: parameter groups, the optimizer, the learning rate's course over a run."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from imagenette.config import OPTIMIZERS
from imagenette.network.uncompiled import uncompiled

Groups = list[dict[str, Any]]
Builder = Callable[..., torch.optim.Optimizer]
"""(groups, *, lr, momentum, nesterov, bfloat16), as an optimizer's record in OPTIMIZERS names it. lr is a
number, or a tensor on a GPU that records steps; a builder leaves what it has no use for."""
DECAY_STEPS = (150 / 350, 250 / 350)  # of the run; the reference's epochs
FLAT = 0.72  # of the run at the peak rate, then cosine; the public leaderboard's winners


def build(
    net: nn.Module,
    name: str,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decay_norm_bias: bool,
    bfloat16: bool = False,
    recorded: bool = False,
) -> torch.optim.Optimizer:
    """The optimizer of that name in OPTIMIZERS, over the network's parameters.

    bfloat16: whether large products may be rounded to it (Muon's). recorded: whether its steps are recorded
    on the GPU that holds the network: the rate is a tensor there, which each replay reads anew.
    """
    groups = parameter_groups(net, weight_decay, decay_norm_bias=decay_norm_bias)
    rate = torch.tensor(lr, device=groups[0]["params"][0].device) if recorded else lr
    module, _, function = OPTIMIZERS[name].builder.partition(":")
    builder: Builder = getattr(importlib.import_module(module), function)
    return builder(groups, lr=rate, momentum=momentum, nesterov=nesterov, bfloat16=bfloat16)


def sgd(
    groups: Groups, *, lr: float | Tensor, momentum: float, nesterov: bool, bfloat16: bool
) -> torch.optim.Optimizer:
    """Fused: one kernel over all weights."""
    nesterov = nesterov and momentum > 0
    return uncompiled(torch.optim.SGD)(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)


def adamw(
    groups: Groups, *, lr: float | Tensor, momentum: float, nesterov: bool, bfloat16: bool
) -> torch.optim.Optimizer:
    """Fused; momentum is beta1."""
    recorded = isinstance(lr, Tensor)
    betas = momentum, 0.999
    return uncompiled(torch.optim.AdamW)(groups, lr=lr, betas=betas, fused=True, capturable=recorded)


def parameter_groups(net: nn.Module, weight_decay: float, *, decay_norm_bias: bool) -> Groups:
    """Vectors (norm weights, biases) apart from matrices and filters, so that they can go without decay."""
    parameters = list(net.parameters())
    vectors = [p for p in parameters if p.ndim < 2]
    filters = [p for p in parameters if p.ndim >= 2]
    return [
        {"params": filters, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": weight_decay if decay_norm_bias else 0.0},
    ]


def rate(step: int, total: int, *, schedule: str, warmup: float) -> float:
    """Share of the peak learning rate at `step` (0-based) of `total`; warmup is a share of `total`.

    onecycle, flat-cosine and cosine fall to 0 just after the last step. step is the reference's: a tenth
    from 150/350, a hundredth from 250/350.
    """
    done = step / total
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return 0.1 ** sum(done >= at for at in DECAY_STEPS)
    rise = warmup * total
    if step < rise:
        return (step + 1) / (math.floor(rise) + 1)
    start = max(FLAT, warmup) if schedule == "flat-cosine" else warmup if schedule == "onecycle" else 0.0
    return 1.0 if done < start else 0.5 * (1 + math.cos(math.pi * (done - start) / (1 - start)))


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def restore(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take over a saved state, but for how the optimizer was built for this device (fused kernels, a rate in
    its memory): the state may come from another kind of device."""
    kinds = ("lr", "fused", "capturable")
    own: list[dict[str, Any]] = [
        {kind: group[kind] for kind in kinds if kind in group} for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(saved)
    for group, kept in zip(optimizer.param_groups, own, strict=True):
        group.update(kept)
    set_rate(optimizer, float(saved["param_groups"][0]["lr"]))
