"""What a finished run amounts to: three accuracies, kept apart and named. Pure functions of its history."""

from __future__ import annotations

from collections.abc import Sequence

from imagenette.config import Config
from imagenette.records import Epoch

METRICS = {
    "selected/holdout_accuracy": "holdout, selected epoch",
    "final/holdout_accuracy": "holdout, last epoch",
    "selected/test_accuracy": "test, selected epoch",
    "final/test_accuracy": "test, last epoch",
    "best/test_accuracy": "test, best epoch",
}
"""Accuracies of a run in words: which images, which epoch."""


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
        "best/test_accuracy": best.test_accuracy,
        "best/epoch": float(best.index),
        "final/test_accuracy": final.test_accuracy,
        "final/holdout_accuracy": final.holdout_accuracy,
        "selected/test_accuracy": selected.test_accuracy,
        "selected/holdout_accuracy": selected.holdout_accuracy,
        "selected/epoch": float(selected.index),
    }
    return {name: value for name, value in metrics.items() if value is not None}


def describe(
    config: Config, metrics: dict[str, float], *, test_images: int, seconds: float, reproduce: str
) -> str:
    """The run in Markdown, for MLflow's description."""
    chosen = (
        "on the holdout" if config.holdout else "on the test set itself (the reference's way; it flatters)"
    )
    network = f"ResNet-{config.depth}" if config.architecture == "resnet" else config.network
    rows = [
        ("selected " + chosen, "selected/test_accuracy", int(metrics["selected/epoch"])),
        ("last epoch", "final/test_accuracy", config.epochs),
        ("best epoch on the test set", "best/test_accuracy", int(metrics["best/epoch"])),
    ]
    table = "\n".join(f"| {name} | {100 * metrics[key]:.2f} % | {epoch} |" for name, key, epoch in rows)
    return (
        f"{network}, `recipe={config.recipe}`, {config.epochs} epochs at {config.size} px, "
        f"seed {config.seed}: one run, {seconds / 60:.1f} min.\n\n"
        f"| test accuracy ({test_images} images) | | epoch |\n| --- | --- | --- |\n{table}\n\n"
        f"```\n{reproduce}\n```\n"
    )
