"""The loop on a real network and the real digits, a few steps at a time."""

import math
import os
import sys
import termios
import threading
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F

from imagenette.config import resolve
from imagenette.data import open_dataset
from imagenette.tracking.outbox import read_card
from imagenette.training import train
from imagenette.training.checkpoint import pack, unpack
from imagenette.training.distributed import World
from imagenette.training.gpu import Reading
from imagenette.training.job import Job
from imagenette.training.lifecycle import open_tracker
from imagenette.training.loop import Diverged, Stopped, evaluate, fit
from imagenette.training.progress import Progress
from imagenette.training.step import Follower

CPU = World(0, 1, torch.device("cpu"))
TINY = {"data": "digits", "limit": 96, "batch_size": 32, "epochs": 2, "precision": "float32", "lr": 0.01}


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits")


def make(digits, **knobs):
    config = resolve(TINY | knobs)
    return train.make_task(config, digits, CPU), train.make_state(config, len(digits.classes), CPU)


def weights(state):
    return [tensor.clone() for tensor in state.net.state_dict().values()]


def test_a_loss_that_is_not_finite_ends_the_run_and_names_epoch_and_step(digits):
    task, state = make(digits, lr=100, schedule="constant", optimizer="adamw", limit=320, momentum=0.99)
    with torch.no_grad():
        state.net.fc.weight.fill_(math.nan)
    with pytest.raises(Diverged, match=r"^the loss is not finite at epoch 1, step 1: try a lower lr$"):
        list(fit(state, task, CPU))


def test_a_last_update_that_overflows_is_no_finished_epoch(digits):
    """The loss of each step was finite; that of the weights after the last one, nobody had seen."""
    huge = {"optimizer": "sgd", "lr": 100, "weight_decay": 10, "momentum": 0.99, "schedule": "constant"}
    task, state = make(digits, **huge, epochs=1, limit=200, batch_size=64, size=32, precision="bfloat16")
    with pytest.raises(Diverged, match=r" is not finite .*: try a lower lr$"):
        list(fit(state, task, CPU))
    assert not state.history


@pytest.mark.parametrize("unfit", [math.inf, math.nan])
@pytest.mark.parametrize("where", ["weight", "running_mean"])
def test_what_is_not_finite_is_neither_evaluated_nor_stopped_at(digits, unfit, where):
    task, state = make(digits, ema=0.9)
    steps = iter(range(100))

    def stop():
        if next(steps) == 2:
            with torch.no_grad():
                getattr(state.average.bn1, where)[0] = unfit
            return True
        return False

    with pytest.raises(Diverged, match=rf"^bn1.{where} is not finite at epoch 1, step 2"):
        list(fit(state, task, CPU, stop=stop))


@pytest.mark.parametrize(("holdout", "chosen"), [(0.1, "holdout"), (1e-4, "test"), (0, "test")])
def test_a_run_is_tagged_by_the_images_that_choose_its_epoch(digits, tmp_path, holdout, chosen):
    task, _ = make(digits, holdout=holdout)
    job = Job(config=task.config, output=tmp_path, offline=True)
    open_tracker(job, digits, task, facts={})
    assert read_card(tmp_path).tags["selection"] == chosen


