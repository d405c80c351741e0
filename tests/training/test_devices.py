"""What holds on every device: each law runs on the CPU, and again on a GPU where there is one (`-m gpu`).

A test that only a GPU could run would rot unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from imagenette.config import resolve
from imagenette.data import open_dataset
from imagenette.data.batches import Normalizer
from imagenette.network.self_test import TOLERANCE
from imagenette.training import optim, train
from imagenette.training.checkpoint import pack, unpack
from imagenette.training.distributed import World, choose_gpu_kernels
from imagenette.training.gpu import staged
from imagenette.training.loop import evaluate, fit, train_epoch
from imagenette.training.step import Task, TrainState, stepper
from tests.gpu import DEVICES

CPU = World(0, 1, torch.device("cpu"))
WHOLE = {
    "data": "digits",
    "precision": "float32",
    "size": 32,
    "drop_last": False,
    "lr": 1e-3,
    "momentum": 0.5,
}
MANY = {"batch_size": 32, "limit": 480, "epochs": 4}  # enough steps of a shape for it to be recorded
FEW = {"batch_size": 16, "limit": 40, "epochs": 2}
PARTS = [
    pytest.param({"optimizer": "sgd"}, id="sgd"),
    pytest.param({"optimizer": "adamw"}, id="adamw"),
    pytest.param({"optimizer": "muon"}, id="muon"),
    pytest.param({"architecture": "xresnet", "activation": "silu"}, id="xresnet"),
    pytest.param({"architecture": "test_resnet"}, id="timm"),
    pytest.param({"cutmix": 1.0}, id="cutmix"),
    pytest.param({"grad_clip": 0.5}, id="clipped"),
    pytest.param({"ema": 0.9}, id="averaged"),
    pytest.param({"cudnn_benchmark": True}, id="cudnn's trials"),
    pytest.param({"start_size": 32, "size": 48}, id="two sizes"),
]


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits")


@pytest.fixture(params=DEVICES)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Float32 is float32: join() turns TF32 off, and these tests call no join()."""
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield World(0, 1, torch.device(request.param))
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


def make(digits, world: World, **knobs) -> tuple[Task, TrainState]:
    config = resolve(WHOLE | (MANY if world.device.type == "cuda" else FEW) | knobs)
    choose_gpu_kernels(config)
    return train.make_task(config, digits, world), train.make_state(config, len(digits.classes), world)


def epochs(task: Task, state: TrainState, world: World, *, record: bool = True) -> list[float]:
    """Each epoch's mean loss, without evaluations."""
    step, losses = stepper(state, task, world, record=record), []
    for state.epoch in range(1, task.config.epochs + 1):
        train_epoch(step, state, task, world, stop=lambda: False, on_step=lambda *of: None)
        losses.append(float(state.meters.loss) / state.meters.images)
        state.meters.clear()
        state.step = 0
    return losses


@contextmanager
def nothing_waits(world: World) -> Iterator[None]:
    """Whatever waits for the GPU raises."""
    cuda = world.device.type == "cuda"
    if cuda:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if cuda:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("knobs", PARTS)
def test_recorded_steps_compute_what_plain_ones_do(digits, world: World, knobs: dict):
    """With a partial last batch in each epoch; on a CPU both are plain, and equal to the bit."""
    recorded, plain = (
        epochs(*make(digits, world, **knobs), world, record=record) for record in (True, False)
    )
    assert recorded == (pytest.approx(plain, rel=2e-2) if world.device.type == "cuda" else plain)


