"""The networks, with random weights: torchvision's ResNets, xresnets, and timm's by name.

Knows nothing of data or training.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagenette.config import plugin as plugins
from imagenette.errors import InputError
from imagenette.network.norm import GroupedBatchNorm, SyncBatchNorm
from imagenette.network.uncompiled import resnet as torchvision_resnet

LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def build(
    depth: int,
    *,
    classes: int,
    seed: int,
    architecture: str = "resnet",
    activation: str = "relu",
    zero_init: bool = False,
    bn_group: int = 0,
    sync_bn: bool = False,
) -> nn.Module:
    """A network taking [n, 3, h, w] to logits [n, classes]: `resnet` and `xresnet` of `depth`, or any of
    timm's by name, whatever the depth. The same seed gives the same weights; torch's global random state is
    left as it was. Raises InputError for a name that timm does not know either."""
    norm = norm_layer(bn_group, sync_bn=sync_bn)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family := FAMILIES.get(architecture):
            net = family(depth, classes=classes, activation=activation, zero_init=zero_init, norm=norm)
        else:
            check(architecture)
            net = _create(architecture, classes=classes, activation=activation)
    for module in net.modules():
        if isinstance(module, GroupedBatchNorm):
            module.group = bn_group
    return net.to(memory_format=torch.channels_last)


def resnet(depth: int, *, classes: int, activation: str, zero_init: bool, norm: type[nn.Module]) -> nn.Module:
    """torchvision's, whose activation is relu."""
    builder: Callable[..., nn.Module] = getattr(torchvision_resnet, f"resnet{depth}")
    return builder(weights=None, num_classes=classes, zero_init_residual=zero_init, norm_layer=norm)


