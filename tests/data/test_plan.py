"""The epoch plan: a pure function of (seed, epoch), by torchvision's rule."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from imagenette.data.plan import (
    crop_boxes,
    epoch_plan,
    epoch_sizes,
    patch_boxes,
    split_positions,
    stratified,
    to_stored,
)
from imagenette.data.sources import IMAGENETTE

shapes = st.tuples(st.integers(1, 600), st.integers(1, 600))


def make(sizes, *, seed=1, epoch=1, scale=0.35, side=224, flip=True):
    positions = np.arange(len(sizes))
    return epoch_plan(positions, sizes, side=side, seed=seed, epoch=epoch, scale=scale, flip=flip)


@settings(deadline=None)
@given(
    st.lists(shapes, min_size=1, max_size=50), st.integers(0, 2**40), st.integers(1, 400), st.floats(0.01, 1)
)
def test_every_crop_lies_inside_its_image(sizes, seed, epoch, scale):
    sizes = np.array(sizes)
    plan = make(sizes, seed=seed, epoch=epoch, scale=scale)
    assert sorted(plan.order) == list(range(len(sizes)))
    assert (plan.boxes[:, :2] >= 0).all()
    assert (plan.boxes[:, 2:] >= 1).all()
    assert (plan.boxes[:, :2] + plan.boxes[:, 2:] <= 224).all()


def test_the_same_seed_and_epoch_give_the_same_plan_and_others_do_not():
    sizes = np.full((500, 2), 300)
    first, again = make(sizes), make(sizes)
    assert all((getattr(first, f) == getattr(again, f)).all() for f in ("order", "boxes", "flips"))
    for other in (make(sizes, seed=2), make(sizes, epoch=2)):
        assert (first.order != other.order).any()
        assert (first.boxes != other.boxes).any()


def test_crops_have_torchvisions_distribution():
    """Mean and quartiles of area and ratio against 4,000 of RandomResizedCrop's own, on a wide image where
    some tries do not fit."""
    torch.manual_seed(0)
    image = torch.empty(3, 200, 320)
    theirs = np.array([RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)])
    ours = crop_boxes(np.tile([200, 320], (4000, 1)), np.random.default_rng(0), scale=0.08)
    for column in range(4):
        np.testing.assert_allclose(
            np.quantile(ours[:, column], [0.1, 0.25, 0.5, 0.75, 0.9]),
            np.quantile(theirs[:, column], [0.1, 0.25, 0.5, 0.75, 0.9]),
            atol=9,
        )
    ratio = lambda boxes: np.log(boxes[:, 3] / boxes[:, 2])  # noqa: E731
    assert abs(ratio(ours).mean() - ratio(theirs).mean()) < 0.02


def test_an_image_no_try_fits_is_cropped_at_its_centre_as_torchvision_does():
    tall = np.array([[600, 20]])
    box = crop_boxes(tall, np.random.default_rng(0), scale=0.9)[0]
    torch.manual_seed(0)
    assert tuple(box) == RandomResizedCrop.get_params(torch.empty(3, 600, 20), (0.9, 1.0), (3 / 4, 4 / 3))


def test_scale_one_shows_the_whole_image():
    plan = make(np.array([[100, 400], [300, 300]]), scale=1.0)
    assert (plan.boxes == [0, 0, 224, 224]).all()


def test_a_square_crop_of_a_wide_original_is_narrow_in_the_squashed_copy():
    box = to_stored(np.array([[0, 100, 200, 200]]), np.array([[200, 400]]), 256)[0]
    assert tuple(box) == (0, 64, 256, 128)


def test_flips_are_half_or_none():
    sizes = np.full((4000, 2), 64)
    assert 0.46 < make(sizes).flips.mean() < 0.54
    assert not make(sizes, flip=False).flips.any()


labels = st.lists(st.integers(0, 4), min_size=5, max_size=200).map(np.array)


@given(labels, st.data())
def test_stratified_subsets_have_each_class_in_its_share(labels, data):
    count = data.draw(st.integers(1, len(labels)))
    chosen = stratified(labels, count, seed=3)
    assert len(chosen) == len(set(chosen.tolist())) == count
    for c in np.unique(labels):
        expected = count * (labels == c).mean()
        assert abs((labels[chosen] == c).sum() - expected) < 2 + (expected < 1)


@pytest.mark.parametrize("limit", [0, 64, 640])
def test_the_holdout_is_the_same_whatever_the_limit(limit):
    labels = np.repeat(np.arange(10), 100)
    training, held = split_positions(labels, holdout=0.1, limit=limit)
    assert len(held) == 100
    assert (held == split_positions(labels, holdout=0.1, limit=0)[1]).all()
    assert len(training) == (limit or 900)
    assert not set(training.tolist()) & set(held.tolist())
    assert len(np.unique(labels[training])) == 10


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=40),
    st.floats(0, 0.5),
    st.one_of(st.just(0), st.integers(1, 60)),
)
def test_every_class_is_trained_and_a_holdout_that_left_that_is_as_ever(sizes, holdout, limit):
    """The old rule is `stratified` alone; runs made by it are resumed and reused."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    training, held = split_positions(labels, holdout=holdout, limit=limit)
    if not 0 < limit < len(sizes):
        assert set(labels[training]) == set(labels)
    old = stratified(labels, round(holdout * len(labels)), seed=0)
    assert set(held) <= set(old)
    if set(np.delete(labels, old)) == set(labels):
        assert (held == old).all()


