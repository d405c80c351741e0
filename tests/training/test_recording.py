"""When a GPU's step is recorded, replayed and given up: rules that need no GPU. And memory that is full."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imagenette.config import plugin, resolve
from imagenette.errors import RunError
from imagenette.training import launch
from imagenette.training.gpu import EAGER, Turns
from imagenette.training.job import Job, Result
from tests.gpu import DEVICES

FULL = """
import torch
from timm.models import register_model
from torch import nn

class Full(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, x):
        if self.training and x.device.type == "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.training:
            torch.empty(1 << 45, dtype=torch.uint8, device=x.device)
        return self.head(x.mean((2, 3)))

@register_model
def full(pretrained=False, *, num_classes=1000, **others):
    return Full(num_classes)
"""


def turns_of(sizes: list[int], *, works: bool = True) -> list[str]:
    turns, done = Turns(), []
    for size in sizes:
        done.append(turns.next(torch.Size([size, 3, 8, 8])))
        if done[-1] == "record" and not works:
            turns.failed()
    return done


def test_an_epoch_s_last_batch_leaves_the_recording_as_it_is():
    whole = ["plain"] * EAGER + ["record"] + ["replay"] * 3 + ["plain"] + ["replay"] * 7 + ["plain"]
    assert turns_of([8] * 7 + [5] + [8] * 7 + [5]) == whole


def test_a_new_resolution_gives_the_old_recording_s_memory_back_before_it_is_recorded():
    assert turns_of([8] * 5 + [9] * 6)[5:] == ["plain", "drop", "plain", "record", "replay", "replay"]


@given(st.lists(st.sampled_from([4, 8]), max_size=60), st.booleans())
def test_only_what_was_recorded_last_is_replayed(sizes: list[int], works: bool):
    recorded = None
    for place, (size, turn) in enumerate(zip(sizes, turns_of(sizes, works=works), strict=True)):
        if turn == "replay":
            assert size == recorded
        elif turn == "record":
            assert sizes[place - EAGER : place + 1] == [size] * (EAGER + 1)
            recorded = size if works else None
        elif turn == "drop":
            assert recorded is not None
            recorded = None
        else:
            assert size != recorded
    if not works:
        assert turns_of(sizes, works=works).count("record") <= 1, "it is not tried again and again"


@pytest.mark.parametrize("device", DEVICES)
def test_memory_that_is_full_is_one_line_that_says_what_to_choose(tmp_path: Path, device: str):
    (tmp_path / "parts.py").write_text(FULL)
    knobs = {"architecture": "full", "data": "digits", "limit": 128, "epochs": 1, "device": device}
    try:
        job = Job(
            config=resolve(knobs | {"plugin": str(tmp_path / "parts.py")}),
            output=tmp_path / "run",
            offline=True,
        )
        with pytest.raises(
            RunError, match=r"^out of GPU memory at batch_size=32, size=32: choose a smaller one"
        ):
            launch.train(job)
    finally:
        plugin.forget()
    result = Result.read(tmp_path / "run")
    assert result is not None
    assert result.status == "failed"
    assert result.message.startswith("out of GPU memory")
