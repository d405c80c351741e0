"""Training and evaluation, epoch by epoch. Knows tensors; knows nothing of MLflow, Optuna or files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from imagenette import optim
from imagenette.data.batches import Batch, EvalBatches, TrainBatches
from imagenette.distributed import World
from imagenette.errors import RunError
from imagenette.records import Epoch, Predictions

MEAN = (0.4625, 0.4580, 0.4295)  # of Imagenette's training pixels in [0, 1], RGB; the reference's figures
STD = (0.2452, 0.2390, 0.2469)
BUFFERS = "broadcast_buffers" if torch.__version__ < "2.12" else "forward_sync_buffers"  # DDP's name for it
GLANCE = 1.0  # seconds between two looks at the loss: each look waits for the device


class Stopped(Exception):
    """All ranks agreed to stop; the state stands at a step boundary and can be saved."""


class Diverged(RunError):
    """The loss is no longer finite."""


@dataclass
class Meters:
    """Sums over an epoch so far, on the device: reading one would wait for it."""

    loss: Tensor
    """float64, summed over this rank's images."""
    correct: Tensor
    """int64."""
    bad_step: Tensor
    """int64: the first step whose loss was not finite, else 0; 1-based."""
    images: int = 0
    seconds: float = 0.0

    @classmethod
    def zero(cls, device: torch.device) -> Meters:
        loss = torch.zeros((), dtype=torch.float64, device=device)
        return cls(loss, *torch.zeros(2, dtype=torch.int64, device=device))

    def add(self, losses: Tensor, logits: Tensor, labels: Tensor, step: int) -> None:
        loss = losses.detach().sum()
        self.loss += loss  # .item() here would wait for the GPU
        self.correct += (logits.detach().argmax(1) == labels).sum()
        self.bad_step += (self.bad_step == 0) * ~torch.isfinite(loss) * step
        self.images += len(labels)


@dataclass
class TrainState:
    """All that a run is at a step boundary. Saved whole, restored whole."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    meters: Meters
    average: AveragedModel | None = None
    epoch: int = 1
    """The epoch under way, 1-based."""
    step: int = 0
    """Steps of it that are done."""
    history: list[Epoch] = field(default_factory=list)

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and saved."""
        return self.average.module if self.average is not None else self.net


@dataclass(frozen=True)
class Task:
    """What the loop works on and how; values only."""

    train: TrainBatches
    holdout: EvalBatches | None
    test: EvalBatches
    epochs: int
    lr: float
    schedule: str
    warmup: float
    label_smoothing: float
    grad_clip: float
    test_every: int
    bfloat16: bool


def new_state(
    net: nn.Module, optimizer: torch.optim.Optimizer, *, ema: float, device: torch.device
) -> TrainState:
    """ema: decay per step of the averaged weights, 0 for none."""
    average = None
    if ema:
        average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True)
    return TrainState(net, optimizer, Meters.zero(device), average)


def fit(
    state: TrainState,
    task: Task,
    world: World,
    *,
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, int, float | None], None] = lambda step, images, loss: None,
    read_system: Callable[[], dict[str, float]] = dict,
) -> Iterator[tuple[Epoch, Predictions | None]]:
    """Train from where the state stands, yielding each finished epoch and, on every rank, what the network
    says of the whole test set (None where test_every skips it).

    stop: asked at each step; Stopped is raised once any rank's says yes. on_step: called after each step
    with (step, images of the global batch, the epoch's mean loss as of the last glance).
    """
    model = wrap(state.net, world)
    while state.epoch <= task.epochs:
        train_epoch(model, state, task, world, stop=stop, on_step=on_step)
        started = time.perf_counter()
        loss, accuracy, images, seconds = _close_epoch(state, world)
        evaluated: dict[str, float | None] = {}
        predictions = None
        if state.epoch % task.test_every == 0 or state.epoch == task.epochs:
            world.share_buffers(state.judged)
            if task.holdout:
                evaluated["holdout_loss"], said = evaluate(state.judged, task.holdout, world, stop=stop)
                evaluated["holdout_accuracy"] = said.accuracy
            evaluated["test_loss"], predictions = evaluate(state.judged, task.test, world, stop=stop)
            evaluated["test_accuracy"] = predictions.accuracy
        epoch = Epoch(
            index=state.epoch,
            timestamp=time.time_ns() // 1_000_000,
            train_loss=loss,
            train_accuracy=accuracy,
            **evaluated,
            lr=state.optimizer.param_groups[0]["lr"],
            speed_images_per_second=images / seconds,
            speed_epoch_seconds=seconds + time.perf_counter() - started,
            system=read_system(),
        )
        state.history.append(epoch)
        state.epoch, state.step, state.meters = state.epoch + 1, 0, Meters.zero(world.device)
        yield epoch, predictions


