"""Studies as the tracking server holds them, made into plain records. The one place of a report that knows
MLflow; runs come page by page, their files a few at a time."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imagenette.errors import InputError, hide_secrets
from imagenette.report.runs import CURVES, FINAL, SELECTED, Answers, Curve, TrackedRun, number
from imagenette.results import METRICS
from imagenette.tracking.client import check_alive, connect, first_line, one_line, pages, quoted, resolve_uri
from imagenette.tracking.eligibility import unfinished
from imagenette.tracking.fetch import fetched
from imagenette.tracking.outer_run import outer_run
from imagenette.tracking.runs import get_run
from imagenette.tracking.study_plan import OUTLINE, Outline

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

AT_ONCE = 8
"""Files under way from the server at once."""
_TRAININGS = ("run", "trial", "reused")


@dataclass(frozen=True, kw_only=True)
class Parent:
    """The run that a study is shown under."""

    run_id: str
    status: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracked:
    """All that the server has of a study."""

    experiment_id: str
    parents: tuple[Parent, ...]
    """The newest first; more than one where a study was made anew."""
    outline: Outline | None
    """What was planned; None where no parent says."""
    problem: str
    """Why there is no outline."""
    runs: tuple[TrackedRun, ...]
    """The oldest first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Champion:
    """What the registered best model says of every test image."""

    version: str
    run_id: str
    study: str
    data_digest: str
    classes: tuple[str, ...]
    """Readable, in the order of their numbers."""
    counts: np.ndarray
    """[classes, classes]: row is the true class, column the predicted one."""


