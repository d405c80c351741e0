"""A whole training step on a GPU of fake tensors: every operation stays there, and none reads a number.

Backward, autocast and torch's fused optimizers take no fake tensors: gradients are put in by hand, and the
optimizer is Muon, whose arithmetic is ours.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException

from imagenette.data.augment import AUGMENTATIONS, augment
from imagenette.data.batches import patched
from imagenette.data.resident import cropped
from imagenette.network.models import build
from imagenette.training import optim
from imagenette.training.step import Follower, Meters
from tests.fake_gpu import Hosts, fake, move

B, SIDE, SIZE, CLASSES = 8, 48, 32, 5


def step(net: nn.Module, average: nn.Module, *, cutmix: bool) -> list[str]:
    """One step from stored pictures to moved weights; the operations that touched the CPU."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        move(net)
        move(average)
        stored, labels = torch.empty(B, 3, SIDE, SIDE, dtype=torch.uint8), torch.zeros(B, dtype=torch.int64)
        boxes, flips = torch.zeros(B, 4, dtype=torch.int64), torch.zeros(B, dtype=torch.bool)
        draws = {
            name: torch.zeros(B, each.draws, dtype=torch.float64) for name, each in AUGMENTATIONS.items()
        }
        patches, mean, std = torch.zeros(B, 4, dtype=torch.float64), torch.ones(3, 1, 1), torch.ones(3, 1, 1)
        knobs = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "decay_norm_bias": False}
        optimizer = optim.build(net, "muon", **knobs, bfloat16=True, recorded=True)
        meters, follow = Meters.zero(torch.device("cuda")), Follower(average, net, recorded=True)
        with Hosts() as hosts:
            images = cropped(stored, boxes, flips, SIZE, torch.float16)
            images = augment(images, draws, dict.fromkeys(AUGMENTATIONS, 0.5))
            if cutmix:
                images, labels = patched(images, labels, patches, classes=CLASSES)
            assert images.is_contiguous(memory_format=torch.channels_last)
            logits = net((images - mean) / std)
            losses = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=0.1)
            for parameter in net.parameters():
                parameter.grad = torch.empty_like(parameter)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            follow.set_decay(0.9)
            follow()
            meters.add(losses, logits, labels)
        assert {tensor.device.type for tensor in (losses, logits, meters.loss, *net.parameters())} == {"cuda"}
    return hosts.found


@pytest.mark.parametrize("cutmix", [False, True])
@pytest.mark.parametrize("architecture", ["resnet", "xresnet", "resnet10t"])
def test_a_step_stays_on_the_gpu_and_waits_for_nothing(architecture: str, cutmix: bool):
    net = build(
        18, classes=CLASSES, seed=1, architecture=architecture, bn_group=4 * (architecture == "resnet")
    )
    assert step(net, copy.deepcopy(net), cutmix=cutmix) == []


class Reads(nn.Module):
    """A network that reads a number from the device."""

    def __init__(self, planted: str) -> None:
        super().__init__()
        self.head, self.planted = nn.Linear(3, CLASSES), planted

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.planted == "item":
            return self.head(x.mean((2, 3))) * x.max().item()
        return self.head(x.mean((2, 3))) * torch.tensor([2.0], device="cpu").to(x.device)


def test_a_number_that_is_read_is_found():
    net = Reads("item")
    with pytest.raises(DataDependentOutputException, match="_local_scalar_dense"):
        step(net, copy.deepcopy(net), cutmix=False)


def test_a_tensor_of_the_host_is_found():
    net = Reads("host")
    assert step(net, copy.deepcopy(net), cutmix=False)


def test_fake_tensors_have_the_shape_and_order_of_what_they_stand_for():
    with FakeTensorMode():
        images = fake(torch.empty(2, 3, 4, 4).to(memory_format=torch.channels_last))
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.device.type == "cuda"
