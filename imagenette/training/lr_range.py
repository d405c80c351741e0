"""The learning-rate range test (Smith 2017): the loss while the rate rises from step to step, in a short run.

The rate at which the loss falls fastest is a safe peak; where it is lowest, training is about to break.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise, takewhile
from pathlib import Path

from imagenette.config import Config
from imagenette.data import Dataset
from imagenette.drawing import BLUE, GREY, ORANGE, drawing, dress, head, legend, new_figure, write_png
from imagenette.errors import InputError, shown
from imagenette.files import write_whole
from imagenette.tracking import environment
from imagenette.tracking.measurement import log_measurement
from imagenette.tracking.outbox import Card
from imagenette.training import optim
from imagenette.training.bench import endless
from imagenette.training.distributed import join
from imagenette.training.step import stepper
from imagenette.training.system import machine
from imagenette.training.train import make_state, make_task

SMOOTH = 0.9  # of the exponential mean, per step
BROKEN = 4.0  # times the lowest smoothed loss: nothing comes back from there
CALM = 1.1  # times the lowest so far: beyond it the loss may fall again, but no schedule should go there


@dataclass(frozen=True, kw_only=True)
class Range:
    rates: list[float]
    """Of each step, rising by the same factor."""
    losses: list[float]
    """Mean over the step's images, before it moved the weights."""
    smooth: list[float]
    """The same, as an exponential mean without the bias of its beginning."""
    machine: dict[str, str]

    @property
    def lowest(self) -> float:
        """The rate at which the smoothed loss is lowest, before it first rises by a tenth."""
        least = accumulate(self.smooth, min)
        calm = list(takewhile(lambda pair: pair[0] <= CALM * pair[1], zip(self.smooth, least, strict=True)))
        return self.rates[min(range(len(calm)), key=self.smooth.__getitem__)]

    @property
    def steepest(self) -> float:
        """The rate at which it falls fastest, up to there."""
        end = max(self.rates.index(self.lowest), 1)
        falls = [before - after for before, after in pairwise(self.smooth[: end + 1])]
        return self.rates[max(range(len(falls)), key=falls.__getitem__)]

    @property
    def broke(self) -> bool:
        """Whether the loss got out of hand before the last rate."""
        return self.smooth[-1] > BROKEN * min(self.smooth) or not math.isfinite(self.losses[-1])

    def lines(self) -> list[str]:
        end = "where it broke off" if self.broke else "the last rate: a higher --high may show more"
        return [
            f"loss falls fastest at lr={self.steepest:.2g}, is lowest at lr={self.lowest:.2g}",
            f"{len(self.rates)} steps, lr {self.rates[0]:.2g} to {self.rates[-1]:.2g}, {end}",
        ]


def measure(config: Config, dataset: Dataset, *, low: float, high: float, steps: int) -> Range:
    """Train on the config's batches, the rate rising from low to high, until the steps are done or the loss
    is out of hand. InputError for rates in the wrong order."""
    if not 0 < low < high:
        raise InputError(f"low={low:g} and high={high:g}: low must be > 0 and < high")
    rates, losses, smooth = [], [], []
    mean = 0.0
    with join(config.device) as world:
        task = make_task(config.model_copy(update={"start_size": 0}), dataset, world)
        state = make_state(config, len(dataset.classes), world)
        step = stepper(state, task, world)
        state.net.train()
        before = 0.0
        for number, batch in enumerate(endless(task.train, steps, first_epoch=1)):
            rate = low * (high / low) ** (number / max(steps - 1, 1))
            optim.set_rate(state.optimizer, rate)
            step(batch)
            total = float(state.meters.loss)
            rates.append(rate)
            losses.append((total - before) / batch.global_size)
            before = total
            if not math.isfinite(losses[-1]):
                smooth.append(math.inf)
                break
            mean = SMOOTH * mean + (1 - SMOOTH) * losses[-1]
            smooth.append(mean / (1 - SMOOTH ** (number + 1)))
            if smooth[-1] > BROKEN * min(smooth):
                break
        return Range(rates=rates, losses=losses, smooth=smooth, machine=machine(world.device, world.size))


def draw(found: Range, path: Path, *, title: str) -> None:
    """Loss over rate, logarithmic, with both rates marked."""
    figure = new_figure(7.2, 4.2)
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, color=GREY, linewidth=0.8, alpha=0.6, label="each step")
    axes.plot(found.rates, found.smooth, color=BLUE, linewidth=2, label="smoothed")
    for rate, line, what in ((found.steepest, "solid", "falls fastest"), (found.lowest, "dotted", "lowest")):
        axes.axvline(rate, color=ORANGE, linestyle=line, linewidth=1.2, label=f"{what}: {rate:.2g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda rate, place: f"{rate:g}")
    finite = [value for value in found.smooth if math.isfinite(value)]
    axes.set_ylim(0, 1.6 * max(finite[0], min(finite)))
    axes.set_xlabel("learning rate")
    head(axes, f"Training loss: {title}")
    dress(axes)
    legend(axes, loc="upper left")
    write_png(figure, path)


def report(
    config: Config, dataset: Dataset, output: Path, *, low: float, high: float, steps: int, offline: bool
) -> tuple[Range, str | None]:
    """Measure; leave the plot and the figures in the folder and, unless offline, in MLflow: the id of the run
    there. InputError where the folder cannot be written, RunError where the server is dead."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={shown(output)} cannot be written: {error.strerror}") from None
    found = measure(config, dataset, low=low, high=high, steps=steps)
    title = f"{config.network}, {dataset.name}, {config.optimizer}, batch {config.batch_size}"
    with drawing():
        draw(found, output / "lr-range.png", title=title)
    figures = {"falls_fastest_at": found.steepest, "lowest_at": found.lowest, **asdict(found)}
    write_whole(output / "lr-range.json", json.dumps(figures | {"config": config.params()}, indent=2) + "\n")
    if offline:
        return found, None
    card = Card(
        experiment=environment.experiment_name(),
        run_name=f"lr-range {config.network} {config.optimizer}",
        params=config.params(),
        tags={"role": "lr-range", "study": "none", **found.machine},
    )
    curve = {"lr_range/lr": found.rates, "lr_range/loss": found.losses, "lr_range/smooth": found.smooth}
    files = [output / name for name in ("lr-range.png", "lr-range.json")]
    return found, log_measurement(card, curve, files, tracking_uri=environment.tracking_uri())