def wrap(net: nn.Module, world: World) -> nn.Module:
    """The network as training calls it: with several ranks, gradients are averaged over them. Buffers are
    shared before each evaluation instead of before each step."""
    if world.size == 1:
        return net
    apart: Any = {BUFFERS: False}
    return DistributedDataParallel(net, gradient_as_bucket_view=True, **apart)


def train_epoch(
    model: nn.Module,
    state: TrainState,
    task: Task,
    world: World,
    *,
    stop: Callable[[], bool],
    on_step: Callable[[int, int, float | None], None],
) -> None:
    """The rest of the epoch under way; state.step counts along."""
    model.train()
    total = task.epochs * task.train.steps
    began = glanced = time.perf_counter()
    before = state.meters.seconds
    loss, bad = None, False
    for batch in task.train.epoch(state.epoch, start=state.step):
        stopping, diverging = world.any(stop(), bad)
        if diverging:
            refuse_non_finite(state, world)
        if stopping:
            raise Stopped
        done = (state.epoch - 1) * task.train.steps + state.step
        lr = task.lr * optim.rate(done, total, schedule=task.schedule, warmup=task.warmup)
        optim.set_rate(state.optimizer, lr)
        train_step(model, state, batch, task, world)
        state.step += 1
        now = time.perf_counter()
        state.meters.seconds = before + now - began
        if now - glanced > GLANCE:
            glanced, loss = now, float(state.meters.loss) / state.meters.images
            bad = not math.isfinite(loss)
        on_step(state.step, batch.global_size, loss)
    float(state.meters.loss)  # the epoch's work is done only when the device says so
    state.meters.seconds = before + time.perf_counter() - began


def train_step(model: nn.Module, state: TrainState, batch: Batch, task: Task, world: World) -> None:
    """One optimizer step on the global batch's mean loss."""
    images = normalize(batch.images.to(world.device, non_blocking=True))
    labels = batch.labels.to(world.device, non_blocking=True)
    with torch.autocast(world.device.type, torch.bfloat16, enabled=task.bfloat16):
        logits = model(images)
    losses = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=task.label_smoothing)
    # DDP averages gradients over ranks; shares of a batch may differ by an image, the mean must not care.
    (losses.sum() * (world.size / batch.global_size)).backward()
    if task.grad_clip:
        nn.utils.clip_grad_norm_(state.net.parameters(), task.grad_clip)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.average is not None:
        state.average.update_parameters(state.net)
    state.meters.add(losses, logits, labels, state.step + 1)


def normalize(images: Tensor) -> Tensor:
    """uint8 [b, 3, h, w] in [0, 255] to float32 of mean 0 and standard deviation 1, memory format kept."""
    mean = torch.tensor(MEAN, device=images.device)[:, None, None] * 255
    std = torch.tensor(STD, device=images.device)[:, None, None] * 255
    return (images - mean) / std


@torch.inference_mode()
def evaluate(
    net: nn.Module, batches: EvalBatches, world: World, *, stop: Callable[[], bool]
) -> tuple[float, Predictions]:
    """(mean loss, predictions) over the whole split, exact: shards are unpadded and summed. The loss is plain
    cross entropy, whatever the label smoothing. In float32 whatever the precision of training: what is
    measured is what is saved, and a served model gives the same answers."""
    net.eval()
    loss = torch.zeros((), dtype=torch.float64, device=world.device)
    said: list[tuple[Tensor, Tensor, Tensor]] = []
    for images, labels in batches:
        if any(world.any(stop())):
            raise Stopped
        if not len(labels):
            continue
        logits = net(normalize(images.to(world.device, non_blocking=True)))
        here = labels.to(world.device, non_blocking=True)
        loss += F.cross_entropy(logits, here, reduction="sum")
        share, predicted = logits.softmax(1).max(1)
        said.append((here, predicted, share))
    columns = [torch.cat(column).cpu().numpy() for column in zip(*said, strict=True)] if said else None
    parts = [part for part in world.gather(columns) if part is not None]
    label, predicted, share = (np.concatenate(column) for column in zip(*parts, strict=True))
    assert len(label) == batches.images
    return float(world.sum(loss)) / batches.images, Predictions(label, predicted, share.astype(np.float32))


def refuse_non_finite(state: TrainState, world: World) -> None:
    """Diverged, on every rank, if a loss of this epoch was not finite on any."""
    bad = [step for step in world.gather(int(state.meters.bad_step)) if step]
    if bad:
        raise Diverged(f"the loss is not finite at epoch {state.epoch}, step {min(bad)}: try a lower lr")


def _close_epoch(state: TrainState, world: World) -> tuple[float, float, int, float]:
    """(mean loss, accuracy, images, seconds) of the epoch's training over all ranks."""
    refuse_non_finite(state, world)
    meters = state.meters
    counts = torch.tensor([meters.images, int(meters.correct)], dtype=torch.float64)
    images, correct = world.sum(counts).tolist()
    return float(world.sum(meters.loss.clone())) / images, correct / images, int(images), meters.seconds
