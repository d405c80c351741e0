"""One training step: what it works on, and what it does with a batch. Knows tensors; no epochs, no files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagenette.config import Config
from imagenette.data.batches import Batch, EvalBatches, Normalizer, TrainBatches
from imagenette.network.uncompiled import data_parallel
from imagenette.records import Epoch
from imagenette.training.distributed import World
from imagenette.training.gpu import Recorded, sent

BUFFERS = "broadcast_buffers" if torch.__version__ < "2.12" else "forward_sync_buffers"  # DDP's name for it


@dataclass
class Meters:
    """Sums over an epoch so far. They stay on the device: reading one would wait for it."""

    loss: Tensor
    """float64, summed over this rank's images."""
    correct: Tensor
    """int64."""
    bad_step: Tensor
    """int64: the first step whose loss was not finite, else 0; 1-based."""
    step: Tensor
    """int64: steps done."""
    images: int = 0
    seconds: float = 0.0

    @classmethod
    def zero(cls, device: torch.device) -> Meters:
        loss = torch.zeros((), dtype=torch.float64, device=device)
        correct, bad_step, step = torch.zeros(3, dtype=torch.int64, device=device).unbind()
        return cls(loss, correct, bad_step, step)

    def add(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Device work alone: no .item(), which would wait for the GPU, and nothing that a recorded step would
        not repeat."""
        loss = losses.detach().sum()
        self.step += 1
        self.loss += loss
        likeliest = labels if labels.ndim == 1 else labels.argmax(1)
        self.correct += (logits.detach().argmax(1) == likeliest).sum()
        self.bad_step += (self.bad_step == 0) * ~torch.isfinite(loss) * self.step

    def clear(self) -> None:
        """In place: a recorded step goes on adding to these very tensors."""
        for total in (self.loss, self.correct, self.bad_step, self.step):
            total.zero_()
        self.images, self.seconds = 0, 0.0


@dataclass
class TrainState:
    """Everything that a run consists of between two steps. Saved whole, restored whole."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    meters: Meters
    average: nn.Module | None = None
    epoch: int = 1
    """The epoch under way, 1-based."""
    step: int = 0
    """Steps of it that are done."""
    history: list[Epoch] = field(default_factory=list)

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and saved."""
        return self.average if self.average is not None else self.net


@dataclass(frozen=True)
class Task:
    """What the loop works on, and how."""

    config: Config
    train: TrainBatches
    holdout: EvalBatches | None
    test: EvalBatches
    normalize: Normalizer
    bfloat16: bool
    """Whether convolutions are computed in it: what the config asks for, where the network bears it."""


def new_state(
    net: nn.Module, optimizer: torch.optim.Optimizer, *, averaged: bool, device: torch.device
) -> TrainState:
    """averaged: whether the weights' average over steps is kept, and evaluated."""
    return TrainState(net, optimizer, Meters.zero(device), copy.deepcopy(net) if averaged else None)


def wrap(net: nn.Module, world: World, *, compiled: bool = False) -> Callable[[Tensor], Tensor]:
    """The network as training calls it: with several ranks, gradients are averaged over them. Buffers are
    shared before each evaluation instead of before each step."""
    apart: Any = {BUFFERS: False}
    model = net if world.size == 1 else data_parallel(net, gradient_as_bucket_view=True, **apart)
    # A resolution has its own kernels: those for any shape are slower.
    return torch.compile(model, dynamic=False) if compiled else model


def stepper(state: TrainState, task: Task, world: World, *, record: bool = True) -> Callable[[Batch], None]:
    """(batch) -> one optimizer step, counted in the state. On a GPU with a single process the step is
    recorded once and replayed, unless `record` is false, which only a measurement of that gain wants."""
    model, recorded = wrap(state.net, world, compiled=task.config.compile), None
    record = record and world.records
    follow = Follower(state.average, state.net, recorded=record) if state.average is not None else None

    def work(images: Tensor, labels: Tensor, global_size: int) -> None:
        learn(model, state, images, labels, global_size, task, world)
        if follow:
            follow()

    if record:
        recorded = Recorded(
            lambda images, labels: work(images, labels, len(labels)), forget=state.optimizer.zero_grad
        )

    def step(batch: Batch) -> None:
        images, labels = (sent(each, world.device) for each in (batch.images, batch.labels))
        if follow:
            done = (state.epoch - 1) * task.train.steps + state.step
            follow.set_decay(min(task.config.ema, (1 + done) / (10 + done)))
        if recorded:
            recorded(images, labels)
        else:
            work(images, labels, batch.global_size)
        state.meters.images += len(labels)
        state.step += 1

    return step


def learn(
    model: Callable[[Tensor], Tensor],
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    global_size: int,
    task: Task,
    world: World,
) -> None:
    """The device's part of a step, on the global batch's mean loss. labels: int64 [b], or the classes' shares
    of each target, float32 [b, classes]."""
    config = task.config
    with torch.autocast(world.device.type, torch.bfloat16, enabled=task.bfloat16):
        logits = model(task.normalize(images))
    losses = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=config.label_smoothing)
    # DDP averages gradients over ranks. Their parts of a batch may differ by an image; this mean does not.
    (losses.sum() * (world.size / global_size)).backward()
    if config.grad_clip:
        nn.utils.clip_grad_norm_(state.net.parameters(), config.grad_clip)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.meters.add(losses, logits, labels)


class Follower:
    """Moves an average towards a network's weights and running statistics. The tensors are listed once: they
    stay the same, whatever is loaded into them. torch's AveragedModel reads its count from the device at each
    step, and so waits for it."""

    def __init__(self, average: nn.Module, net: nn.Module, *, recorded: bool = False) -> None:
        """recorded: whether calls become part of a recorded step, which reads its decay from the GPU."""
        averaged, current = [list(each.state_dict().values()) for each in (average, net)]
        moving = [tensor.is_floating_point() for tensor in averaged]
        self._moving = [list(compress(tensors, moving)) for tensors in (averaged, current)]
        counts = [not moves for moves in moving]
        self._counts = [list(compress(tensors, counts)) for tensors in (averaged, current)]
        self._share: Tensor | float = torch.zeros((), device=self._moving[0][0].device) if recorded else 0.0

    def set_decay(self, decay: float) -> None:
        """Each call goes (1 - decay) of the way from here on."""
        if isinstance(self._share, Tensor):
            self._share.fill_(1 - decay)
        else:
            self._share = 1 - decay

    @torch.no_grad()
    def __call__(self) -> None:
        if self._counts[0]:  # batch norm's; other networks have none
            torch._foreach_copy_(self._counts[0], self._counts[1])
        averaged, current = self._moving
        share = self._share
        torch._foreach_lerp_(
            averaged, current, [share] * len(averaged) if isinstance(share, Tensor) else share
        )