@pytest.mark.parametrize(
    ("holdout", "limit", "digest"),
    [(0.1, 0, "d4dfa1a929075ce2"), (0.1, 1000, "e39afab179387e08"), (0.5, 0, "489ef1d4af0bea17")],
)
def test_imagenettes_split_is_the_one_it_always_had(holdout, limit, digest):
    labels = np.repeat(np.arange(10), [train for _, train, _ in IMAGENETTE.values()])
    training, held = split_positions(labels, holdout=holdout, limit=limit)
    assert hashlib.sha256(training.tobytes() + held.tobytes()).hexdigest().startswith(digest)


@given(st.integers(1, 400), st.integers(32, 400), st.integers(32, 400))
def test_the_resolution_grows_evenly_and_is_the_last_one_for_the_last_fifth(epochs, first, last):
    sizes = epoch_sizes(epochs, first=first, last=last)
    assert len(sizes) == epochs
    assert sizes == sorted(sizes)
    assert sizes[0] == (min(first, last) if epochs > 1 else last)
    assert all((size - first) % 16 == 0 or size == last for size in sizes)
    assert set(sizes[-max(epochs // 5, 1) :]) == {last}
    assert max(sizes) <= last


def test_sixty_epochs_spend_twelve_at_each_resolution():
    assert epoch_sizes(60, first=64, last=128) == [s for s in (64, 80, 96, 112, 128) for _ in range(12)]
    assert epoch_sizes(3, first=0, last=100) == [100] * 3


def test_patches_follow_cutmixs_rule_and_leave_the_other_draws_alone():
    """Half of the rows; an area of mean 1/2 before the border cuts it, boxes inside the picture, centred
    anywhere."""
    top, left, bottom, right = patch_boxes(40_000, np.random.default_rng(0), share=0.5).T
    laid = bottom > 0
    assert laid.mean() == pytest.approx(0.5, abs=0.01)
    assert (np.stack([top, left]) >= 0).all()
    assert (np.stack([bottom - top, right - left]) >= 0).all()
    assert (np.stack([bottom, right]) <= 1).all()
    inner = laid & (top > 0) & (left > 0) & (bottom < 1) & (right < 1)
    np.testing.assert_allclose((bottom - top)[inner], (right - left)[inner])
    # of a box of side s, cut at both borders: s (1 - s/4) of each side on average; s^2 uniform
    expected = np.mean([(s * (1 - s / 4)) ** 2 for s in np.sqrt(np.linspace(0, 1, 10_001))])
    assert ((bottom - top) * (right - left))[laid].mean() == pytest.approx(expected, abs=0.005)

    sizes = np.full((50, 2), 300)
    plain = make(sizes)
    mixed = epoch_plan(np.arange(50), sizes, side=224, seed=1, epoch=1, scale=0.35, flip=True, cutmix=1.0)
    assert not plain.patches.any()
    assert (mixed.patches[:, 2] > 0).all()
    assert all((getattr(plain, f) == getattr(mixed, f)).all() for f in ("order", "boxes", "flips"))
