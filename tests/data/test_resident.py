"""Pictures made in a device's memory: the arithmetic is held against the CPU path's here, on the CPU; what
needs a GPU is marked."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imagenette.data import resident
from imagenette.data.dataset import Split
from imagenette.data.pictures import ThreadedPictures
from imagenette.data.plan import epoch_plan
from imagenette.data.prepare import resize
from imagenette.data.resident import ResidentPictures, cropped, filters

SIDE = 56


def make_split(n=40, smooth=False):
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    if smooth:  # ramps: what ringing, shifts by half a pixel and wrong edges would show on
        ramp = np.linspace(0, 255, SIDE)
        images[:] = (ramp[:, None] / 2 + ramp[None, :] / 2)[..., None].astype(np.uint8)
    sizes = rng.integers(SIDE, 3 * SIDE, (n, 2))
    return Split(images, np.arange(n) % 5, sizes, tuple(f"{i}.png" for i in range(n)))


def rows_of(split, *, scale=0.2, epoch=1):
    plan = epoch_plan(
        np.arange(len(split)), split.sizes, side=SIDE, seed=3, epoch=epoch, scale=scale, flip=True
    )
    return plan.order, plan.boxes, plan.flips


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("size", [32, 40, 56, 72, 128])
def test_every_pixel_is_within_one_level_of_the_cpus(size, smooth):
    split = make_split(smooth=smooth)
    rows = rows_of(split)
    chosen = slice(3, 31)
    expected, labels = ThreadedPictures(split, threads=2).rows(*rows)(chosen, size)()
    made, same = ResidentPictures(split, torch.device("cpu")).rows(*rows)(chosen, size)()
    assert torch.equal(labels, same)
    assert made.dtype == expected.dtype == torch.uint8
    assert made.shape == expected.shape == (28, 3, size, size)
    assert made.is_contiguous(memory_format=torch.channels_last)
    away = (made.int() - expected.int()).float()
    assert away.abs().max() <= 1
    assert away.abs().mean() < 0.35, "only rounding differs"
    assert away.mean().abs() < 0.1, "and hardly to one side: halves go up there, to even here"


def test_half_precision_products_stay_within_one_level():
    """float16 inputs, as on a GPU; the CPU's kernel is slow, so few."""
    split = make_split(n=6)
    order, boxes, flips = rows_of(split)
    images = torch.from_numpy(split.images[order]).permute(0, 3, 1, 2)
    made = cropped(images, torch.from_numpy(boxes), torch.from_numpy(flips), 32, torch.float16)
    expected, _ = ThreadedPictures(split, threads=1).rows(order, boxes, flips)(slice(0, 6), 32)()
    away = (made.int() - expected.int()).abs()
    assert away.max() <= 1


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 224), st.integers(1, 224), st.integers(32, 160), st.booleans())
def test_any_crop_at_any_size(height, width, size, mirrored):
    picture = np.random.default_rng(height * 1000 + width).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    top, left = (224 - height) // 3, (224 - width) // 2
    box = torch.tensor([[top, left, height, width]])
    (made,) = cropped(torch.from_numpy(picture).permute(2, 0, 1)[None], box, torch.tensor([mirrored]), size)
    expected = resize(torch.from_numpy(picture[top : top + height, left : left + width]), size)
    expected = expected[:, ::-1] if mirrored else expected
    assert np.abs(made.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


@given(st.integers(0, 30), st.integers(1, 30), st.integers(1, 80))
def test_a_filter_spends_all_its_weight_inside_the_crop(start, length, size):
    weights = filters(torch.tensor([start]), torch.tensor([length]), size=size, side=60)[0]
    torch.testing.assert_close(weights.sum(1), torch.ones(size))
    assert not weights[:, :start].any()
    assert not weights[:, start + length :].any()


def test_a_set_that_does_not_fit_is_said_and_made_on_the_cpu(monkeypatch, capsys):
    """The device's answer is given here; everything else is as it runs."""
    split = make_split(n=4)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (split.images.nbytes, 10**9))
    made = resident.pictures(split, torch.device("cuda"), threads=1)
    assert isinstance(made, ThreadedPictures)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "do not fit beside a training" in said


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("size", [32, 56, 128])
def test_on_a_gpu_every_pixel_is_within_one_level_of_the_cpus(size):
    split = make_split()
    rows = rows_of(split)
    device = torch.device("cuda")
    expected, _ = ThreadedPictures(split, threads=2).rows(*rows)(slice(0, 40), size)()
    start = resident.pictures(split, device, threads=1).rows(*rows)
    torch.cuda.set_sync_debug_mode("error")
    try:
        made, _ = start(slice(0, 40), size)()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (made.cpu().int() - expected.int()).abs().max() <= 1
