"""The words of results, in one place: the accuracies of a run and their names, how a run can stand.

Pure functions of a run's history. Knows neither files nor MLflow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, get_args

from imagenette.config import Config
from imagenette.records import Epoch

# -- names of metrics ----------------------------------------------------------------------------------

Objective = Literal[
    "selected/holdout_accuracy",
    "final/holdout_accuracy",
    "selected/test_accuracy",
    "final/test_accuracy",
    "best/test_accuracy",
]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
"""The accuracies of a finished run, shares in [0, 1]: what a study may maximize."""
SELECTED_HOLDOUT, FINAL_HOLDOUT, SELECTED, FINAL, BEST = OBJECTIVES
METRICS = {
    SELECTED_HOLDOUT: "holdout, selected epoch",
    FINAL_HOLDOUT: "holdout, last epoch",
    SELECTED: "test, selected epoch",
    FINAL: "test, last epoch",
    BEST: "test, best epoch",
}
"""The same in words: which images, which epoch."""
TEST_ACCURACIES = {name: METRICS[name] for name in (SELECTED, FINAL, BEST)}
"""The three accuracies on the test images, kept apart, the most honest first."""
SUMMARY = ("best/", "selected/", "final/")
"""How the names of metrics begin that a run has once, at its end."""
CURVES = ("train/", "holdout/", "test/")
"""How the names of metrics begin that a run has for each epoch."""


def summary_of(metrics: dict[str, float]) -> dict[str, float]:
    """Those of a run's metrics that it has once, at its end."""
    return {name: value for name, value in metrics.items() if name.startswith(SUMMARY)}


def split_of(objective: str) -> str:
    """`test` or `holdout`: the images that an accuracy is measured on."""
    return objective.partition("/")[2].removesuffix("_accuracy")


# -- how a run stands ----------------------------------------------------------------------------------


class Status(StrEnum):
    """How a run, or a study's cell, stands; the same words in results, tags, databases and reports."""

    WAITING = "waiting"
    """A cell that nobody has claimed."""
    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    """Ended early: the study's pruner found it not worth going on with."""
    PREEMPTED = "preempted"
    """Stopped on request; the same command goes on."""
    DIVERGED = "diverged"
    FAILED = "failed"
    LOST = "lost"
    """Its process ended without a word; `imagenette doctor` found it."""
    UNTRACKED = "untracked"
    """No run could be opened: nothing was trained."""
    RESUMED = "resumed"
    """A run of `mlflow run` that only launched: the work went on in another run."""

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        return cls.FINISHED if value == "done" else None  # a cell's word for it in a study's database

    @property
    def complete(self) -> bool:
        """Whether it came to the end that it was meant to have."""
        return self in (Status.FINISHED, Status.PRUNED)

    @property
    def mlflow(self) -> str:
        """MLflow's own word for it."""
        words = {
            Status.RUNNING: "RUNNING",
            Status.FINISHED: "FINISHED",
            Status.RESUMED: "FINISHED",
            Status.PREEMPTED: "KILLED",
            Status.PRUNED: "KILLED",
        }
        return words.get(self, "FAILED")


# -- what a history amounts to -------------------------------------------------------------------------


def selected_epoch(history: Sequence[Epoch], *, holdout: bool) -> int | None:
    """The epoch whose weights are kept: highest accuracy on the holdout, the lower loss breaking ties.
    Without a holdout the test set decides, which is the reference's way and flatters the result."""
    split = "holdout" if holdout else "test"
    judged = [e for e in history if getattr(e, f"{split}_accuracy") is not None]
    if not judged:
        return None
    return max(judged, key=lambda e: (getattr(e, f"{split}_accuracy"), -getattr(e, f"{split}_loss"))).index


def summary_metrics(history: Sequence[Epoch], *, holdout: bool) -> dict[str, float]:
    """`best/...`: best epoch on the test set (the reference's way); `final/...`: last epoch;
    `selected/...`: epoch selected on the holdout. Accuracies are shares in [0, 1]."""
    tested = {epoch.index: epoch for epoch in history if epoch.test_accuracy is not None}
    best = max(tested.values(), key=lambda e: e.test_accuracy or 0.0)
    final = tested[max(tested)]
    selected = tested[selected_epoch(history, holdout=holdout) or final.index]
    metrics: dict[str, float | None] = {
        BEST: best.test_accuracy,
        "best/epoch": float(best.index),
        FINAL: final.test_accuracy,
        FINAL_HOLDOUT: final.holdout_accuracy,
        SELECTED: selected.test_accuracy,
        SELECTED_HOLDOUT: selected.holdout_accuracy,
        "selected/epoch": float(selected.index),
    }
    return {name: value for name, value in metrics.items() if value is not None}


def describe(
    config: Config, metrics: dict[str, float], *, test_images: int, seconds: float, reproduce: str
) -> str:
    """The run in Markdown, for MLflow's description."""
    chosen = (
        "on the holdout"
        if SELECTED_HOLDOUT in metrics
        else "on the test set itself (the reference's way; it flatters)"
    )
    network = f"ResNet-{config.depth}" if config.architecture == "resnet" else config.network
    rows = [
        ("selected " + chosen, SELECTED, int(metrics["selected/epoch"])),
        ("last epoch", FINAL, config.epochs),
        ("best epoch on the test set", BEST, int(metrics["best/epoch"])),
    ]
    table = "\n".join(f"| {name} | {100 * metrics[key]:.2f} % | {epoch} |" for name, key, epoch in rows)
    return (
        f"**{100 * metrics[SELECTED]:.2f} %** of {test_images} test images right: {network}, "
        f"`recipe={config.recipe}`, {config.epochs} epochs at {config.size} px, seed {config.seed}; one run, "
        f"{seconds / 60:.1f} min.\n\n"
        f"| test accuracy | | epoch |\n| --- | --- | --- |\n{table}\n\n"
        f"```\n{on_lines(reproduce)}\n```\n"
    )


def on_lines(command: str, *, width: int = 88) -> str:
    """A shell's command broken between its words, so that a page need not be wider; it can be pasted as it
    is."""
    lines: list[str] = []
    for word in re.findall(r"(?:'[^']*'|[^\s'])+", command):  # as shlex.join quotes
        if lines and len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(f"    {word}" if lines else word)
    return " \\\n".join(lines)
