"""Runs that may become a version: which to look at, in which order, and what they can prove."""

from __future__ import annotations

import csv
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imagenette.errors import InputError, hide_secrets
from imagenette.network.self_test import TOLERANCE
from imagenette.registry.gate import Evidence
from imagenette.tracking.client import pages, quoted
from imagenette.tracking.eligibility import unfit
from imagenette.tracking.fetch import fetched
from imagenette.tracking.model import models_of
from imagenette.tracking.runs import get_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

    from imagenette.registry.model import Model

METRICS = ("selected/holdout_accuracy", "selected/test_accuracy")
"""What versions may be chosen by; the first unless told otherwise."""
MODEL = "selected"
"""The logged model that is promoted."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A run whose model was fetched, loaded, and gave the answers that training gave."""

    run: Run
    model: LoggedModel
    evidence: Evidence
    difference: float
    """Of its shares on the proof pictures, to those of training, at most."""
    environment: str
    """`mlflow==3.17.2 torch==2.15.0 ...`"""


def named(client: MlflowClient, run_id: str, metric: str) -> Run:
    """The run of that id, or the one that it stands for. InputError if it cannot be promoted."""
    if not re.fullmatch(r"[\w-]{1,64}", run_id):
        raise InputError(f"run {run_id!r}: that is no run's id")
    run = get_run(client, run_id)
    run = run and _stood_for(client, run)
    if run is None:
        raise InputError(f"run {run_id} is not on tracking server {hide_secrets(client.tracking_uri)}")
    reason = unfit(run, metric)
    if reason:
        raise InputError(f"run {run_id} {reason}")
    return run


def ranked(
    client: MlflowClient,
    experiment: str,
    *,
    study: str | None,
    metric: str,
    data_digest: str | None,
    mixed: bool = False,
) -> Iterator[Run]:
    """Runs of an experiment (of one study of it), the best by `metric` first, read page by page.

    data_digest: only runs on that data; None: runs on one data set, whichever it is, unless `mixed`.
    InputError if there is no run, or if they are on several data sets.
    """
    found = client.get_experiment_by_name(experiment)
    where = f"study {study}" if study else f"experiment {experiment!r}"
    if found is None:
        raise InputError(f"experiment {experiment!r} is not on this tracking server")
    query = "attributes.status = 'FINISHED' AND tags.status = 'finished'"
    query += f" AND tags.study = {quoted(study)}" if study else ""
    query += f" AND tags.data_digest = '{data_digest}'" if data_digest else ""
    best_first = [f"metrics.`{metric}` DESC", "attributes.start_time ASC"]
    runs = pages(
        lambda token: client.search_runs([found.experiment_id], query, order_by=best_first, page_token=token)
    )
    trained = (_stood_for(client, run) for run in runs if run.data.tags.get("role") != "study")
    fit = (run for run in trained if run is not None and unfit(run, metric) is None)
    if data_digest is None and not mixed:
        fit = _of_one_data_set(list(fit), where)
    first = next(fit, None)
    if first is None:
        on_data = f" on the champion's data ({data_digest[:8]})" if data_digest else ""
        none = " (runs with holdout=0 have none)" if "holdout" in metric else ""
        raise InputError(f"{where} has no finished run{on_data} with {metric}{none}")
    yield first
    yield from fit


def proven(client: MlflowClient, run: Run, metric: str) -> Candidate:
    """Fetch the run's model and stored predictions, and hold them against each other and its metrics.

    InputError, beginning with the run, if anything is missing or one contradicts another.
    """
    from imagenette.registry.model import check_graph, open_folder

    run_id = run.info.run_id
    ours = models_of(client, run.info.experiment_id, run_id, MODEL)
    model = next((model for model in ours if str(model.status) == "READY"), None)
    if model is None:
        raise InputError(f"run {run_id} has no model {MODEL!r} on the server (deleted, or never sent)")
    try:
        rows = _predictions(client, run)
        correct = np.array([row["label"] == row["selected_predicted"] for row in rows])
        _agree(correct.mean(), run.data.metrics["selected/test_accuracy"])
        with fetched(client, model.artifact_location) as folder:
            check_graph(folder)
            opened = open_folder(folder)
            requirements = folder / "requirements.txt"
            environment = " ".join(requirements.read_text().split()) if requirements.is_file() else "unknown"
        _match(opened, rows)
    except (InputError, UnicodeError, csv.Error) as error:
        raise InputError(f"run {run_id} cannot be promoted, model {model.model_id}: {error}") from None
    evidence = Evidence(
        metric=metric,
        value=run.data.metrics[metric],
        data_digest=run.data.tags["data_digest"],
        correct=correct,
    )
    return Candidate(run, model, evidence, opened.difference, environment)


def _predictions(client: MlflowClient, run: Run) -> list[dict[str, str]]:
    """A row for each test image, as `imagenette.training.run_figures` wrote them."""
    with fetched(client, f"{run.info.artifact_uri}/predictions.csv") as path, path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "label", "selected_predicted", "selected_share"} <= rows[0].keys():
        raise InputError("predictions.csv lacks what the selected model says")
    return rows


def _agree(accuracy: float, claimed: float) -> None:
    if abs(accuracy - claimed) > 1e-9:
        raise InputError(f"its predictions.csv has {accuracy:.4f} right, its metric claims {claimed:.4f}")


def _match(model: Model, rows: list[dict[str, str]]) -> None:
    """The proof's answers are those that were stored for the same test images."""
    stored = {row["image"]: row for row in rows}
    said = model.proof.predictions
    for name, predicted, share in zip(model.proof.names, said.predicted, said.share, strict=True):
        row = stored.get(name)
        same = row is not None and row["selected_predicted"] == model.classes[predicted]
        if row is None or not same or not _close(row["selected_share"], float(share)):
            raise InputError(f"its proof and predictions.csv differ on test image {name}")


def _close(text: str, share: float) -> bool:
    try:
        return abs(float(text) - share) <= TOLERANCE
    except ValueError:
        return False


def _stood_for(client: MlflowClient, run: Run) -> Run | None:
    """The run itself, or the finished one that a study took it from."""
    if run.data.tags.get("role") != "reused":
        return run
    return get_run(client, run.data.tags.get("reused_run", ""))


def _of_one_data_set(runs: list[Run], where: str) -> Generator[Run, None, None]:
    digests = {run.data.tags.get("data_digest", "") for run in runs}
    if len(digests) > 1:
        names = ", ".join(sorted(digest[:8] for digest in digests))
        raise InputError(
            f"{where} has runs on {len(digests)} data sets ({names}), and there is no champion yet to say "
            "which is meant: name one with --run or --study"
        )
    yield from runs
