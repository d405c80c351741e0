"""Which run is a study's parent: found by the study's uid, adopted from `mlflow run`, or made; one for all.

MLflow has no atomic get-or-create for runs. So every driver puts forward a candidate where it sees none,
waits until every other driver must have done so too, and then all go by the same rule.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from imagenette.errors import RunError
from imagenette.tracking.client import experiment_id, pages
from imagenette.tracking.deliver import set_tags
from imagenette.tracking.outer_run import hand_over
from imagenette.tracking.provenance import process_tags
from imagenette.tracking.runs import UID, get_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SETTLE_SECONDS = 1.0
"""More than another driver needs between seeing no candidate and putting its own forward."""
_ADOPTED = "imagenette.adopted"


def parent_of(
    client: MlflowClient,
    experiment: str,
    *,
    name: str,
    uid: str,
    known_run_id: str | None,
    outer_run_id: str | None,
) -> Run:
    """The run of the study `uid`, the same for every driver; outer_run_id is the one `mlflow run` made.

    known_run_id wins while it is there. Raises RunError if a first driver's outer_run_id is not.
    """
    known = _active(client, known_run_id)
    if known is None:
        if not _candidates(client, uid):
            _put_forward(client, experiment, name=name, uid=uid, outer_run_id=outer_run_id)
        time.sleep(SETTLE_SECONDS)
        known, *later = _candidates(client, uid)
        for run in later:
            _withdraw(client, run, known.info.run_id)
    if outer_run_id not in (None, known.info.run_id):
        hand_over(client, outer_run_id, known.info.run_id)
    return known


def _active(client: MlflowClient, run_id: str | None) -> Run | None:
    run = get_run(client, run_id) if run_id else None
    return run if run is not None and run.info.lifecycle_stage == "active" else None


def _candidates(client: MlflowClient, uid: str) -> list[Run]:
    """Runs with that uid, oldest first. In any experiment: `mlflow run` may have made one in another."""
    ids = [e.experiment_id for e in pages(lambda token: client.search_experiments(page_token=token))]
    runs: list[Run] = client.search_runs(ids, f"tags.`{UID}` = '{uid}'") if ids else []
    return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))


def _put_forward(
    client: MlflowClient, experiment: str, *, name: str, uid: str, outer_run_id: str | None
) -> None:
    if outer_run_id is None:
        # process_tags come with the run's first breath: one orphaned a moment later can be mended.
        tags = {UID: uid, "role": "study", "study": name, "status": "running", **process_tags()}
        client.create_run(experiment_id(client, experiment), run_name=name, tags=tags)
        return
    if _active(client, outer_run_id) is None:
        raise RunError(f"run {outer_run_id} (MLFLOW_RUN_ID) is not on tracking server {client.tracking_uri}")
    set_tags(client, outer_run_id, {UID: uid, _ADOPTED: "true"})


def _withdraw(client: MlflowClient, run: Run, to: str) -> None:
    """Take a later candidate out; another driver may be doing the same."""
    from mlflow.exceptions import MlflowException

    if _ADOPTED not in run.data.tags:
        client.delete_run(run.info.run_id)
        return
    hand_over(client, run.info.run_id, to)  # `mlflow run` is going to end it: it must stay
    with suppress(MlflowException):  # gone already
        client.delete_tag(run.info.run_id, UID)
