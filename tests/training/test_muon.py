"""Muon: what it does to singular values, and how far a step goes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imagenette.training.muon import PLAIN_RATE, Muon, orthogonalize


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3),
    st.integers(1, 48),
    st.integers(1, 48),
    st.integers(0, 99),
    st.floats(-6, 6),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_singular_vectors_stay_and_their_values_become_about_one(
    count, rows, columns, seed, magnitude, products
):
    torch.manual_seed(seed)
    given = torch.randn(count, rows, columns) * 10**magnitude
    made = orthogonalize(given, products)
    assert made.shape == given.shape
    for i, before in enumerate(given):
        left, values, right = torch.linalg.svd(before, full_matrices=False)
        seen = left.mT @ made[i] @ right.mT
        strong = values > values[0] / 20
        assert ((seen.diag() > 0.6) & (seen.diag() < 1.45))[strong].all()
        assert (seen - seen.diag().diag()).abs().max() < 0.1, "no other direction"


def test_no_gradient_moves_nothing():
    assert not orthogonalize(torch.zeros(2, 3, 5)).any()


def make(momentum=0.9, nesterov=True, weight_decay=0.0):
    torch.manual_seed(0)
    filters, head, bias = (torch.nn.Parameter(torch.randn(s)) for s in [(8, 4, 3, 3), (5, 8), (5,)])
    group = {"params": [filters, head, bias], "weight_decay": weight_decay}
    return Muon([group], lr=0.1, momentum=momentum, nesterov=nesterov), filters, head, bias


def test_a_filter_moves_by_the_rate_in_every_direction_whatever_the_gradients_size():
    for size in (1e-4, 1.0, 1e4):
        optimizer, filters, *_ = make()
        before = filters.detach().clone()
        filters.grad = torch.randn(filters.shape, generator=torch.Generator().manual_seed(1)) * size
        optimizer.step()
        moved = torch.linalg.svdvals((before - filters.detach()).flatten(1)) / 0.1
        assert moved.min() > 0.6
        assert moved.max() < 1.25


@pytest.mark.parametrize("nesterov", [True, False])
def test_what_is_no_filter_moves_as_torch_sgd_has_it(nesterov):
    optimizer, filters, head, bias = make(nesterov=nesterov)
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in (head, bias)]
    sgd = torch.optim.SGD(theirs, lr=0.1 * PLAIN_RATE, momentum=0.9, nesterov=nesterov)
    for _ in range(3):
        filters.grad = torch.randn_like(filters)
        for ours, other in zip((head, bias), theirs, strict=True):
            ours.grad = torch.randn_like(ours)
            other.grad = ours.grad.clone()
        optimizer.step()
        sgd.step()
    torch.testing.assert_close([head, bias], theirs)


def test_decay_is_decoupled():
    optimizer, filters, *_ = make(weight_decay=0.5)
    before = filters.detach().clone()
    filters.grad = torch.zeros_like(filters)
    optimizer.step()
    torch.testing.assert_close(filters.detach(), before * (1 - 0.1 * 0.5))
