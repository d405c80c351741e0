"""What is done to training pictures after they are cropped, resized and mirrored: one function a knob.

A function takes a whole batch, on the CPU or on a GPU, and random numbers that the epoch's plan drew for it:
the same pictures whatever the number of processes, and no other random draw moves when one is added. The knob
of the same name in `config` says how much; at 0 the function is not called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from imagenette.config import KNOBS, Config
from imagenette.config.plugin import register
from imagenette.errors import InputError

Function = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Augmentation:
    function: Function
    """(uint8 [b, 3, size, size], float64 [b, draws] in [0, 1), amount) to uint8 [b, 3, size, size]."""
    draws: int
    """Random numbers that it wants for each picture."""


AUGMENTATIONS: dict[str, Augmentation] = {}
"""Knob -> its augmentation, in the order in which they are applied."""


def augmentation(*, draws: int) -> Callable[[Function], Function]:
    """Register a function under its own name, which is its knob's, or with which a plugin's is asked for in
    `augment`."""

    def enter(function: Function) -> Function:
        register(AUGMENTATIONS, function.__name__, Augmentation(function, draws), module=function.__module__)
        return function

    return enter


def amounts(config: Config) -> dict[str, float]:
    """The augmentations that a config asks for, and how much of each. InputError for one that its plugin does
    not have."""
    knobs = {name: float(getattr(config, name)) for name in AUGMENTATIONS if name in KNOBS}
    for name in config.augmentations:
        if name not in AUGMENTATIONS or name in KNOBS:
            others = ", ".join(name for name in AUGMENTATIONS if name not in KNOBS) or "none"
            raise InputError(
                f"augment={config.augment}: the plugin has no {name}; its augmentations: {others}"
            )
    return {name: amount for name, amount in (knobs | config.augmentations).items() if amount}


def augment(images: Tensor, draws: Mapping[str, Tensor], amounts: Mapping[str, float]) -> Tensor:
    """The pictures of a batch, each augmentation applied; draws: [b, ...] for each name in `amounts`."""
    for name, amount in amounts.items():
        images = AUGMENTATIONS[name].function(images, draws[name], amount)
    return images.contiguous(memory_format=torch.channels_last) if amounts else images


@augmentation(draws=5)
def erase(images: Tensor, draws: Tensor, amount: float) -> Tensor:
    """A box shows the picture's mean colour in a share `amount` of the pictures. Area uniform in 2 to 33 % of
    the picture, ratio of height to width log-uniform in 0.3 to 3.3 (Zhong et al. 2020), cut at the border."""
    size = images.shape[-1]
    chosen, area, ratio, down, across = draws.T[:, :, None]  # [b, 1] each
    ratio = torch.exp(math.log(0.3) * (1 - 2 * ratio))
    side = torch.sqrt(0.02 + (0.33 - 0.02) * area)
    place = (torch.arange(size, device=images.device) + 0.5) / size
    rows = (place - down).abs() < side * ratio.sqrt() / 2
    columns = (place - across).abs() < side / ratio.sqrt() / 2
    box = rows[:, :, None] & columns[:, None, :] & (chosen < amount)[:, :, None]
    mean = images.float().mean((2, 3), keepdim=True).round().to(torch.uint8)
    return torch.where(box[:, None], mean, images)