class Reader:
    """A tracking server's studies, in one experiment. Where the server fails, a RunError of one line."""

    def __init__(self, client: MlflowClient, experiment: str, experiment_id: str) -> None:
        self._client, self.experiment, self._id = client, experiment, experiment_id
        self._read: dict[str, TrackedRun] = {}

    @property
    def uri(self) -> str:
        return str(self._client.tracking_uri)

    def studies(self) -> list[str]:
        """Names of all studies with a parent run, the newest first."""
        with one_line(self.uri):
            runs = self._search("tags.role = 'study'", newest=True)
            return list(dict.fromkeys(name for run in runs if (name := run.data.tags.get("study"))))

    def state(self, study: str) -> tuple[Any, ...]:
        """Something that changes whenever a run of the study comes or ends: cheap to ask for again and
        again."""
        with one_line(self.uri):
            runs = self._search(f"tags.study = {quoted(study)}")
            return tuple((r.info.run_id, r.info.status, r.data.tags.get("status")) for r in runs)

    def study(self, name: str) -> Tracked:
        """All of a study. InputError if the server knows no run of that name."""
        with one_line(self.uri):
            return self._study(name)

    def champion(self, name: str) -> Champion | None:
        """The registered model's champion; None if there is none, or its predictions are gone."""
        with one_line(self.uri):
            return self._champion(name)

    def log(self, run_id: str, folder: Path) -> None:
        """Show a report under a run, at `report/`, over what an earlier one left there."""
        with one_line(self.uri):
            self._client.log_artifacts(run_id, str(folder), "report")

    def launched(self) -> AbstractContextManager[Callable[[str], None]]:
        """For what a report came to, in the run of `mlflow run -e report`."""
        return outer_run(self._client, "report")

    def _study(self, name: str) -> Tracked:
        parents, children = [], []
        for run in self._search(f"tags.study = {quoted(name)}"):
            role = run.data.tags.get("role")
            if role == "study":
                parents.append(run)
            elif role in (None, *_TRAININGS):
                children.append(_brief(run))
        if not parents and not children:
            raise InputError(
                f"study {name}: no run in experiment {self.experiment!r} of {hide_secrets(self.uri)} has "
                f"the tag study={name}{self._known()}"
            )
        parents.reverse()
        outline, problem = self._outline(parents)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            runs = list(pool.map(self._whole, children))
        return Tracked(
            experiment_id=self._id,
            parents=tuple(
                Parent(
                    run_id=run.info.run_id,
                    status=run.data.tags.get("status", run.info.status.lower()),
                )
                for run in parents
            ),
            outline=outline,
            problem=problem,
            runs=tuple(runs),
        )

    def _champion(self, name: str) -> Champion | None:
        from mlflow.exceptions import MlflowException

        try:
            version = self._client.get_model_version_by_alias(name, "champion")
        except MlflowException:
            return None
        run_id = version.run_id or version.tags.get("run_id")
        run = get_run(self._client, run_id) if run_id else None
        if run is None:
            return None
        try:
            rows = self._csv(run.info.artifact_uri, "predictions.csv")
            names = {row["class"]: row["name"] for row in self._csv(run.info.artifact_uri, "per_class.csv")}
            place = {name: index for index, name in enumerate(names)}
            counts = np.zeros((len(names), len(names)), dtype=int)
            for row in rows:
                counts[place[row["label"]], place[row["selected_predicted"]]] += 1
        except (InputError, KeyError):
            return None
        return Champion(
            version=str(version.version),
            run_id=run.info.run_id,
            study=run.data.tags.get("study", "none"),
            data_digest=run.data.tags.get("data_digest", ""),
            classes=tuple(names.values()),
            counts=counts,
        )

    def _search(self, query: str, *, newest: bool = False) -> Iterator[Run]:
        order = ["attributes.start_time DESC" if newest else "attributes.start_time ASC"]
        yield from pages(
            lambda token: self._client.search_runs([self._id], query, order_by=order, page_token=token)
        )

    def _known(self) -> str:
        names = self.studies()[:8]
        return f"; there are {', '.join(names)}" if names else ""

    def _outline(self, parents: Sequence[Run]) -> tuple[Outline | None, str]:
        problem = "no parent run, so nothing says what was planned"
        for parent in parents:
            try:
                return Outline.read(self._text(f"{parent.info.artifact_uri}/study", OUTLINE)), ""
            except InputError as error:
                problem = f"parent run {parent.info.run_id}: {error}"
        return None, problem

    def _whole(self, run: TrackedRun) -> TrackedRun:
        """The run with its curves and answers; what was read whole of a finished run is read once."""
        if run.run_id in self._read:
            return self._read[run.run_id]
        source = self._stood_for(run)
        if not source.finished:
            return source
        artifacts = source.tags["artifacts"]
        read = self._history(source, artifacts)
        try:
            answers = _answers(self._csv(artifacts, "predictions.csv"))
            read |= {"answers": answers, "test_images": len(next(iter(answers.right.values())))}
        except InputError as error:
            read["flaws"] = (*read["flaws"], f"has no stored predictions ({error})")
        whole = replace(source, **read)
        if not whole.flaws:
            self._read[run.run_id] = whole
        return whole

    def _stood_for(self, run: TrackedRun) -> TrackedRun:
        """The run itself; with the figures of the one that it was taken from, however often that was."""
        passed = {run.run_id}
        told, source_id = run, run.run_id
        while told.finished and told.tags.get("role") == "reused":
            source_id = told.tags.get("reused_run", "")
            source = get_run(self._client, source_id) if source_id and source_id not in passed else None
            if source is None or source.info.lifecycle_stage != "active":
                return replace(run, state="the run that it was taken from is deleted")
            passed.add(source_id)
            told = _brief(source)
        if told is run:
            return run
        tags = {**told.tags, "reused_run": source_id}
        return replace(told, run_id=run.run_id, name=run.name, arm=run.arm, seed=run.seed, tags=tags)

    def _history(self, run: TrackedRun, artifacts: str) -> dict[str, Any]:
        """From the file that training leaves; else, slower, from the server's own records."""
        keys = (*CURVES, "speed/epoch_seconds", "speed/images_per_second")
        try:
            rows = self._csv(artifacts, "history.csv")
            found = {key: _curve((row.get("epoch"), row.get(key)) for row in rows) for key in keys}
        except InputError:
            run_id = run.tags.get("reused_run", run.run_id)
            found = {key: self._metric(run_id, key) for key in keys}
        curves = {key: found[key] for key in CURVES if len(found[key][0])}
        seconds, speed = (found[key][1] for key in keys[-2:])
        planned = number(run.params.get("epochs"))
        epochs = max((x[-1] for x, _ in curves.values()), default=0)
        cut_off = planned is not None and 0 < epochs < planned
        whole = len(seconds) > 0 and (planned is None or len(seconds) >= planned)
        return {
            "curves": curves,
            "seconds": float(seconds.sum()) if whole else None,
            "images_per_second": statistics.median(speed.tolist()) if len(speed) else run.images_per_second,
            "flaws": (f"has curves up to epoch {epochs:g} of {planned:g}",) if cut_off else (),
        }

    def _metric(self, run_id: str, key: str) -> Curve:
        return _curve((point.step, point.value) for point in self._client.get_metric_history(run_id, key))

    def _csv(self, artifacts: str, name: str) -> list[dict[str, str]]:
        """A table of a run. InputError if it is missing or no table."""
        try:
            rows = list(csv.DictReader(io.StringIO(self._text(artifacts, name)), strict=True))
        except csv.Error as error:
            raise InputError(f"{name}: {error}") from None
        if not rows:
            raise InputError(f"{name} is empty")
        return rows

    def _text(self, artifacts: str, name: str) -> str:
        """A file of a run. InputError if it cannot be had, unless it is the server that fails."""
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            with fetched(self._client, f"{artifacts}/{name}") as path:
                return path.read_text("utf-8")
        except (InputError, RequestException, MlflowException):
            raise
        except Exception as error:  # a folder of that name, no text, a store whose library is not installed
            raise InputError(f"{name} cannot be read: {first_line(error)}") from None