@pytest.mark.parametrize("knobs", PARTS)
def test_no_step_waits_for_the_device(digits, world: World, knobs: dict):
    """Batches and all; the first steps may, in which kernels are chosen and the step is recorded."""
    task, state = make(digits, world, **knobs | {"precision": "bfloat16"})
    step = stepper(state, task, world)
    state.net.train()
    batches = iter(task.train.epoch(1))
    for _, batch in zip(range(task.train.steps // 2), batches, strict=False):
        step(batch)
    with nothing_waits(world):
        for batch in batches:
            optim.set_rate(state.optimizer, 1e-3)
            step(batch)
    assert state.step == task.train.steps


def test_pictures_made_on_the_cpu_train_as_well(digits, world: World):
    """As where they do not fit into the GPU's memory; a copy from ordinary memory would wait for it."""
    losses = []
    for made_on in (world, CPU):
        task, state = make(digits, world, flip=False, crop_scale=1.0)
        step = stepper(state, task, world)
        state.net.train()
        for batch in make(digits, made_on, flip=False, crop_scale=1.0)[0].train.epoch(1):
            assert staged(batch.images, world.device).is_pinned() == (
                world.device.type == "cuda" and not batch.images.is_cuda
            )
            step(batch)
        losses.append(float(state.meters.loss))
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


@pytest.mark.parametrize("knobs", PARTS[:3])
def test_a_state_saved_between_epochs_goes_on_as_the_one_that_was_not(digits, world: World, knobs: dict):
    """A recording is made anew: it is no part of the state."""
    task, state = make(digits, world, **knobs | {"ema": 0.9})
    whole = [epoch.train_loss for epoch, _ in fit(state, task, world)]
    task, state = make(digits, world, **knobs | {"ema": 0.9})
    next(fit(state, task, world))
    task, later = make(digits, world, **knobs | {"ema": 0.9})
    unpack(pack(state, world), later, world)
    list(fit(later, task, world))
    resumed = [epoch.train_loss for epoch in later.history]
    assert resumed == (pytest.approx(whole, rel=2e-2) if world.device.type == "cuda" else whole)


@pytest.mark.parametrize("knobs", PARTS[:3])
def test_a_state_goes_from_the_cpu_to_the_device_and_back(digits, world: World, knobs: dict):
    task, state = make(digits, CPU, **knobs)
    next(fit(state, task, CPU))
    task, moved = make(digits, world, **knobs | {"epochs": 2})
    unpack(pack(state, CPU), moved, world)
    list(fit(moved, task, world))
    assert moved.history[1].train_loss < moved.history[0].train_loss * 1.2
    _, back = make(digits, CPU, **knobs)
    unpack(pack(moved, world), back, CPU)
    assert back.epoch == 3
    ours, theirs = back.net.state_dict(), moved.net.state_dict()
    assert all(torch.equal(tensor, theirs[name].cpu()) for name, tensor in ours.items())


@pytest.mark.parametrize("knobs", [PARTS[0], *PARTS[3:5]])
def test_what_was_answered_in_training_is_what_the_saved_model_answers_on_a_cpu(digits, world: World, knobs):
    """The same pictures to the level, float32 and no TF32: shares agree to what the registry asks for."""
    task, state = make(digits, world, **knobs | {"precision": "bfloat16", "epochs": 1})
    list(fit(state, task, world))
    net = state.judged
    _, here = evaluate(net, task.test, world=world, normalize=task.normalize, stop=lambda: False)
    task, _ = make(digits, CPU, **knobs)
    _, on_cpu = evaluate(net.cpu(), task.test, world=CPU, normalize=Normalizer(digits), stop=lambda: False)
    assert np.abs(here.share - on_cpu.share).max() < TOLERANCE


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_epoch_is_close_to_the_cpus(digits, world: World, precision: str):
    knobs = {"precision": precision, "limit": 128, "epochs": 1}
    losses = [next(fit(*reversed(make(digits, each, **knobs)), each))[0].train_loss for each in (CPU, world)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("knobs", [{"grad_clip": 0.5, "ema": 0.9}, {"architecture": "xresnet"}])
def test_compiled_steps_compute_what_plain_ones_do(digits, world: World, knobs: dict):
    runs = []
    for compiled in (True, False):
        task, state = make(digits, world, **knobs | {"compile": compiled})
        runs.append([epoch.train_loss for epoch, _ in fit(state, task, world)])
    assert runs[0] == pytest.approx(runs[1], rel=2e-2)
    assert runs[0] != runs[1], "nothing was compiled"
