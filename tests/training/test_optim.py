"""Learning-rate courses and parameter groups."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imagenette.config import OPTIMIZERS
from imagenette.network import models
from imagenette.training import optim

SCHEDULES = ["onecycle", "cosine", "flat-cosine", "step", "constant"]


@given(st.sampled_from(SCHEDULES), st.integers(1, 5000), st.floats(0, 0.99), st.data())
def test_rate_is_a_share_of_the_peak(schedule, total, warmup, data):
    step = data.draw(st.integers(0, total - 1))
    assert 0 < optim.rate(step, total, schedule=schedule, warmup=warmup) <= 1


def test_reference_steps_fall_at_its_epochs():
    rates = [optim.rate(epoch, 350, schedule="step", warmup=0.2) for epoch in range(350)]
    assert rates[:150] == [1.0] * 150
    assert rates[150:250] == pytest.approx([0.1] * 100)
    assert rates[250:] == pytest.approx([0.01] * 100)


@pytest.mark.parametrize("schedule", ["onecycle", "flat-cosine"])
def test_rises_to_the_peak_and_falls_to_nothing(schedule):
    rates = [optim.rate(step, 1000, schedule=schedule, warmup=0.2) for step in range(1000)]
    assert max(rates) == 1.0
    assert rates[:200] == sorted(rates[:200])
    assert rates[200:] == sorted(rates[200:], reverse=True)
    assert rates[0] < 0.01
    assert rates[-1] < 0.001


def test_norms_and_biases_go_without_decay_unless_asked():
    net = models.build(18, classes=10, seed=0)
    filters, vectors = optim.parameter_groups(net, 5e-4, decay_norm_bias=False)
    assert (filters["weight_decay"], vectors["weight_decay"]) == (5e-4, 0.0)
    assert all(p.ndim >= 2 for p in filters["params"])
    assert all(p.ndim < 2 for p in vectors["params"])
    assert len(filters["params"]) + len(vectors["params"]) == len(list(net.parameters()))
    assert optim.parameter_groups(net, 5e-4, decay_norm_bias=True)[1]["weight_decay"] == 5e-4


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_only_where_steps_are_recorded_is_the_rate_a_tensor(kind):
    knobs = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0, "decay_norm_bias": False}
    for recorded in (True, False):
        optimizer = optim.build(torch.nn.Linear(2, 2), kind, **knobs, recorded=recorded)
        for group in optimizer.param_groups:
            assert isinstance(group["lr"], torch.Tensor) == recorded
            assert group.get("capturable", recorded) == recorded
        optim.set_rate(optimizer, 0.05)
        assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([0.05, 0.05])


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_optimizer_moves_every_weight(kind):
    net = models.build(18, classes=4, seed=0)
    before = [p.clone() for p in net.parameters()]
    optimizer = optim.build(
        net, kind, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3, decay_norm_bias=True
    )
    net(torch.randn(4, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    assert all((a != b).any() for a, b in zip(before, net.parameters(), strict=True))
