"""Runs that may become a version: which to look at, in which order, and what shows that their model works."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagenette.artifacts import PREDICTIONS, SELECTED_MODEL, Answers, read_predictions
from imagenette.data.sources import IMAGENETTE, PUBLISHED
from imagenette.errors import InputError
from imagenette.registry.gate import Evidence
from imagenette.results import SELECTED, SELECTED_HOLDOUT
from imagenette.tracking.address import CHAMPION, NAME, Address
from imagenette.tracking.client import quoted
from imagenette.tracking.eligibility import FINISHED_RUNS, trained_run, unfit
from imagenette.tracking.experiments import OLDEST_FIRST, search
from imagenette.tracking.fetch import fetched
from imagenette.tracking.lookup import tags_of, version_at
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


@dataclass(frozen=True, kw_only=True)
class Search:
    """Where runs are looked for, and by what they are ranked."""

    client: MlflowClient
    places: Mapping[str, str]
    """Id -> name of the experiments."""
    study: str | None
    metric: str

    def ranked(self, data_digest: str | None = None) -> Iterator[Run]:
        """Runs that may be promoted, the best first, read page by page. InputError if there is none.

        data_digest: only runs on that data.
        """
        query = FINISHED_RUNS
        query += f" AND tags.study = {quoted(self.study)}" if self.study else ""
        query += f" AND tags.data_digest = '{data_digest}'" if data_digest else ""
        runs = search(self.client, self.places, query, f"metrics.`{self.metric}` DESC", OLDEST_FIRST)
        trained = (trained_run(self.client, run) for run in runs if run.data.tags.get("role") != "study")
        fit: Iterator[Run] = (r for r in trained if r is not None and unfit(r, self.metric) is None)
        first = next(fit, None)
        if first is None:
            on_data = f" on the champion's data ({data_digest[:8]})" if data_digest else ""
            none = " (runs with holdout=0 have none)" if "holdout" in self.metric else ""
            raise InputError(f"{self._where} has no finished run{on_data} with {self.metric}{none}")
        yield first
        yield from fit

    def data_meant(self, name: str | None) -> tuple[str, str]:
        """The one data set to promote from where there is no champion yet to say which: the name of its
        registered model, and its digest. It is that of `name`, else Imagenette, else the only one. InputError
        where there are several."""
        best: dict[str, Run] = {}
        for run in self.ranked():
            best.setdefault(run.data.tags.get("data_digest", ""), run)
        own = {digest: name_of(self.client, run) for digest, run in best.items()}
        meant = [digest for digest in own if own[digest] == (name or NAME)] or list(own)
        if len(meant) > 1:
            names = ", ".join(f"{digest[:8]} for {own[digest]}" for digest in sorted(meant))
            raise InputError(
                f"{self._where} has runs on {len(meant)} data sets ({names}), and there is no champion yet "
                "to say which is meant: name one with --run, --study or --name"
            )
        return name or own[meant[0]], meant[0]

    @property
    def _where(self) -> str:
        if self.study:
            return f"study {self.study}"
        names = list(self.places.values())
        return (
            f"experiment {names[0]!r}" if len(names) == 1 else f"tracking server {self.client.tracking_uri}"
        )


def name_of(client: MlflowClient, run: Run) -> str:
    """The registered model that a run on its data belongs to: NAME for Imagenette's ten classes, at whatever
    size, and where NAME's champion is of these very data; else `imagenette-` and what the data are called."""
    champion = version_at(client, Address(NAME, alias=CHAMPION))
    if champion and tags_of(champion).get("data_digest") == run.data.tags.get("data_digest"):
        return NAME
    if run.data.params.get("data") in PUBLISHED:
        return NAME
    try:
        with fetched(client, f"{run.info.artifact_uri}/{PREDICTIONS}") as path:
            if {*read_predictions(path).labels} == IMAGENETTE.keys():
                return NAME
    except InputError:
        pass  # `examine` refuses the run for it
    inputs = run.inputs.dataset_inputs if run.inputs else []
    data = inputs[0].dataset.name if inputs else run.data.params.get("data", "")
    return "-".join([NAME, *re.findall(r"[\w.]+", data)])


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
