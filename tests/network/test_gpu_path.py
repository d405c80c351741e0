"""Parts of networks on a GPU, as far as fake tensors show it: no values, but each operation's devices and the
order of its memory."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode

from imagenette.network.models import Blur, build, reflected
from imagenette.network.norm import SyncBatchNorm
from tests.fake_gpu import Hosts, fake


@pytest.fixture
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: None)


@pytest.mark.usefixtures("two_ranks")
def test_a_synchronized_norm_touches_the_gpu_alone():
    with FakeTensorMode(), torch.device("cuda"):
        norm, images = SyncBatchNorm(4), torch.empty(8, 4, 6, 6)
        with Hosts() as hosts:
            assert norm(images).device.type == "cuda"
    assert hosts.found == []


def test_a_copy_from_the_host_would_be_found():
    with FakeTensorMode(), torch.device("cuda"):
        images = torch.empty(8, 4)
        with Hosts() as hosts:
            images.new_tensor([1.0])
    assert hosts.found


def test_padding_by_slices_is_padding_by_reflection():
    images = torch.randn(2, 3, 6, 5, dtype=torch.float64).to(memory_format=torch.channels_last)
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    weights = torch.randn(2, 3, 8, 7, dtype=torch.float64)
    (reflected(ours) * weights).sum().backward()
    (F.pad(theirs, (1, 1, 1, 1), mode="reflect") * weights).sum().backward()
    assert torch.equal(reflected(images), F.pad(images, (1, 1, 1, 1), mode="reflect"))
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-12)


@pytest.mark.parametrize("architecture", ["resnet", "xresnet"])
def test_maps_on_a_gpu_keep_their_channels_last(architecture):
    lost: list[str] = []

    def look(module: torch.nn.Module, given: object, result: object) -> None:
        if not isinstance(result, torch.Tensor) or result.ndim != 4 or result.shape[-1] == 1:
            return  # a single pixel has no order
        if not result.is_contiguous(memory_format=torch.channels_last):
            lost.append(type(module).__name__)

    net = build(18, classes=10, seed=1, architecture=architecture)
    for module in net.modules():
        module.register_forward_hook(look)
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = {name: fake(tensor) for name, tensor in net.state_dict().items()}
        images = fake(torch.empty(4, 3, 64, 64).to(memory_format=torch.channels_last))
        assert torch.func.functional_call(net, state, (images,)).device.type == "cuda"
    assert lost == []
    assert any(isinstance(module, Blur) for module in net.modules()) == (architecture == "xresnet")
