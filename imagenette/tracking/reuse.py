"""Finished runs that need not be trained again: which count, and what of them a stand-in shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from imagenette.config import from_params
from imagenette.results import CURVES, SUMMARY
from imagenette.tracking.eligibility import FINISHED_RUNS, unfit
from imagenette.tracking.experiments import search

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_SHARED = {
    *("seed", "depth", "config_digest", "data_digest", "selection", "parameters", "reproduce", "commit"),
    *("commit_dirty", "mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit"),
}
"""Tags as true of the stand-in as of the run itself."""


def find_reusable(
    client: MlflowClient, places: Mapping[str, str], digests: Iterable[str], *, data_digest: str
) -> dict[str, Run]:
    """The oldest run that counts, for each config digest that has one in these experiments.

    The digest is of the config that a run's params give today: the tag `config_digest` of an older run may
    have been made otherwise, or before there was some knob. The tag only marks a run as this project's.
    """
    wanted = set(digests)
    found: dict[str, Run] = {}
    # MLflow's search knows no IN for tags (3.17), so the configs are picked here.
    query = f"{FINISHED_RUNS} AND tags.data_digest = '{data_digest}'"
    for run in search(client, places, query):
        if "config_digest" not in run.data.tags or unfit(run) is not None:
            continue
        if (config := from_params(run.data.params)) and (digest := config.digest()) in wanted:
            found.setdefault(digest, run)
    return found


def shown_metrics(run: Run) -> dict[str, float]:
    """What a stand-in shows of a run; not the speed, for it trained nothing."""
    return {key: value for key, value in run.data.metrics.items() if key.startswith(SUMMARY + CURVES)}


def shared_tags(run: Run) -> dict[str, str]:
    return {key: value for key, value in run.data.tags.items() if key in _SHARED}
