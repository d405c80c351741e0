"""Studies as the tracking server holds them, made into plain records. The one place of a report that knows
MLflow; runs come page by page, their files a few at a time."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imagenette.errors import InputError, hide_secrets
from imagenette.report.runs import BEST, CURVES, FINAL, SELECTED, Answers, Curve, TrackedRun
from imagenette.tracking.client import check_alive, connect, one_line, pages, quoted, resolve_uri
from imagenette.tracking.fetch import fetched
from imagenette.tracking.fitness import unfinished
from imagenette.tracking.launcher import launched
from imagenette.tracking.outline import OUTLINE, Outline
from imagenette.tracking.runs import get_run

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
    started: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracked:
    """All that the server has of a study."""

    name: str
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
    """A tracking server's studies, in one experiment."""

    def __init__(self, client: MlflowClient, experiment: str, experiment_id: str) -> None:
        self._client, self.experiment, self._id = client, experiment, experiment_id
        self._read: dict[str, TrackedRun] = {}

    @property
    def uri(self) -> str:
        return str(self._client.tracking_uri)

    def studies(self) -> list[str]:
        """Names of all studies with a parent run, the newest first."""
        found = (run.data.tags.get("study", "") for run in self._search("tags.role = 'study'", newest=True))
        return list(dict.fromkeys(name for name in found if name))

    def state(self, study: str) -> tuple[Any, ...]:
        """Something that changes whenever a report of the study would: cheap to ask for again and again."""
        runs = self._search(f"tags.study = {quoted(study)}")
        return tuple((r.info.run_id, r.info.status, r.data.tags.get("status")) for r in runs)

    def study(self, name: str) -> Tracked:
        """All of a study. InputError if the server knows no run of that name."""
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
            name=name,
            experiment_id=self._id,
            parents=tuple(
                Parent(
                    run_id=run.info.run_id,
                    status=run.data.tags.get("status", run.info.status.lower()),
                    started=run.info.start_time,
                )
                for run in parents
            ),
            outline=outline,
            problem=problem,
            runs=tuple(runs),
        )

    def champion(self, name: str) -> Champion | None:
        """The registered model's champion; None if there is none, or its predictions are gone."""
        from mlflow.exceptions import MlflowException

        try:
            version = self._client.get_model_version_by_alias(name, "champion")
        except MlflowException:
            return None
        run = get_run(self._client, version.run_id or version.tags.get("run_id", ""))
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

    def launched(self) -> AbstractContextManager[Callable[[str], None]]:
        """For what a report came to, in the run of `mlflow run -e report`."""
        return launched(self._client, "report")

    def log(self, run_id: str, folder: Path) -> None:
        """Show a report under a run, at `report/`, over what an earlier one left there."""
        self._client.log_artifacts(run_id, str(folder), "report")

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
                with fetched(self._client, f"{parent.info.artifact_uri}/study/{OUTLINE}") as path:
                    return Outline.read(path.read_text("utf-8")), ""
            except (InputError, UnicodeError) as error:
                problem = f"parent run {parent.info.run_id}: {error}"
        return None, problem

    def _whole(self, run: TrackedRun) -> TrackedRun:
        """The run with its curves and answers; of a finished run they are read once."""
        if run.run_id in self._read:
            return self._read[run.run_id]
        artifacts = run.tags["artifacts"]
        if run.tags.get("role") == "reused":  # its figures are those of the run that it stands for
            source = get_run(self._client, run.tags.get("reused_run", ""))
            if source is None or source.info.lifecycle_stage != "active":
                return replace(run, state="the run that it was taken from is deleted")
            told = _brief(source)
            artifacts = told.tags["artifacts"]
            tags = {**told.tags, "reused_run": source.info.run_id}
            run = replace(told, run_id=run.run_id, name=run.name, arm=run.arm, seed=run.seed, tags=tags)
        if not run.finished:
            return run
        run = replace(run, **self._history(run, artifacts))
        try:
            answers = _answers(self._csv(artifacts, "predictions.csv"))
            run = replace(run, answers=answers, test_images=len(next(iter(answers.right.values()))))
        except InputError as error:
            run = replace(run, lacking=f"has no stored predictions ({error})")
        self._read[run.run_id] = run
        return run

    def _history(self, run: TrackedRun, artifacts: str) -> dict[str, Any]:
        """From the file that training leaves; else, slower, from the server's own records."""
        try:
            rows = self._csv(artifacts, "history.csv")
            curves = {key: _curve((row.get("epoch"), row.get(key)) for row in rows) for key in CURVES}
            seconds = _curve((row.get("epoch"), row.get("speed/epoch_seconds")) for row in rows)[1]
            speed = _curve((row.get("epoch"), row.get("speed/images_per_second")) for row in rows)[1]
        except InputError:
            run_id = run.tags.get("reused_run", run.run_id)
            curves = {key: self._metric(run_id, key) for key in CURVES}
            seconds = self._metric(run_id, "speed/epoch_seconds")[1]
            speed = self._metric(run_id, "speed/images_per_second")[1]
        found: dict[str, Any] = {"curves": {key: curve for key, curve in curves.items() if len(curve[0])}}
        if len(seconds):
            found["seconds"] = float(seconds.sum())
        if len(speed):
            found["images_per_second"] = statistics.median(speed.tolist())
        return found

    def _metric(self, run_id: str, key: str) -> Curve:
        points = self._client.get_metric_history(run_id, key)
        return _curve((point.step, point.value) for point in sorted(points, key=lambda p: p.step))

    def _csv(self, artifacts: str, name: str) -> list[dict[str, str]]:
        """A table of a run. InputError if it is missing or no table."""
        with fetched(self._client, f"{artifacts}/{name}") as path:
            try:
                with path.open(newline="", encoding="utf-8") as file:
                    rows = list(csv.DictReader(file, strict=True))
            except (OSError, UnicodeError, csv.Error) as error:
                raise InputError(f"{name}: {error}") from None
        if not rows:
            raise InputError(f"{name} is empty")
        return rows


