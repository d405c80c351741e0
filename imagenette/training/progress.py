"""What a person sees while a run trains: a bar on a terminal, which also says what is done while no image is
trained on, and one line for each epoch everywhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType

from tqdm import tqdm

from imagenette.records import Epoch
from imagenette.training.step import Task, TrainState


class Progress:
    """Images seen over the whole run, images/s, loss, time left. Without a terminal the bar is silent."""

    def __init__(self, state: TrainState, task: Task, *, shown: bool) -> None:
        """Begins where the state stands. shown: False prints nothing (ranks other than 0)."""
        self._epoch, self._epochs, self._shown = state.epoch, task.config.epochs, shown
        self.said = False  # whether `say` had something
        per_epoch = task.train.images
        self._bar = tqdm(
            total=per_epoch * self._epochs,
            initial=(state.epoch - 1) * per_epoch + state.step * per_epoch // task.train.steps,
            unit="img",
            unit_scale=True,
            smoothing=0.05,
            dynamic_ncols=True,
            leave=False,
            disable=not (shown and sys.stderr.isatty()),
        )

    def step(self, step: int, images: int, loss: float | None) -> None:
        self._bar.set_description_str(f"epoch {self._epoch}/{self._epochs}", refresh=False)
        if loss is not None:
            self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self._bar.update(images)

    def say(self, lines: Sequence[str]) -> None:
        """Once: what is known only while the run is under way."""
        if self._shown and not self.said and lines:
            self._bar.write("\n".join(lines), file=sys.stderr)
        self.said = self.said or bool(lines)

    def evaluated(self, split: str, images: int, of: int) -> None:
        """So many images of `holdout` or `test` are evaluated."""
        self.doing(f"epoch {self._epoch}/{self._epochs}: evaluating {split} {100 * images // of} %")

    def doing(self, what: str) -> None:
        """What is under way now; the bar stands still meanwhile."""
        self._bar.set_description_str(what)

    def epoch(self, epoch: Epoch) -> None:
        self._epoch = epoch.index + 1
        if self._shown:
            self._bar.write(line(epoch, self._epochs), file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def line(epoch: Epoch, epochs: int) -> str:
    """`epoch  3/16  train 1.234 61.2 %  holdout 1.034 70.1 %  test 1.050 69.5 %  356 img/s  lr 0.0912`"""
    parts = [f"epoch {epoch.index:>{len(str(epochs))}}/{epochs}"]
    for name in ("train", "holdout", "test"):
        loss, accuracy = getattr(epoch, f"{name}_loss"), getattr(epoch, f"{name}_accuracy")
        if loss is not None:
            parts.append(f"{name} {loss:.3f} {100 * accuracy:.1f} %")
    parts += [f"{epoch.speed_images_per_second:.0f} img/s", f"lr {epoch.lr:.3g}"]
    return "  ".join(parts)
