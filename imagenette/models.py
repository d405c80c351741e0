"""The networks: torchvision's ResNets with random weights. Knows nothing of data or training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torchvision.models import resnet

from imagenette.errors import InputError
from imagenette.norm import GroupedBatchNorm, SyncBatchNorm

BUILDERS: dict[int, Callable[..., nn.Module]] = {
    18: resnet.resnet18,
    34: resnet.resnet34,
    50: resnet.resnet50,
    101: resnet.resnet101,
    152: resnet.resnet152,
}


def build(
    depth: int, *, classes: int, seed: int, zero_init: bool = False, bn_group: int = 0, sync_bn: bool = False
) -> nn.Module:
    """A ResNet taking [n, 3, h, w] to logits [n, classes]. The same seed gives the same weights; torch's
    global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = BUILDERS[depth](
            weights=None,
            num_classes=classes,
            zero_init_residual=zero_init,
            norm_layer=norm_layer(bn_group, sync_bn=sync_bn),
        )
    for module in net.modules():
        if isinstance(module, GroupedBatchNorm):
            module.group = bn_group
    return net.to(memory_format=torch.channels_last)


def by_name(architecture: str, *, classes: int) -> nn.Module:
    """A network to load weights into: `resnet18` to `resnet152`. Raises InputError for another name."""
    known = {f"resnet{depth}": depth for depth in BUILDERS}
    if architecture not in known:
        raise InputError(f"architecture {architecture!r}: allowed are {', '.join(known)}")
    return build(known[architecture], classes=classes, seed=0)


def norm_layer(bn_group: int, *, sync_bn: bool) -> type[nn.Module]:
    if sync_bn:
        return SyncBatchNorm
    return GroupedBatchNorm if bn_group else nn.BatchNorm2d


def parameter_count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
