"""A synchronized norm on a GPU, as far as fake tensors show it: no values, but each operation's devices."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from imagenette.network.norm import SyncBatchNorm


class Hosts(TorchDispatchMode):
    """Notes the operations that take or give tensors of the CPU: on a GPU the step waits for such a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                self.found.append(str(func))
        return result


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
