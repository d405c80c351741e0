"""Training speed with the real data path against one resident batch, which is the machine's limit for a
network and a precision. Both run the same training step, in turns, so that a noisy machine hits both."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from imagenette.config import Config
from imagenette.data import Dataset
from imagenette.data.batches import Batch, TrainBatches
from imagenette.network import kernels
from imagenette.training.distributed import choose_gpu_kernels, join
from imagenette.training.step import stepper
from imagenette.training.system import machine
from imagenette.training.train import make_state, make_task

WARM_UP = 6  # steps of each kind before the first measured one


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Training images per second, one value a round, and what they were measured with."""

    real: list[float]
    """Epochs as training runs them: decoded images are cropped, mirrored and resized on the way."""
    resident: list[float]
    """One batch that is already in memory, again and again: the limit."""
    plain: list[float]
    """The same by torch's own kernels, in steps neither recorded nor compiled; empty where all are such."""
    steps: int
    """Optimizer steps per round and kind."""
    config: dict[str, str]
    machine: dict[str, str]

    @property
    def ratio(self) -> float:
        """Median over rounds of real to resident."""
        return statistics.median(real / limit for real, limit in zip(self.real, self.resident, strict=True))

    @property
    def gain(self) -> float:
        """Median over rounds of real to plain: what our kernels, recording and compiling bring."""
        return statistics.median(real / plain for real, plain in zip(self.real, self.plain, strict=True))

    def summary(self) -> dict[str, object]:
        return {
            "images_per_second": statistics.median(self.real),
            "limit_images_per_second": statistics.median(self.resident),
            "ratio": self.ratio,
            **(
                {"plain_images_per_second": statistics.median(self.plain), "gain": self.gain}
                if self.plain
                else {}
            ),
            "rounds": {"real": self.real, "resident": self.resident, "plain": self.plain},
            "steps_per_round": self.steps,
            "config": self.config,
            "machine": self.machine,
        }

    def lines(self) -> list[str]:
        real, limit = statistics.median(self.real), statistics.median(self.resident)
        spread = f"rounds {min(self.real):.1f} to {max(self.real):.1f}"
        return [
            f"real data path   {real:8.1f} images/s  ({spread})",
            f"resident batch   {limit:8.1f} images/s  (the limit)",
            f"ratio            {self.ratio:8.3f}  (median of {len(self.real)} rounds of {self.steps} steps)",
            *(
                f"plain steps      {statistics.median(self.plain):8.1f} images/s  "
                f"(one batch, torch's own kernels; the real data path has {self.gain:.3f} of it)"
                for _ in self.plain[:1]
            ),
        ]


def measure(config: Config, dataset: Dataset, *, rounds: int, steps: int) -> Speed:
    """Train `steps` steps of each kind in turns, `rounds` times. The start of an epoch counts as real."""
    choose_gpu_kernels(config)
    with join(config.device) as world:
        task = make_task(config.model_copy(update={"start_size": 0}), dataset, world)
        state = make_state(config, len(dataset.classes), world)
        step = stepper(state, task, world)
        plainly = None
        if world.device.type == "cuda" or config.compile or config.kernels == "auto":
            stock = replace(task, config=config.model_copy(update={"compile": False}))
            plainly = stepper(state, stock, world, record=False)
        state.net.train()
        one = next(iter(task.train.epoch(1)))

        def speed(batches: Iterable[Batch], step: Callable[[Batch], None] = step) -> float:
            started, images = time.perf_counter(), 0
            for batch in batches:
                step(batch)
                images += batch.global_size
            float(state.meters.loss)  # waits for the device
            return images / (time.perf_counter() - started)

        speed(itertools.repeat(one, WARM_UP))
        speed(endless(task.train, WARM_UP, first_epoch=1))
        if plainly:
            with kernels.stock(state.net):
                speed(itertools.repeat(one, WARM_UP), plainly)
        real, resident, plain = [], [], []
        for turn in range(rounds):
            real.append(speed(endless(task.train, steps, first_epoch=turn + 2)))
            resident.append(speed(itertools.repeat(one, steps)))
            if plainly:
                with kernels.stock(state.net):
                    plain.append(speed(itertools.repeat(one, steps), plainly))
        return Speed(
            real=real,
            resident=resident,
            plain=plain,
            steps=steps,
            config=config.params(),
            machine=machine(world.device, world.size),
        )


def endless(train: TrainBatches, steps: int, *, first_epoch: int) -> Iterator[Batch]:
    """The first `steps` batches of as many epochs as that takes."""
    epochs = itertools.chain.from_iterable(train.epoch(epoch) for epoch in itertools.count(first_epoch))
    return itertools.islice(epochs, steps)
