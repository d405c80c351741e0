"""Whether a run counts: it was trained itself, came to its end, and each of its accuracies is a share in [0,
1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagenette.results import SELECTED, TEST_ACCURACIES, Status, summary_of
from imagenette.tracking.runs import get_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FINISHED_RUNS = f"attributes.status = '{Status.FINISHED.mlflow}' AND tags.status = '{Status.FINISHED}'"
"""MLflow's filter for runs that say of themselves that they came to their end."""
_NOT_TRAINED = ("reused", "study", "launcher", "promotion", "report", "lr-range")


def unfit(run: Run, *metrics: str) -> str | None:
    """Why the run cannot count, a text that follows `run ID `; None if it can.

    metrics: shares it must have beside the three test accuracies.
    """
    if reason := unfinished(run):
        return reason
    values = run.data.metrics
    for name in (*metrics, *TEST_ACCURACIES):
        if name not in values:
            return f"has no {name}{_hint(run, name)}"
    for name, value in summary_of(values).items():
        if name.endswith("accuracy") and not 0 <= value <= 1:  # neither NaN, nor MLflow's 1.8e308 for inf
            return f"claims {name}={value:.4g}, which is no share in [0, 1]"
    return None


def unfinished(run: Run) -> str | None:
    """Why the run did not itself come to its end, as such a text; None if it did."""
    tags = run.data.tags
    if run.info.lifecycle_stage != "active":
        return "is deleted"
    if tags.get("role") in _NOT_TRAINED:
        return f"was not trained (role={tags['role']})"
    status = tags.get("status") or run.info.status.lower()
    if status != Status.FINISHED:
        return f"is not finished (status {status})"
    if run.info.status != "FINISHED":
        return f"is finished, but MLflow says {run.info.status}: `imagenette doctor` brings them together"
    return None


def trained_run(client: MlflowClient, run: Run) -> Run | None:
    """The run itself; for one that a study took from another (role `reused`) the run that was trained,
    through any number of such steps. None where that one is gone."""
    passed = {run.info.run_id}
    while run.data.tags.get("role") == "reused":
        source_id = run.data.tags.get("reused_run")
        source = get_run(client, source_id) if source_id else None
        if source is None or source.info.lifecycle_stage != "active" or source.info.run_id in passed:
            return None
        passed.add(source.info.run_id)
        run = source
    return run


def _hint(run: Run, name: str) -> str:
    if "holdout" not in name or run.data.tags.get("selection") != "test":
        return ""
    trained = "it was trained with holdout=0 and selected on the test set"
    return f": {trained} (--metric {SELECTED} judges by that, and flatters)"
