"""Batches: the same global batch whatever the number of processes, exact shards, antialiased pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagenette.data.batches import EvalBatches, TrainBatches, batch_bounds, patched, shard
from imagenette.data.dataset import Split
from imagenette.data.pictures import ThreadedPictures
from imagenette.data.prepare import resize


def make_split(n=23, side=12, seed=0):
    rng = np.random.default_rng(seed)
    return Split(
        images=rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8),
        labels=np.arange(n) % 4,
        sizes=rng.integers(side, 4 * side, (n, 2)),
        names=tuple(f"{i}.png" for i in range(n)),
    )


def train_batches(split, *, threads=1, **kwargs):
    defaults = {
        "seed": 5,
        "batch_size": 8,
        "drop_last": False,
        "sizes": [10],
        "crop_scale": 0.3,
        "flip": True,
        "classes": 4,
    }
    pictures = ThreadedPictures(split, threads=threads)
    return TrainBatches(split, np.arange(len(split)), pictures, **(defaults | kwargs))


def eval_batches(split, count, **kwargs):
    return EvalBatches(split, np.arange(count), **kwargs)


def whole(batches, epoch=1, start=0):
    made = list(batches.epoch(epoch, start=start))
    return torch.cat([b.images for b in made]), torch.cat([b.labels for b in made])


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 5), st.integers(1, 3), st.booleans(), st.integers(8, 16), st.sampled_from([0.0, 0.5, 1.0])
)
def test_ranks_and_threads_only_divide_the_one_global_batch(
    world_size, threads, drop_last, batch_size, cutmix
):
    split = make_split()
    same = {"drop_last": drop_last, "batch_size": batch_size, "cutmix": cutmix}
    alone = list(train_batches(split, **same).epoch(2))
    ranks = [
        list(train_batches(split, rank=r, world_size=world_size, threads=threads, **same).epoch(2))
        for r in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {len(alone)}
    for one, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(one.images, torch.cat([part.images for part in parts]))
        assert torch.equal(one.labels, torch.cat([part.labels for part in parts]))
        assert {part.global_size for part in parts} == {len(one.labels)}


@pytest.mark.parametrize("start", [1, 2])
def test_starting_at_a_step_gives_the_rest_of_the_same_epoch(start):
    batches = train_batches(make_split())
    images, labels = whole(batches, epoch=3)
    rest, rest_labels = whole(batches, epoch=3, start=start)
    assert torch.equal(images[8 * start :], rest)
    assert torch.equal(labels[8 * start :], rest_labels)


def test_an_epoch_shows_every_image_once_with_its_label():
    split = make_split()
    images, labels = whole(train_batches(split, crop_scale=1.0, flip=False, sizes=[12]))
    shown = {
        picture.permute(1, 2, 0).numpy().tobytes(): int(label)
        for picture, label in zip(images, labels, strict=True)
    }
    assert shown == {
        picture.tobytes(): int(label) for picture, label in zip(split.images, split.labels, strict=True)
    }


def test_batches_are_channels_last():
    batch = next(train_batches(make_split()).epoch(1))
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images.dtype == torch.uint8


@given(st.integers(1, 500), st.integers(1, 64), st.booleans())
def test_bounds_cover_each_row_once_or_leave_out_the_last_partial_batch(images, batch_size, drop_last):
    bounds = batch_bounds(images, batch_size, drop_last=drop_last)
    rows = [row for first, last in bounds for row in range(first, last)]
    kept = images - images % batch_size if drop_last and images > batch_size else images
    assert rows == list(range(kept))


@given(st.integers(0, 1000), st.integers(1, 16))
def test_shards_cover_each_row_once_and_differ_by_one(count, world_size):
    parts = [shard(count, rank, world_size) for rank in range(world_size)]
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(count))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 9))
def test_evaluation_reads_each_image_once_over_all_ranks(images, world_size, batch_size):
    split = make_split(n=40)
    ranks = [
        list(eval_batches(split, images, size=6, batch_size=batch_size, rank=r, world_size=world_size))
        for r in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1, "ranks that vote at each batch must have as many"
    pixels = torch.cat([pictures for batches in ranks for pictures, _ in batches])
    assert len(pixels) == images
    assert torch.equal(pixels, next(iter(eval_batches(split, images, size=6, batch_size=99)))[0])
    assert torch.equal(
        torch.cat([labels for batches in ranks for _, labels in batches]),
        torch.from_numpy(split.labels[:images]),
    )


def test_evaluation_reads_the_same_pixels_each_epoch():
    batches = eval_batches(make_split(), 23, size=9, batch_size=5)
    first, again = ([pictures.clone() for pictures, _ in batches] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("size", [40, 64, 128, 224, 300])
def test_resampling_is_antialiased_as_pillows(size):
    """Within one level of Pillow's bilinear filter, which antialiases."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (224, 180, 3), dtype=np.uint8)
    ours = resize(torch.from_numpy(noise), size).astype(int)
    theirs = np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(ours - theirs).max() <= 1


def test_each_epoch_has_its_resolution_and_the_last_one_stays():
    batches = train_batches(make_split(), sizes=[6, 8, 10])
    seen = [next(iter(batches.epoch(epoch))).images.shape[-1] for epoch in (1, 2, 3, 4, 9)]
    assert seen == [6, 8, 10, 10, 10]


def test_a_patch_shows_the_picture_before_and_the_target_counts_its_pixels():
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 10, 10) * 10
    labels = torch.tensor([2, 0, 1, 1])
    patches = torch.tensor([[0.0, 0, 1, 1], [0.2, 0.3, 0.5, 0.9], [0, 0, 0, 0], [0, 0, 1, 0.5]]).double()
    mixed, targets = patched(images, labels, patches, classes=3)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert (mixed[0] == 0).all()
    assert (mixed[2] == 20).all()
    inside = torch.zeros(10, 10, dtype=torch.bool)
    inside[2:5, 3:9] = True
    assert torch.equal(mixed[1, 1], torch.where(inside, 0, 10).byte())
    assert (mixed[3, :, :, :5] == 20).all()
    assert (mixed[3, :, :, 5:] == 30).all()
    expected = [[0, 0, 1], [0.82, 0, 0.18], [0, 1, 0], [0, 1, 0]]
    torch.testing.assert_close(targets, torch.tensor(expected))