class SqueezeExcite(nn.Module):
    """Each channel weighed by all channels' means (Hu et al. 2018), with a sixteenth as many in between.

    Linear layers, where timm has 1 x 1 convolutions: torch's bfloat16 kernel for the CPU leaves the weight
    gradients of those partly unwritten on maps of 1 x 1 px."""

    def __init__(self, channels: int, **place: Any) -> None:
        """place: device and dtype, as timm gives them."""
        super().__init__()
        self.squeeze = nn.Linear(channels, max(channels // 16, 8), **place)
        self.excite = nn.Linear(max(channels // 16, 8), channels, **place)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return x * weights[:, :, None, None]


class Blur(nn.Module):
    """Every second pixel of maps that were blurred by 1, 2, 1 both ways (Zhang 2019).

    The same as timm's BlurPool2d, as two means over 2 x 2 px: in bfloat16 on a CPU they take a quarter of the
    time of its depthwise convolution."""

    def __init__(self, channels: int, stride: int, **place: Any) -> None:
        """timm gives all of these; the means need none."""
        super().__init__()
        assert stride == 2

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        mixed = torch.is_autocast_enabled(kind)  # autocast would compute means in float32 on a CPU
        with torch.autocast(kind, enabled=False) if mixed else nullcontext():
            wide = reflected(x) if x.is_cuda else F.pad(x, (1, 1, 1, 1), mode="reflect")
            return F.avg_pool2d(F.avg_pool2d(wide, 2, stride=1), 2)


def reflected(x: Tensor) -> Tensor:
    """Padded by one pixel, as by `F.pad(x, (1, 1, 1, 1), mode="reflect")`, which on a GPU loses the order of
    channels last, and whose gradient waits for atomic additions there. On a CPU that one is the quicker."""
    tall = torch.cat([x[:, :, 1:2], x, x[:, :, -2:-1]], 2)
    return torch.cat([tall[..., 1:2], tall, tall[..., -2:-1]], 3)


def xresnet(
    depth: int, *, classes: int, activation: str, zero_init: bool, norm: type[nn.Module]
) -> nn.Module:
    """The public leaderboard's kind, of timm's parts: a stem of three 3 x 3 convolutions and pooled shortcuts
    (He et al. 2018, "bag of tricks"), strides that blur (Zhang 2019), squeeze-and-excitation, a smooth
    activation."""
    from timm.layers.create_act import get_act_layer
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    block: Any = BasicBlock if depth < 50 else Bottleneck
    net = ResNet(
        block,
        LAYERS[depth],
        num_classes=classes,
        stem_type="deep",
        stem_width=32,
        avg_down=True,
        aa_layer=Blur,
        act_layer=get_act_layer(activation),
        norm_layer=norm,
        block_args={"attn_layer": SqueezeExcite},
        zero_init_last=zero_init,
    )
    assert isinstance(net, nn.Module)
    return net


FAMILIES: dict[str, Callable[..., nn.Module]] = {"resnet": resnet, "xresnet": xresnet}
"""`config.OWN` -> (depth, *, classes, activation, zero_init, norm) to a network with random weights."""


def check(architecture: str, *, sizes: Collection[int] = (), activation: str = "relu") -> None:
    """InputError for an architecture that there is not, or that takes no pictures of these sizes, px, or no
    other activation."""
    if architecture in FAMILIES:
        return
    import timm  # here, not above: its import takes seconds

    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f" ({', '.join(near)}?)" if near else ""
        raise InputError(f"architecture={architecture}: must be resnet, xresnet or a network of timm's{hint}")
    if not sizes:
        return
    with torch.device("meta"), torch.inference_mode():  # shapes alone, nothing is computed
        net = _create(architecture, classes=2, activation=activation)
        for size in sorted(set(sizes)):
            try:
                fits = net(torch.empty(2, 3, size, size)).shape == (2, 2)
            except Exception:  # networks raise all kinds of errors for a shape not made for them
                fits = False
            if not fits:
                raise InputError(
                    f"architecture={architecture}: it takes no pictures of {size} x {size} px{_taken(net)}"
                )


def is_plugin_s(architecture: str) -> bool:
    """Whether a plugin that is loaded registered it with timm."""
    if architecture in FAMILIES or not plugins.loaded():
        return False
    import timm

    return timm.is_model(architecture) and plugins.is_plugin_s(timm.model_entrypoint(architecture).__module__)


def _taken(net: nn.Module) -> str:
    """Which size the network was made for, as timm has it; empty where it does not say."""
    sizes = getattr(net, "pretrained_cfg", {}).get("input_size")
    if not sizes:
        return ""
    return f"; it is made for {sizes[-1]}: --size {sizes[-1]} --start-size 0"


def needs_float32(architecture: str, device: torch.device) -> bool:
    """Whether training must keep to float32 there. timm's networks may hold convolutions on 1 x 1 px
    (squeeze-and-excitation), whose weight gradients torch's bfloat16 kernel for the CPU leaves partly
    unwritten."""
    return device.type == "cpu" and architecture not in FAMILIES


def _create(name: str, *, classes: int, activation: str) -> nn.Module:
    """timm's network of that name; activation: in place of relu, where the network has a choice."""
    import timm

    chosen: dict[str, Any] = {} if activation == "relu" else {"act_layer": activation}
    try:
        net = timm.create_model(name, pretrained=False, num_classes=classes, **chosen)
    except TypeError as error:
        if not chosen:
            raise InputError(f"architecture={name}: it cannot be built: {error}") from None
        raise InputError(f"activation={activation}: architecture={name} has its own") from None
    assert isinstance(net, nn.Module)
    return net


def by_name(name: str, *, classes: int) -> nn.Module:
    """A network to load weights into, by a name that `Config.network` gives. InputError for another."""
    family, _, activation = name.partition("-")
    activation = activation or "relu"
    if family.startswith("timm/"):
        return build(18, classes=classes, seed=0, architecture=family[5:], activation=activation)
    for depth in LAYERS:
        for architecture in FAMILIES:
            if family == f"{architecture}{depth}":
                return build(depth, classes=classes, seed=0, architecture=architecture, activation=activation)
    known = ", ".join(f"resnet{depth}" for depth in LAYERS)
    raise InputError(f"architecture {name!r}: allowed are {known}, the same as xresnet, and timm/NAME")


def norm_layer(bn_group: int, *, sync_bn: bool) -> type[nn.Module]:
    if sync_bn:
        return SyncBatchNorm
    return GroupedBatchNorm if bn_group else nn.BatchNorm2d


def parameter_count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
