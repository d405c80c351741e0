"""Which run is a study's parent: the one that the study's database names, adopted from `mlflow run` or made.

MLflow has no atomic get-or-create for runs. So a driver that finds no parent makes a candidate and registers
it in the database, by one atomic step that names the run it replaces. Whoever comes second takes the first
one's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from imagenette.errors import RunError
from imagenette.results import Status
from imagenette.tracking.client import experiment_id, pages
from imagenette.tracking.deliver import set_tags
from imagenette.tracking.outer_run import hand_over
from imagenette.tracking.provenance import process_tags
from imagenette.tracking.runs import UID, get_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_ADOPTED = "imagenette.adopted"


def parent_of(
    client: MlflowClient,
    uid: str,
    known_run_id: str | None,
    *,
    new: Callable[[], Run],
    register: Callable[[str | None, str], str],
) -> Run:
    """The run of the study `uid`, the same for every driver on this tracking server.

    known_run_id: the registered one, which stays while it is there. new: makes a candidate.
    register(replaced, run_id): see `StudyRun.open`.
    """
    run = _active(client, known_run_id)
    if run is not None:
        return run
    while run is None:  # again where another driver registers a run of another tracking server
        candidates = _candidates(client, uid)  # a driver killed before it registered leaves one
        mine = candidates[0] if candidates else new()
        known_run_id = register(known_run_id, mine.info.run_id)
        run = _active(client, known_run_id)
    _withdraw_others(client, uid, run.info.run_id)
    return run


def candidate(client: MlflowClient, experiment: str, *, name: str, uid: str, outer_run_id: str | None) -> Run:
    """The run that `mlflow run` made, where it did, else a new one. RunError if the former is not there."""
    if outer_run_id is None:
        # process_tags from the first moment: a run orphaned right after can be mended.
        tags = {UID: uid, "role": "study", "study": name, "status": Status.RUNNING, **process_tags()}
        return client.create_run(experiment_id(client, experiment), run_name=name, tags=tags)
    run = _active(client, outer_run_id)
    if run is None:
        raise RunError(f"run {outer_run_id} (MLFLOW_RUN_ID) is not on tracking server {client.tracking_uri}")
    set_tags(client, outer_run_id, {UID: uid, _ADOPTED: "true"})
    return run


def _active(client: MlflowClient, run_id: str | None) -> Run | None:
    run = get_run(client, run_id) if run_id else None
    return run if run is not None and run.info.lifecycle_stage == "active" else None


def _candidates(client: MlflowClient, uid: str) -> list[Run]:
    """Runs with that uid, oldest first. In any experiment: `mlflow run` may have made one in another."""
    ids = [e.experiment_id for e in pages(lambda token: client.search_experiments(page_token=token))]
    runs: list[Run] = client.search_runs(ids, f"tags.`{UID}` = '{uid}'") if ids else []
    return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))


def _withdraw_others(client: MlflowClient, uid: str, winner: str) -> None:
    """Take out every candidate but the registered run. None of them can be registered any more, so any driver
    may do it, several at once too."""
    from mlflow.exceptions import MlflowException

    for run in _candidates(client, uid):
        if run.info.run_id == winner:
            continue
        if _ADOPTED not in run.data.tags:
            client.delete_run(run.info.run_id)
            continue
        hand_over(client, run.info.run_id, winner)  # `mlflow run` is going to end it: it must stay
        with suppress(MlflowException):  # the tag is gone already
            client.delete_tag(run.info.run_id, UID)
