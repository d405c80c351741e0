"""Laws of what starts without torch's compiler: the same steps, the same state, and compiling still works."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from imagenette.network.uncompiled import uncompiled

KINDS = {"SGD": {"momentum": 0.9, "nesterov": True, "fused": True}, "AdamW": {"betas": (0.9, 0.999)}}


def trained(kind, steps: int, state: dict | None = None, weights: list | None = None):
    torch.manual_seed(0)
    net = torch.nn.Linear(5, 3)
    if weights:
        for parameter, weight in zip(net.parameters(), weights, strict=True):
            parameter.data.copy_(weight)
    optimizer = kind(net.parameters(), lr=0.1, weight_decay=0.01, **KINDS[kind.__name__])
    if state:
        optimizer.load_state_dict(state)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.ones(2, 5)).square().sum().backward()
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()], optimizer


@pytest.mark.parametrize("name", KINDS)
def test_it_steps_as_torch_s_own_and_takes_its_state(name):
    kind = getattr(torch.optim, name)
    theirs, before = trained(kind, 3)
    ours, optimizer = trained(uncompiled(kind), 3)
    assert isinstance(optimizer, kind)
    assert all(map(torch.equal, ours, theirs))
    assert not any(p.requires_grad for p in optimizer.state_dict()["state"][0].values() if p is not None)
    assert optimizer.state_dict().keys() == before.state_dict().keys()
    expected, _ = trained(kind, 5)
    for first, second in ((kind, uncompiled(kind)), (uncompiled(kind), kind)):
        weights, saved = trained(first, 3)
        resumed, _ = trained(second, 2, saved.state_dict(), weights)
        assert all(map(torch.equal, resumed, expected)), "either goes on where the other stopped"


def test_compiling_works_afterwards():
    """torchvision's import got a stand-in for a part of the compiler; none of it is left."""
    code = """
import sys
import imagenette.network.models
assert "torch._dynamo" not in sys.modules
import torch, torchvision
import torch.distributed as dist
from imagenette.network.uncompiled import data_parallel
dist.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
net = data_parallel(torch.nn.Linear(3, 2), gradient_as_bucket_view=True)
net(torch.ones(2, 3)).sum().backward()
assert net.module.weight.grad.tolist() == [[2, 2, 2], [2, 2, 2]]
assert "torch._dynamo" not in sys.modules
from torchvision.ops import roi_align
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist() == [2, 2]
assert torch._dynamo.utils.__file__
net(torch.ones(2, 3)).sum().backward()
assert net.module.weight.grad.tolist() == [[4, 4, 4], [4, 4, 4]]
dist.destroy_process_group()
boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
assert roi_align(torch.ones(1, 1, 8, 8), boxes, output_size=2).shape == (1, 1, 2, 2)
from torchvision.ops.roi_align import is_compile_supported
assert is_compile_supported("cpu") in (True, False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
