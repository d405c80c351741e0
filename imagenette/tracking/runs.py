"""Which MLflow run an outbox's records belong to: found, adopted or created, never twice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from imagenette.errors import InputError, RunError, without_secrets
from imagenette.results import Status
from imagenette.tracking import views
from imagenette.tracking.client import connect, experiment_id, one_line, opened, or_none
from imagenette.tracking.outbox import Card, Outbox
from imagenette.tracking.provenance import process_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

UID = "imagenette.uid"


def reach(outbox: Outbox, uri: str) -> tuple[MlflowClient, Card]:
    """Connect, and find or make the run; any failure of the server here is one line."""
    with one_line(uri):
        client = connect(uri)
        return client, _ensure_run(client, outbox, uri)


def _ensure_run(client: MlflowClient, outbox: Outbox, uri: str) -> Card:
    """The card with its run's id on the server `uri`. Raises RunError if the run cannot be found or made.

    A run the server does not know (another server, or its database was lost) is made anew there,
    and every record goes to it again.
    """
    card = outbox.card
    assert card is not None
    run = get_run(client, card.run_id) if card.run_id else None
    if card.adopted and run is None and card.tracking_uri in (None, without_secrets(uri)):
        raise RunError(f"run {card.run_id} (MLFLOW_RUN_ID) is not on tracking server {uri}")
    if run is None:
        if card.run_id is not None:
            where = without_secrets(uri)
            print(f"imagenette: run {card.run_id} is not on {where}: made again there", file=sys.stderr)
            outbox.replay()
        run = find_run(client, card) or create_run(client, card)
        views.keep(client, run.info.experiment_id, {views.LEADERBOARD: views.leaderboard()})
    if run.info.lifecycle_stage != "active":
        raise RunError(f"run {run.info.run_id} on {uri} is deleted: restore it, or use another output folder")
    ids = {"run_id": run.info.run_id, "experiment_id": run.info.experiment_id}
    return outbox.update_card(**ids, tracking_uri=without_secrets(uri))


def get_run(client: MlflowClient, run_id: str) -> Run | None:
    """None where the server knows no such run; a deleted one it knows. With MLflow's basic auth a server says
    403 of what is not there."""
    return or_none(lambda: client.get_run(run_id), "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")


def find_run(client: MlflowClient, card: Card) -> Run | None:
    """The oldest run with our uid; later ones, left by an answer lost on the way, are deleted."""
    experiment = client.get_experiment_by_name(card.experiment)
    if experiment is None:
        return None
    runs: list[Run] = client.search_runs([experiment.experiment_id], f"tags.`{UID}` = '{card.uid}'")
    runs = sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))
    for double in runs[1:]:
        client.delete_run(double.info.run_id)
    return runs[0] if runs else None


def create_run(client: MlflowClient, card: Card) -> Run:
    """Make the card's run, in its experiment and under its parent."""
    # process_tags are there from the start: `doctor` can mend a run orphaned a moment later.
    tags = {UID: card.uid, **card.tags, **process_tags(), "status": Status.RUNNING}
    if card.parent_run_id:
        tags["mlflow.parentRunId"] = card.parent_run_id
    created = client.create_run(
        experiment_id(client, card.experiment), start_time=card.start_time, run_name=card.run_name, tags=tags
    )
    # MLflow repeats a POST whose answer was lost, so one call can make two runs.
    return find_run(client, card) or created


def output_of(run_id: str, tracking_uri: str | None) -> Path:
    """The output folder of a run, to resume it from. InputError if there is no such run or folder here."""
    with opened(tracking_uri) as client:
        run = get_run(client, run_id)
        if run is None:
            raise InputError(f"resume={run_id}: no such run on {client.tracking_uri}")
    output = run.data.tags.get("output")
    if output is None or not Path(output).is_dir():
        where = f"{output} on host {run.data.tags.get('host', 'unknown')}" if output else "no folder"
        raise InputError(f"resume={run_id}: its checkpoints lie in {where}, which is not here")
    return Path(output)