def open_reader(tracking_uri: str | None, experiment: str | None) -> Reader:
    """InputError without the experiment; RunError, within seconds, without the server.

    experiment: a name; None = the one that `mlflow run` says, else imagenette.
    """
    uri = resolve_uri(tracking_uri)
    check_alive(uri, advice="start it, a report reads all it shows from there")
    with one_line(uri):
        client = connect(uri)
        told = None if experiment else os.environ.get("MLFLOW_EXPERIMENT_ID")
        name = experiment or "imagenette"
        found = client.get_experiment(told) if told else client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            there = "deleted" if found else "not"
            raise InputError(f"experiment {name!r} is {there} on {hide_secrets(uri)}")
        return Reader(client, found.name, found.experiment_id)


def _brief(run: Run) -> TrackedRun:
    """What the list of runs tells of one."""
    tags, metrics = run.data.tags, run.data.metrics
    word = tags.get("status") or run.info.status.lower()
    why = unfinished(run)
    if tags.get("role") == "reused":  # the run that it stands for has to be finished
        why = None if word == "finished" else word
    reason = f": {tags['reason']}" if tags.get("reason") else ""
    return TrackedRun(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        arm=tags.get("arm", ""),
        seed=_whole_number(tags.get("seed", run.data.params.get("seed"))),
        state="finished" if why is None else f"{word}{reason}" if word != "finished" else why,
        params=dict(run.data.params),
        tags=dict(tags) | {"artifacts": run.info.artifact_uri},
        claims={name: metrics[name] for name in METRICS if name in metrics},
        test_images=_test_images(run),
        images_per_second=metrics.get("speed/images_per_second"),
    )


def _test_images(run: Run) -> int | None:
    for item in run.inputs.dataset_inputs if run.inputs else ():
        try:
            count = json.loads(item.dataset.profile or "{}").get("test_images")
        except (ValueError, AttributeError):
            continue
        if isinstance(count, int) and count > 0:
            return count
    return None


def _answers(rows: Sequence[Mapping[str, str]]) -> Answers:
    columns = {SELECTED: "selected_predicted", FINAL: "predicted"}
    if not {"image", "label"} <= rows[0].keys() or not rows[0].keys() & set(columns.values()):
        raise InputError("predictions.csv lacks its columns")
    if any(value is None for row in rows for value in row.values()):
        raise InputError("predictions.csv is cut off")
    digest = hashlib.sha256("\n".join(f"{row['image']}\t{row['label']}" for row in rows).encode())
    right = {
        metric: np.array([row["label"] == row[column] for row in rows])
        for metric, column in columns.items()
        if column in rows[0]
    }
    return Answers(images=digest.hexdigest(), right=right)


def _curve(points: Iterable[tuple[Any, Any]]) -> Curve:
    """Points that are numbers, by epoch; a later one of the same epoch in place of the earlier."""
    kept: dict[float, float] = {}
    for epoch, text in points:
        step, value = number(epoch), number(text)
        if step is not None and value is not None:
            kept[step] = value
    epochs = sorted(kept)
    return np.array(epochs), np.array([kept[epoch] for epoch in epochs])


def _whole_number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
