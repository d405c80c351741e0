"""A template of a project built on imagenette: a network, an augmentation and an optimizer of one's own.

imagenette train --plugin parts.py --architecture four_layers --augment gray=0.2 --optimizer signs
"""

from itertools import pairwise

import torch
from timm.models import register_model
from torch import Tensor, nn

from imagenette import augmentation, optimizer


@register_model
def four_layers(pretrained: bool = False, *, num_classes: int = 1000, width: int = 16, **others) -> nn.Module:
    """Pictures [n, 3, h, w] to logits [n, num_classes]. What else timm gives is of no use here."""
    channels = [3, width, 2 * width, 4 * width]
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes))


@augmentation(draws=1)
def gray(images: Tensor, draws: Tensor, amount: float) -> Tensor:
    """A share `amount` of the pictures loses its colours. Tensor operations alone, on a CPU and on a GPU; the
    only random numbers are `draws`, in [0, 1), which the epoch's plan drew."""
    mean = images.float().mean(1, keepdim=True).round().to(torch.uint8).expand_as(images)
    return torch.where((draws[:, 0] < amount)[:, None, None, None], mean, images)


@optimizer(lr=0.002, weight_decay=0.01, batch_size=64)
def signs(groups, *, lr, momentum, nesterov, bfloat16):
    """Each weight moves by the rate, in the direction of the averaged gradient's sign (signSGD)."""
    return Signs(groups, lr=lr, momentum=momentum)


class Signs(torch.optim.Optimizer):
    def __init__(self, groups, *, lr, momentum):
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "average" not in state:
                    state["average"] = torch.zeros_like(weight)
                state["average"].lerp_(weight.grad, 1 - group["momentum"])
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(
                    group["lr"] * state["average"].sign()
                )
