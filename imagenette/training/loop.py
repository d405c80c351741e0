"""Training and evaluation, epoch by epoch. Knows tensors; knows nothing of MLflow, Optuna or files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagenette.data.batches import Batch, EvalBatches, Normalizer
from imagenette.errors import RunError
from imagenette.records import Epoch, Predictions
from imagenette.training import optim
from imagenette.training.distributed import World
from imagenette.training.gpu import Reading
from imagenette.training.step import Task, TrainState, stepper

_ADVICE = "try a lower lr"
GLANCE = 1.0  # seconds between two readings of the loss: each costs the device a copy


class Stopped(Exception):
    """All ranks agreed to stop; the state stands at a step boundary and can be saved."""


class Diverged(RunError):
    """The loss, a weight or a running statistic is no longer finite."""


def fit(
    state: TrainState,
    task: Task,
    world: World,
    *,
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, int, float | None], None] = lambda step, images, loss: None,
    on_evaluated: Callable[[str, int, int], None] = lambda split, images, of: None,
    read_system: Callable[[], dict[str, float]] = dict,
) -> Iterator[tuple[Epoch, Predictions | None]]:
    """Train from where the state stands. Yields each finished epoch and, on every rank, the network's
    predictions for the whole test set (None where test_every skips it).

    stop: called at each step; Stopped is raised once it is true on any rank. on_step: called after each step
    with (step, images of the global batch, the epoch's mean loss when it was last read). on_evaluated: called
    during evaluation with ("holdout" or "test", images so far, images of the split).
    """
    config, step = task.config, stepper(state, task, world)
    while state.epoch <= config.epochs:
        train_epoch(step, state, task, world, stop=stop, on_step=on_step)
        started = time.perf_counter()
        loss, accuracy, images, seconds = _close_epoch(state, world)
        evaluated: dict[str, float | None] = {}
        predictions = None
        if state.epoch % config.test_every == 0 or state.epoch == config.epochs:
            world.share_buffers(state.judged)
            judge = partial(evaluate, state.judged, world=world, normalize=task.normalize, stop=stop)
            if task.holdout:
                told = partial(on_evaluated, "holdout")
                evaluated["holdout_loss"], held = judge(task.holdout, on_evaluated=told)
                evaluated["holdout_accuracy"] = held.accuracy
            evaluated["test_loss"], predictions = judge(task.test, on_evaluated=partial(on_evaluated, "test"))
            evaluated["test_accuracy"] = predictions.accuracy
            if unfit := [name for name, value in evaluated.items() if not math.isfinite(value or 0)]:
                raise Diverged(f"{unfit[0]} is not finite after epoch {state.epoch}: {_ADVICE}")
        epoch = Epoch(
            index=state.epoch,
            timestamp=time.time_ns() // 1_000_000,
            train_loss=loss,
            train_accuracy=accuracy,
            **evaluated,
            lr=float(state.optimizer.param_groups[0]["lr"]),
            speed_images_per_second=images / seconds,
            speed_epoch_seconds=seconds + time.perf_counter() - started,
            system=read_system(),
        )
        state.history.append(epoch)
        state.epoch, state.step = state.epoch + 1, 0
        state.meters.clear()
        yield epoch, predictions


def train_epoch(
    step: Callable[[Batch], None],
    state: TrainState,
    task: Task,
    world: World,
    *,
    stop: Callable[[], bool],
    on_step: Callable[[int, int, float | None], None],
) -> None:
    """The rest of the epoch under way; state.step counts along. Nothing here waits for the device but
    pictures that are made on the CPU, and the epoch's end."""
    state.net.train()
    config, total = task.config, task.config.epochs * task.train.steps
    began = glanced = time.perf_counter()
    before = state.meters.seconds
    loss, bad, reading, seen = None, False, Reading(world.device), 0
    for batch in task.train.epoch(state.epoch, start=state.step):
        stopping, diverging = world.any(stop(), bad)
        if diverging or stopping:
            refuse_non_finite(state, world)
        if stopping:
            raise Stopped
        done = (state.epoch - 1) * task.train.steps + state.step
        lr = config.lr * optim.rate(done, total, schedule=config.schedule, warmup=config.warmup)
        optim.set_rate(state.optimizer, lr)
        step(batch)
        now = time.perf_counter()
        state.meters.seconds = before + now - began
        if now - glanced > GLANCE:
            glanced, seen = now, state.meters.images
            reading.request(state.meters.loss)
        if (total_loss := reading.take()) is not None:
            loss = total_loss / seen
            bad = not math.isfinite(loss)
        on_step(state.step, batch.global_size, loss)
    float(state.meters.loss)  # waits for the device: only then is the epoch's work done
    state.meters.seconds = before + time.perf_counter() - began


@torch.inference_mode()
def evaluate(
    net: nn.Module,
    batches: EvalBatches,
    *,
    world: World,
    normalize: Normalizer,
    stop: Callable[[], bool],
    on_evaluated: Callable[[int, int], None] = lambda images, of: None,
) -> tuple[float, Predictions]:
    """(mean loss, predictions) over the whole split, exact: shards are unpadded and summed. The loss is plain
    cross entropy, without label smoothing, and everything is float32 whatever the precision of training: so
    what is measured is what is saved, and a served model gives the same answers."""
    net.eval()
    loss = torch.zeros((), dtype=torch.float64, device=world.device)
    answers: list[tuple[Tensor, Tensor, Tensor]] = []
    seen = 0
    for images, labels in batches:
        on_evaluated(min(seen * world.size, batches.images), batches.images)
        seen += len(labels)
        if any(world.any(stop())):
            raise Stopped
        if not len(labels):
            continue
        logits = net(normalize(images.to(world.device, non_blocking=True)))
        here = labels.to(world.device, non_blocking=True)
        loss += F.cross_entropy(logits, here, reduction="sum")
        share, predicted = logits.softmax(1).max(1)
        answers.append((here, predicted, share))
    columns = [torch.cat(column).cpu().numpy() for column in zip(*answers, strict=True)] if answers else None
    parts = [part for part in world.gather(columns) if part is not None]
    label, predicted, share = (np.concatenate(column) for column in zip(*parts, strict=True))
    assert len(label) == batches.images
    return float(world.sum(loss)) / batches.images, Predictions(label, predicted, share.astype(np.float32))


def refuse_non_finite(state: TrainState, world: World) -> None:
    """Diverged, on every rank, if a loss of this epoch was not finite on any, or if the last step's update,
    whose loss nobody has seen yet, left a network that is not. It is neither evaluated nor saved then."""
    bad = [step for step in world.gather(int(state.meters.bad_step)) if step]
    if bad:
        raise Diverged(f"the loss is not finite at epoch {state.epoch}, step {min(bad)}: {_ADVICE}")
    here = non_finite(state.net) or (state.average and non_finite(state.average))
    unfit = [name for name in world.gather(here) if name]
    if unfit:
        raise Diverged(f"{unfit[0]} is not finite at epoch {state.epoch}, step {state.step}: {_ADVICE}")


def non_finite(net: nn.Module) -> str | None:
    """The name of a weight or running statistic that is not finite."""
    named = {name: tensor for name, tensor in net.state_dict().items() if tensor.is_floating_point()}
    finite = torch.stack([tensor.isfinite().all() for tensor in named.values()]).tolist()  # one wait for all
    return next((name for name, fit in zip(named, finite, strict=True) if not fit), None)


def _close_epoch(state: TrainState, world: World) -> tuple[float, float, int, float]:
    """(mean loss, accuracy, images, seconds) of the epoch's training over all ranks."""
    refuse_non_finite(state, world)
    meters = state.meters
    counts = torch.tensor([meters.images, int(meters.correct)], dtype=torch.float64)
    images, correct = world.sum(counts).tolist()
    return float(world.sum(meters.loss.clone())) / images, correct / images, int(images), meters.seconds
