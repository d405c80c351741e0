"""What must hold before a run may start."""

import subprocess
import sys

import pytest
import torch

from imagenette.config import resolve
from imagenette.errors import InputError
from imagenette.training.readiness import check_batches, check_config, check_device, check_processes, prepare


def test_a_batch_that_does_not_divide_is_refused_in_words():
    with pytest.raises(
        InputError, match=r"^batch_size=7 does not divide over 2 processes: .* multiple of 2$"
    ):
        check_processes(resolve({"batch_size": 7}), 2)


def test_batch_norm_groups_that_processes_would_cut_are_refused_in_words():
    with pytest.raises(
        InputError, match=r"^bn_group=8 does not divide the 12 images that each of 2 processes"
    ):
        check_processes(resolve({"batch_size": 24, "bn_group": 8}), 2)
    check_processes(resolve({"batch_size": 24, "bn_group": 8}), 1)
    check_processes(resolve({"batch_size": 32, "bn_group": 8}), 2)


@pytest.mark.parametrize(
    ("device", "processes", "gpus", "complaint"),
    [
        ("cuda", 1, 0, "^device=cuda: torch finds no GPU here: must be cpu or auto$"),
        ("cuda", 2, 0, "torch finds no GPU"),
        (
            "cuda",
            2,
            1,
            "^nproc=2: NCCL takes one process a GPU, and there is 1: must be at most 1, or",
        ),
        ("auto", 4, 2, "there are 2: must be at most 2, or device=cpu$"),
    ],
)
def test_gpus_that_are_not_there_are_refused(device, processes, gpus, complaint):
    with pytest.raises(InputError, match=complaint):
        check_device(resolve({"device": device}), processes, gpus=gpus)


@pytest.mark.parametrize(
    ("device", "processes", "gpus"),
    [("cpu", 4, 0), ("cpu", 4, 2), ("auto", 4, 0), ("auto", 2, 2), ("cuda", 1, 1)],
)
def test_processes_that_have_a_gpu_each_or_want_none_are_not(device, processes, gpus):
    check_device(resolve({"device": device}), processes, gpus=gpus)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("verb", [["train"], ["study", "weight-decay", "--smoke"]])
def test_every_verb_that_trains_says_that_there_is_no_gpu(verb, tmp_path):
    line = [sys.executable, "-m", "imagenette", *verb, "--data", "digits", "--device", "cuda"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "device=cuda: torch finds no GPU here: must be cpu or auto" in done.stderr
    assert not [*tmp_path.glob("runs/*"), *tmp_path.glob("*.db")]


@pytest.mark.parametrize(
    ("knobs", "images", "world_size", "complaint"),
    [
        ({"batch_size": 64, "size": 32, "drop_last": False}, 65, 1, "no variance"),
        ({"batch_size": 1, "size": 32}, 100, 1, "no variance"),
        ({"batch_size": 8, "size": 32}, 100, 8, "no variance"),
        ({"batch_size": 64, "drop_last": False}, 67, 4, "fewer than the 4 processes"),
    ],
)
def test_a_step_that_batch_norm_could_not_take_is_refused(knobs, images, world_size, complaint):
    with pytest.raises(InputError, match=complaint):
        check_batches(resolve(knobs), images=images, world_size=world_size)


@pytest.mark.parametrize(
    ("knobs", "images", "world_size"),
    [
        ({"batch_size": 64, "size": 32}, 65, 1),  # the last single image is left out
        ({"batch_size": 64, "size": 64, "drop_last": False}, 65, 1),  # 2 x 2 px have a variance
        ({"batch_size": 64, "drop_last": False}, 40, 1),
        ({"batch_size": 2, "size": 64}, 40, 2),
    ],
)
def test_what_batch_norm_can_take_is_not(knobs, images, world_size):
    check_batches(resolve(knobs), images=images, world_size=world_size)


@pytest.mark.parametrize(
    ("knobs", "complaint"),
    [
        ({"architecture": "resnet27d"}, r"^architecture=resnet27d: must be .* \(resnet26d"),
        (
            {"architecture": "vit_tiny_patch16_224", "size": 64},
            "^architecture=vit_tiny_patch16_224: it takes no pictures of 64 x 64 px; "
            "it is made for 224: --size 224 --start-size 0$",
        ),
    ],
)
def test_a_network_that_there_is_not_or_for_other_pictures_is_refused_without_the_data(knobs, complaint):
    with pytest.raises(InputError, match=complaint):
        check_config(resolve(knobs))


def test_a_step_that_cannot_be_compiled_is_refused(tmp_path, monkeypatch):
    config = resolve({"data": "digits", "device": "cpu", "compile": True})
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"^compile=true: torch.compile needs a C\+\+ compiler on a CPU"):
        prepare(config, 1, progress=False)
    assert prepare(config.model_copy(update={"compile": False}), 1, progress=False).name == "digits"
