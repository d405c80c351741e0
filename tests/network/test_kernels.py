"""Our kernels give what torch's give: gradients in float64, all of a network's in its own precision."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from imagenette.config import Config
from imagenette.network import kernels, models
from imagenette.training.distributed import World
from imagenette.training.train import make_state


def convolution(channels: int, filters: int, stride: int) -> kernels.Conv2d:
    return kernels.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)


@given(
    images=st.integers(1, 5),
    channels=st.integers(1, 9),
    filters=st.integers(1, 9),
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    stride=st.sampled_from([1, 2]),
)
def test_a_weight_s_gradient_is_torch_s_for_any_shape(
    images: int, channels: int, filters: int, height: int, width: int, stride: int
) -> None:
    input = torch.randn(images, channels, height, width, dtype=torch.float64)
    weight = torch.randn(filters, channels, 3, 3, dtype=torch.float64, requires_grad=True)
    output = nn.functional.conv2d(input, weight, stride=stride, padding=1)
    gradient = torch.randn_like(output)
    (wanted,) = torch.autograd.grad(output, weight, gradient)
    found = kernels.weight_gradient(gradient, input, stride=stride, padding=1)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_its_gradients_are_those_of_its_output(stride: int, order: torch.memory_format) -> None:
    conv = convolution(3, 4, stride).double().to(memory_format=order)
    side = 2 * stride
    input = torch.randn(2, 3, side, side).double().contiguous(memory_format=order).requires_grad_()
    assert kernels.pays(conv, input, torch.float64)
    assert torch.autograd.gradcheck(conv, (input,))
    assert torch.autograd.gradcheck(
        lambda weight: torch.func.functional_call(conv, {"weight": weight}, (input,)), (conv.weight,)
    )


def gradients(net: nn.Module, images: Tensor, *, bfloat16: bool) -> dict[str, Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = net(images)
    nn.functional.cross_entropy(logits.float(), torch.arange(len(images)) % 10).backward()
    return {name: weight.grad for name, weight in net.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(("bfloat16", "bound"), [(False, 1e-4), (True, 2e-2)])
@pytest.mark.parametrize(("depth", "architecture"), [(18, "resnet"), (50, "resnet"), (18, "xresnet")])
def test_a_network_s_gradients_are_torch_s(depth: int, architecture: str, bfloat16: bool, bound: float):
    """bound: relative, of each weight's gradient."""
    images = torch.randn(4, 3, 64, 64).to(memory_format=torch.channels_last)
    stock = models.build(depth, classes=10, seed=1, architecture=architecture)
    ours = copy.deepcopy(stock)
    kernels.use(ours)
    assert any(type(module) is kernels.Conv2d for module in ours.modules())
    wanted, found = (gradients(net.train(), images, bfloat16=bfloat16) for net in (stock, ours))
    assert wanted.keys() == found.keys() == dict(stock.named_parameters()).keys()
    for name, gradient in wanted.items():
        error = float((found[name] - gradient).norm() / gradient.norm().clamp_min(1e-6))
        assert found[name].dtype == gradient.dtype
        assert error < bound, (name, error)


def test_they_are_for_training_on_a_cpu_where_the_knob_says_so() -> None:
    world, config = World(0, 1, torch.device("cpu")), Config(data="digits", size=32)
    kinds = [
        {
            type(module)
            for module in make_state(each, 10, world).net.modules()
            if isinstance(module, nn.Conv2d)
        }
        for each in (config, config.model_copy(update={"kernels": "stock"}))
    ]
    assert kinds == [{kernels.Conv2d, nn.Conv2d}, {nn.Conv2d}]
    conv = convolution(8, 8, 1)
    assert kernels.pays(conv, torch.empty(2, 8, 4, 4), torch.bfloat16)
    assert not kernels.pays(conv, torch.empty(2, 8, 8, 8), torch.bfloat16), "larger maps are torch's own"
    assert not kernels.pays(conv, torch.empty(2, 8, 4, 4, device="meta"), torch.bfloat16), "so are others"


def test_answers_and_saved_weights_are_those_of_the_plain_network() -> None:
    stock = models.build(18, classes=10, seed=1).eval()
    ours = copy.deepcopy(stock)
    kernels.use(ours)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(stock(images), ours(images))
    assert list(stock.state_dict()) == list(ours.state_dict())
    exported = torch.export.export(ours, (images,)).module()
    assert torch.allclose(exported(images), stock(images), atol=1e-5)