def test_the_bar_says_what_is_done_while_it_stands(digits, monkeypatch):
    """On a real terminal; elsewhere nothing of it is printed."""
    inside, outside = os.openpty()
    termios.tcsetwinsize(outside, (24, 120))
    said: list[bytes] = []

    def read() -> None:  # what nobody reads holds the writer up
        with suppress(OSError):
            while part := os.read(inside, 4096):
                said.append(part)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    task, state = make(digits, holdout=0.2)
    with os.fdopen(outside, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(state, task, shown=True) as progress:
            list(fit(state, task, CPU, on_step=progress.step, on_evaluated=progress.evaluated))
            progress.doing("drawing figures")
        monkeypatch.undo()
    reader.join(10)
    text = b"".join(said).decode()
    places = [
        text.find(words)
        for words in ("epoch 1/2: ", "evaluating holdout 0 %", "evaluating test 0 %", "drawing figures")
    ]
    assert places == sorted(places), text
    assert places[0] >= 0, text


@pytest.mark.parametrize("after", [1, 2, 4])
def test_stopping_at_any_step_and_going_on_changes_nothing(digits, after):
    task, state = make(digits)
    whole = [epoch for epoch, _ in fit(state, task, CPU)]
    task, again = make(digits)
    asked = iter(range(100))
    with pytest.raises(Stopped):
        list(fit(again, task, CPU, stop=lambda: next(asked) == after))
    list(fit(again, task, CPU))
    assert all(torch.equal(a, b) for a, b in zip(weights(state), weights(again), strict=True))
    plain = [(e.train_loss, e.train_accuracy, e.test_loss, e.lr) for e in whole]
    assert [(e.train_loss, e.train_accuracy, e.test_loss, e.lr) for e in again.history] == plain


@pytest.mark.parametrize("after", [*(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 6)), 4])
def test_a_state_saved_anywhere_goes_on_in_a_fresh_one_with_nothing_changed(digits, after):
    """Also in the middle of an epoch's evaluation, with the rate that the epoch ended with."""
    knobs = {"optimizer": "muon", "ema": 0.9, "start_size": 32, "size": 48}
    task, state = make(digits, **knobs)
    list(fit(state, task, CPU))
    task, stopped = make(digits, **knobs)
    asked = iter(range(100))
    with pytest.raises(Stopped):
        list(fit(stopped, task, CPU, stop=lambda: next(asked) == after))
    task, again = make(digits, **knobs)
    unpack(pack(stopped, CPU), again, CPU)
    list(fit(again, task, CPU))
    assert all(torch.equal(a, b) for a, b in zip(weights(state), weights(again), strict=True))
    plain = [(e.train_loss, e.train_accuracy, e.test_loss, e.lr) for e in state.history]
    assert [(e.train_loss, e.train_accuracy, e.test_loss, e.lr) for e in again.history] == plain


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_evaluation_is_the_plain_mean_over_every_image_in_float32(digits, precision):
    task, state = make(digits, label_smoothing=0.2, precision=precision)
    loss, said = evaluate(state.net, task.test, world=CPU, normalize=task.normalize, stop=lambda: False)
    with torch.inference_mode():
        logits = torch.cat([state.net.eval()(task.normalize(images)) for images, _ in task.test])
    labels = torch.from_numpy(digits.test.labels)
    assert loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert said.accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert len(said.label) == len(digits.test)


def test_averaged_weights_are_what_is_judged(digits):
    task, state = make(digits, ema=0.9, zero_init=False)
    list(fit(state, task, CPU))
    assert state.judged is not state.net
    moved = [
        not torch.equal(a, b) for a, b in zip(state.judged.parameters(), state.net.parameters(), strict=True)
    ]
    assert all(moved)


def test_clipped_gradients_move_the_weights_less(digits):
    distance = {}
    for clip in (0.0, 1e-3):
        task, state = make(digits, epochs=1, grad_clip=clip, weight_decay=0)
        before = [p.detach().clone() for p in state.net.parameters()]
        list(fit(state, task, CPU))
        after = [p.detach() for p in state.net.parameters()]
        distance[clip] = float(sum((a - b).square().sum() for a, b in zip(after, before, strict=True)))
    assert 0 < distance[1e-3] < distance[0.0] / 100


def test_skipped_evaluations_are_missing_and_the_last_epoch_never_is(digits):
    task, state = make(digits, epochs=3, test_every=2)
    history = [epoch for epoch, _ in fit(state, task, CPU)]
    assert [epoch.test_accuracy is None for epoch in history] == [True, False, False]


def test_without_a_holdout_there_are_no_holdout_metrics(digits):
    task, state = make(digits, holdout=0, epochs=1)
    ((epoch, _),) = fit(state, task, CPU)
    assert not any(name.startswith("holdout/") for name in epoch.metrics())


def test_bfloat16_stays_close_to_float32(digits):
    losses = []
    for precision in ("float32", "bfloat16"):
        task, state = make(digits, precision=precision, epochs=1)
        losses += [epoch.train_loss for epoch, _ in fit(state, task, CPU)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


def test_the_average_moves_its_share_of_the_way_and_counts_are_copied(digits):
    _, state = make(digits, ema=0.9, zero_init=False)
    before = {name: tensor.clone() for name, tensor in state.average.state_dict().items()}
    with torch.no_grad():
        for tensor in state.net.state_dict().values():
            tensor += 1
    follow = Follower(state.average, state.net)
    follow.set_decay(0.75)
    follow()
    for name, tensor in state.average.state_dict().items():
        moved = 0.25 if tensor.is_floating_point() else 1
        torch.testing.assert_close(tensor, before[name] + moved)


def test_a_reading_is_there_once_and_only_when_it_was_requested():
    reading = Reading(CPU.device)
    assert reading.take() is None
    reading.request(torch.tensor(2.5))
    assert (reading.take(), reading.take()) == (2.5, None)
