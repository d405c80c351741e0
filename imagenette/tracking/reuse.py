"""Finished runs that need not be trained again: which count, and what of them a stand-in shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagenette.results import SUMMARY
from imagenette.tracking.client import pages
from imagenette.tracking.eligibility import unfit

if TYPE_CHECKING:
    from mlflow import MlflowClient

_CURVES = ("train/", "holdout/", "test/")
_SHARED = {
    *("seed", "depth", "config_digest", "data_digest", "selection", "parameters", "reproduce", "commit"),
    *("commit_dirty", "mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit"),
}
"""Tags as true of the stand-in as of the run itself."""


@dataclass(frozen=True, kw_only=True)
class Reusable:
    """A finished run whose config need not be trained again on this data."""

    run_id: str
    metrics: dict[str, float]
    """Last values; the accuracies of `best/...`, `selected/...` and `final/...` are shares in [0, 1]."""
    data_digest: str
    params: dict[str, str]
    tags: dict[str, str]

    @property
    def shown_metrics(self) -> dict[str, float]:
        """What a stand-in shows; not the speed, for it trained nothing."""
        return {key: value for key, value in self.metrics.items() if key.startswith(SUMMARY + _CURVES)}

    @property
    def shared_tags(self) -> dict[str, str]:
        return {key: value for key, value in self.tags.items() if key in _SHARED}

    @property
    def epochs(self) -> int:
        """Step of the last values; 0 where the params do not tell."""
        try:
            return int(float(self.params["epochs"]))
        except (KeyError, ValueError):
            return 0


def find_reusable(
    client: MlflowClient, experiment_id: str, digests: Iterable[str], *, data_digest: str
) -> dict[str, Reusable]:
    """The oldest run that counts, for each config digest that has one in the experiment."""
    wanted = set(digests)
    found: dict[str, Reusable] = {}
    # MLflow's search knows no IN for tags (3.17), so the configs are picked here.
    query = "attributes.status = 'FINISHED' AND tags.status = 'finished'"
    query += f" AND tags.data_digest = '{data_digest}'"
    oldest_first = ["attributes.start_time ASC"]
    for run in pages(
        lambda token: client.search_runs([experiment_id], query, order_by=oldest_first, page_token=token)
    ):
        digest = run.data.tags.get("config_digest")
        if digest in wanted and digest not in found and unfit(run) is None:
            found[digest] = Reusable(
                run_id=run.info.run_id,
                metrics=dict(run.data.metrics),
                data_digest=data_digest,
                params=dict(run.data.params),
                tags=dict(run.data.tags),
            )
    return found
