"""A study's curves over epochs: the baseline's accuracy and loss, every arm's accuracy. Pure functions of the
study; each gives a Drawn, or None where it would show nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from imagenette.drawing import dress, epoch_axis, head, legend, percent
from imagenette.report.conclusions import cut
from imagenette.report.runs import Curve
from imagenette.report.study import Arm, Study
from imagenette.report.style import Drawn, Look, Series, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 7  # arms in one figure: more cannot be told apart
_SPLITS: dict[str, Any] = {"train": (0, (5, 1.5)), "test": "solid"}
Values = npt.NDArray[np.float64]


def baseline_curves(study: Study) -> Drawn | None:
    """Accuracy and loss over epochs, on the training and on the test images, in the arm's colour."""
    arm = study.baseline or next((arm for arm in study.arms if arm.runs), None)
    if arm is None or not any(run.curves for run in arm.runs):
        return None
    drawn = Drawn(
        name="baseline-curves",
        caption=f"{arm.name}: accuracy and loss by epoch, {_over([arm])}. Training images are augmented and "
        "counted before each update.",
        size=(9.2, 3.6),
    )
    look = looks([each.name for each in study.arms])[arm.name]
    for axes, quantity in zip(drawn.figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        series = [
            _draw(axes, arm, f"{split}/{quantity}", replace(look, dashes=dashes), split)
            for split, dashes in _SPLITS.items()
        ]
        _finish(drawn, axes, series, quantity)
        head(axes, quantity.capitalize())
    if drawn.figure.axes[0].get_legend_handles_labels()[0]:
        legend(drawn.figure.axes[0], loc="lower right")
    return drawn


def test_curves(study: Study) -> Drawn | None:
    """Test accuracy over epochs, arm by arm."""
    return _of_arms(study, "test-curves", "Test accuracy by epoch", {"test/accuracy": ""})


def train_and_test_curves(study: Study) -> Drawn | None:
    """Training accuracy on the left, test accuracy on the right."""
    caption = "Accuracy by epoch on the training images (augmented; left) and on the test images (right)"
    panels = {"train/accuracy": "Training images", "test/accuracy": "Test images"}
    return _of_arms(study, "train-test-curves", caption, panels)


def _of_arms(study: Study, name: str, caption: str, panels: Mapping[str, str]) -> Drawn | None:
    """panels: curve -> the heading of its axes, from left to right."""
    arms = _chosen(study, next(iter(panels)))
    if not arms:
        return None
    width = 6.4 if len(panels) == 1 else 9.2
    drawn = Drawn(name=name, caption=f"{caption}, {_over(arms)}.{cut(study, arms)}", size=(width, 3.9))
    look = looks([arm.name for arm in study.arms])
    row = drawn.figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (key, title) in zip(row, panels.items(), strict=True):
        series = [_draw(axes, arm, key, look[arm.name], study.short(arm)) for arm in arms]
        _finish(drawn, axes, series, "accuracy")
        if title:
            head(axes, title)
    for axes in row[1:]:
        axes.set_ylabel("")
    handles, _ = row[0].get_legend_handles_labels()
    legend(drawn.figure, handles=handles, loc="outside right upper", title=study.knob)
    return drawn


def _chosen(study: Study, key: str) -> list[Arm]:
    """At most _MOST arms that have such curves: the baseline, and others spread over the rest."""
    arms = [arm for arm in study.arms if len(_shared(_curves(arm, key))[0])]
    if len(arms) <= _MOST:
        return arms
    places = {round(i * (len(arms) - 1) / (_MOST - 1)) for i in range(_MOST)}
    if study.baseline in arms and arms.index(study.baseline) not in places:
        places = {*sorted(places)[:-1], arms.index(study.baseline)}
    return [arms[place] for place in sorted(places)]


def _draw(axes: Axes, arm: Arm, key: str, look: Look, label: str) -> Series | None:
    """The mean over runs, and a band from the lowest to the highest."""
    x, y = _shared(_curves(arm, key))
    if not len(x):
        return None
    mean, low, high = y.mean(axis=0), y.min(axis=0), y.max(axis=0)
    marker = look.marker if len(x) < 12 else ""
    style: dict[str, Any] = {"color": look.colour, "linestyle": look.dashes, "marker": marker}
    axes.plot(x, mean, label=label, linewidth=1.6, markersize=4, **style)
    if (high > low).any():
        axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
    return Series(label=label, colour=look.colour, x=x.tolist(), y=[round(v, 5) for v in mean.tolist()])


def _curves(arm: Arm, key: str) -> list[Curve]:
    return [run.curves[key] for run in arm.runs if key in run.curves]


def _shared(curves: Sequence[Curve]) -> tuple[Values, Values]:
    """[epochs] that every run has, and [runs, epochs] values."""
    if not curves:
        return np.empty(0), np.empty((0, 0))
    epochs = curves[0][0]
    for x, _ in curves[1:]:
        epochs = np.intersect1d(epochs, x)
    return epochs, np.array([y[np.isin(x, epochs)] for x, y in curves])


def _finish(drawn: Drawn, axes: Axes, series: Sequence[Series | None], quantity: str) -> None:
    found = [each for each in series if each]
    epoch_axis(axes, {epoch for each in found for epoch in each.x})
    if quantity == "accuracy":
        percent(axes.yaxis)
        axes.set_ylabel("accuracy, %")
    else:
        axes.set_ylabel(quantity)
    dress(axes)
    drawn.curves.append((axes, found, quantity == "accuracy"))


def _over(arms: Sequence[Arm]) -> str:
    if max(len(arm.runs) for arm in arms) == 1:
        return "one run each"
    return "mean over seeds, the band from the lowest to the highest"