@contextmanager
def opened(tracking_uri: str | None, experiment: str | None) -> Iterator[Reader]:
    """A reader; any failure of the server inside is a RunError of one line. InputError without experiment.

    experiment: a name; None = the one that `mlflow run` says, else imagenette.
    """
    uri = resolve_uri(tracking_uri)
    check_alive(uri, advice="start it, a report reads all it shows from there")
    with one_line(uri):
        client = connect(uri)
        told = None if experiment else os.environ.get("MLFLOW_EXPERIMENT_ID")
        name = experiment or "imagenette"
        found = client.get_experiment(told) if told else client.get_experiment_by_name(name)
        if found is None:
            raise InputError(f"experiment {name!r} is not on {hide_secrets(uri)}")
        yield Reader(client, found.name, found.experiment_id)


def _brief(run: Run) -> TrackedRun:
    """What the list of runs tells of one."""
    tags, metrics = run.data.tags, run.data.metrics
    why = unfinished(run) if tags.get("role") != "reused" else None
    word = tags.get("status") or run.info.status.lower()
    reason = f": {tags['reason']}" if tags.get("reason") else ""
    seconds = None
    if run.info.end_time and run.info.start_time:
        seconds = (run.info.end_time - run.info.start_time) / 1000
    return TrackedRun(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        arm=tags.get("arm", ""),
        seed=_whole_number(tags.get("seed", run.data.params.get("seed"))),
        started=run.info.start_time or 0,
        state="finished" if why is None else f"{word}{reason}" if word != "finished" else why,
        params=dict(run.data.params),
        tags=dict(tags) | {"artifacts": run.info.artifact_uri},
        claims={name: metrics[name] for name in (SELECTED, FINAL, BEST) if name in metrics},
        test_images=_test_images(run),
        seconds=seconds,
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
    """Points that are numbers, a later one of the same epoch in place of the earlier."""
    kept: dict[float, float] = {}
    for epoch, value in points:
        step, number = _number(epoch), _number(value)
        if step is not None and number is not None:
            kept[step] = number
    return np.array(list(kept)), np.array(list(kept.values()))


def _number(text: Any) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and abs(number) < 1e300 else None  # MLflow has 1.8e308 for inf


def _whole_number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
