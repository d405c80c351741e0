"""Runs that may become a version: which to look at, in which order, and what shows that their model works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagenette.artifacts import PREDICTIONS, SELECTED_MODEL, Answers, read_predictions
from imagenette.errors import InputError
from imagenette.registry.gate import Evidence
from imagenette.results import SELECTED, SELECTED_HOLDOUT
from imagenette.tracking.client import pages, quoted
from imagenette.tracking.eligibility import FINISHED_RUNS, trained_run, unfit
from imagenette.tracking.fetch import fetched
from imagenette.tracking.model import models_of
from imagenette.tracking.runs import get_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

    from imagenette.registry.model import Model

METRICS = (SELECTED_HOLDOUT, SELECTED)
"""What versions may be chosen by; the first is the default."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A run whose model was fetched, loaded, and gave the answers that training gave."""

    run: Run
    model: LoggedModel
    evidence: Evidence
    difference: float
    """Of its shares on the self-test's pictures, to those of training, at most."""
    environment: str
    """`mlflow==3.17.2 torch==2.15.0 ...`"""


def named(client: MlflowClient, run_id: str, metric: str) -> Run:
    """The run of that id, or the one that it stands for. InputError if it cannot be promoted."""
    if not re.fullmatch(r"[\w-]{1,64}", run_id):
        raise InputError(f"run {run_id!r}: that is no run's id")
    found = get_run(client, run_id)
    run = found and trained_run(client, found)
    if run is None:
        source = ", or the run that it was taken from is not" if found else ""
        raise InputError(f"run {run_id} is not on tracking server {client.tracking_uri}{source}")
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
    query = FINISHED_RUNS
    query += f" AND tags.study = {quoted(study)}" if study else ""
    query += f" AND tags.data_digest = '{data_digest}'" if data_digest else ""
    best_first = [f"metrics.`{metric}` DESC", "attributes.start_time ASC"]
    runs = pages(
        lambda token: client.search_runs([found.experiment_id], query, order_by=best_first, page_token=token)
    )
    trained = (trained_run(client, run) for run in runs if run.data.tags.get("role") != "study")
    fit: Iterator[Run] = (run for run in trained if run is not None and unfit(run, metric) is None)
    if data_digest is None and not mixed:
        every = list(fit)
        digests = sorted({run.data.tags.get("data_digest", "") for run in every})
        if len(digests) > 1:
            names = ", ".join(digest[:8] for digest in digests)
            raise InputError(
                f"{where} has runs on {len(digests)} data sets ({names}), and there is no champion yet to "
                "say which is meant: name one with --run or --study"
            )
        fit = iter(every)
    first = next(fit, None)
    if first is None:
        on_data = f" on the champion's data ({data_digest[:8]})" if data_digest else ""
        none = " (runs with holdout=0 have none)" if "holdout" in metric else ""
        raise InputError(f"{where} has no finished run{on_data} with {metric}{none}")
    yield first
    yield from fit


def examine(client: MlflowClient, run: Run, metric: str) -> Candidate:
    """Fetch the run's model and stored predictions, and compare them with each other and with its metrics.

    InputError, beginning with the run, if anything is missing or one contradicts another.
    """
    from imagenette.registry.model import check_graph, open_folder

    run_id = run.info.run_id
    ours = models_of(client, run, SELECTED_MODEL)
    model = next((model for model in ours if str(model.status) == "READY"), None)
    if model is None:
        raise InputError(
            f"run {run_id} has no model {SELECTED_MODEL!r} on the server (deleted, or never sent)"
        )
    try:
        with fetched(client, f"{run.info.artifact_uri}/{PREDICTIONS}") as path:
            answers = read_predictions(path)
        if SELECTED not in answers.predicted or SELECTED not in answers.shares:
            raise InputError(f"{PREDICTIONS} lacks the selected model's answers")
        correct, claimed = answers.right(SELECTED), run.data.metrics[SELECTED]
        if abs(correct.mean() - claimed) > 1e-9:
            raise InputError(
                f"its {PREDICTIONS} has {correct.mean():.4f} right, its metric claims {claimed:.4f}"
            )
        with fetched(client, model.artifact_location) as folder:
            check_graph(folder)
            opened = open_folder(folder)
            requirements = folder / "requirements.txt"
            environment = (
                " ".join(requirements.read_text("utf-8").split()) if requirements.is_file() else "unknown"
            )
        _compare(opened, answers)
    except (InputError, UnicodeError) as error:
        raise InputError(f"run {run_id} cannot be promoted, model {model.model_id}: {error}") from None
    evidence = Evidence(
        metric=metric,
        value=run.data.metrics[metric],
        data_digest=run.data.tags["data_digest"],
        correct=correct,
    )
    return Candidate(run, model, evidence, opened.difference, environment)


def _compare(model: Model, answers: Answers) -> None:
    """InputError unless the self-test's answers are those that were stored for the same test images."""
    from imagenette.network.self_test import TOLERANCE  # brings safetensors, which `lineage` does without

    rows = zip(answers.names, answers.predicted[SELECTED], answers.shares[SELECTED], strict=True)
    stored = {name: (predicted, share) for name, predicted, share in rows}
    test = model.self_test.predictions
    for name, number, share in zip(model.self_test.names, test.predicted, test.share, strict=True):
        predicted, stored_share = stored.get(name, ("", 0.0))
        if predicted != model.classes[number] or not abs(stored_share - share) <= TOLERANCE:  # nor NaN
            raise InputError(f"its proof and {PREDICTIONS} differ on test image {name}")
