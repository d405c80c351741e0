"""Augmentations: laws that hold for every function in the table, and what each one does."""

import numpy as np
import pytest
import torch

from imagenette.config import GROUPS, resolve
from imagenette.data.augment import AUGMENTATIONS, amounts, augment
from imagenette.data.plan import epoch_plan
from tests.data.test_batches import make_split, train_batches, whole

EACH = pytest.mark.parametrize("name", AUGMENTATIONS)


@EACH
def test_an_augmentation_is_a_knob_that_is_off_unless_asked_for(name):
    assert name in GROUPS["Augmentation"]
    assert amounts(resolve({})) == {}
    assert amounts(resolve({name: 0.5})) == {name: 0.5}


@EACH
def test_asking_for_one_moves_no_other_random_draw(name):
    sizes = np.full((50, 2), 32)
    plain, augmented = (
        epoch_plan(np.arange(50), sizes, side=32, seed=3, epoch=2, scale=0.3, flip=True, cutmix=0.5, draws=d)
        for d in ({}, {name: AUGMENTATIONS[name].draws})
    )
    for field in ("order", "boxes", "flips", "patches"):
        assert np.array_equal(getattr(plain, field), getattr(augmented, field)), field
    assert augmented.draws[name].shape == (50, AUGMENTATIONS[name].draws)


@EACH
@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_ranks_and_resumed_epochs_see_the_same_pictures(name, cutmix):
    split, same = make_split(), {"augmentations": {name: 0.7}, "cutmix": cutmix, "batch_size": 6}
    alone = list(train_batches(split, **same).epoch(2))
    ranks = [list(train_batches(split, rank=r, world_size=3, **same).epoch(2)) for r in range(3)]
    for step, batch in enumerate(alone):
        assert torch.equal(batch.images, torch.cat([rank[step].images for rank in ranks]))
    images, _ = whole(train_batches(split, **same), epoch=2, start=2)
    assert torch.equal(images, torch.cat([batch.images for batch in alone[2:]]))


@EACH
def test_pictures_stay_pictures(name):
    images = torch.randint(0, 256, (40, 3, 24, 24), dtype=torch.uint8)
    before, draws = images.clone(), {name: torch.rand(40, AUGMENTATIONS[name].draws, dtype=torch.float64)}
    changed = augment(images, draws, {name: 1.0})
    assert torch.equal(images, before), "its input is not written to"
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
    assert changed.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(changed, images)
    assert torch.equal(augment(images, draws, {}), images)


def test_erase_fills_a_box_of_2_to_33_percent_with_the_mean_colour_in_its_share_of_pictures():
    n, size = 4000, 32
    images = torch.randint(0, 2, (n, 1, size, size), dtype=torch.uint8).mul(200).add(20).expand(-1, 3, -1, -1)
    draws = torch.from_numpy(np.random.default_rng(0).random((n, AUGMENTATIONS["erase"].draws)))
    draws[:, 3:] = 0.5  # in the middle, where no border cuts the box
    erased = augment(images, {"erase": draws}, {"erase": 0.25})
    box = (erased != images).any(1)
    shares = box.float().mean((1, 2))
    touched = shares > 0
    assert touched.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(touched, draws[:, 0] < 0.25)
    assert shares[touched].min() > 0.01
    assert 0.30 < shares[touched].max() < 0.36
    mean = images.float().mean((2, 3)).round().to(torch.uint8)
    one = int(touched.nonzero()[0])
    assert (erased[one][:, box[one]] == mean[one][:, None]).all()
