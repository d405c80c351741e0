"""Studies as the tracking server holds them, made into plain records. The one module of a report that knows
MLflow; runs come page by page, their files a few at a time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from imagenette.artifacts import (
    CLASSES,
    HISTORY,
    PREDICTIONS,
    Answers,
    read_classes,
    read_predictions,
    read_table,
)
from imagenette.errors import InputError
from imagenette.report.runs import CURVES, Champion, Curve, Tracked, TrackedRun, number
from imagenette.results import METRICS, SELECTED, Status
from imagenette.tracking.address import CHAMPION, Address
from imagenette.tracking.client import first_line, one_line, opened, quoted
from imagenette.tracking.eligibility import trained_run, unfinished
from imagenette.tracking.experiments import NEWEST_FIRST, OLDEST_FIRST, look_in, search
from imagenette.tracking.fetch import fetched
from imagenette.tracking.finished import profile
from imagenette.tracking.lookup import find_run, find_version, promoted_versions, tags_of, version_at
from imagenette.tracking.outer_run import outer_run
from imagenette.tracking.runs import get_run
from imagenette.tracking.study_plan import OUTLINE, StudyPlan
from imagenette.tracking.views import link_of_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


_Read = TypeVar("_Read")
AT_ONCE = 8
"""Files under way from the server at once."""
_TRAININGS = ("run", "trial", "reused")


class Reader:
    """A tracking server's studies. Where the server fails, a RunError of one line.

    places: id -> name of the experiments that are read; several may have a study of one name: then that one
    counts whose parent (else whose run) is the newest.
    """

    def __init__(self, client: MlflowClient, places: Mapping[str, str]) -> None:
        self._client, self._places = client, places
        self._read: dict[str, TrackedRun] = {}

    @property
    def uri(self) -> str:
        return str(self._client.tracking_uri)

    @property
    def where(self) -> str:
        """`in experiment 'NAME'`, or in all of them."""
        names = list(self._places.values())
        return f"in experiment {names[0]!r}" if len(names) == 1 else "in any experiment"

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
            parents, children = [], []
            for run in self._search(f"tags.study = {quoted(name)}"):
                role = run.data.tags.get("role")
                if role == "study":
                    parents.append(run)
                elif role in (None, *_TRAININGS):
                    children.append(run)
            if not parents and not children:
                raise InputError(
                    f"study {name}: no run {self.where} of {self.uri} has the tag study={name}"
                    f"{self._known(name)}"
                )
            place = (parents or children)[-1].info.experiment_id
            others = {run.info.experiment_id for run in (*parents, *children)} - {place}
            parents, children = (
                [run for run in runs if run.info.experiment_id == place] for runs in (parents, children)
            )
            parents.reverse()
            plan, problem = self._plan(parents)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                runs = tuple(pool.map(self._whole, children))
            return Tracked(
                experiment_id=place,
                experiment=self._places[place],
                others=tuple(sorted(self._places[other] for other in others)),
                parents=tuple(run.info.run_id for run in parents),
                status=_status(parents[0]) if parents else "",
                plan=plan,
                problem=problem,
                runs=runs,
            )

    def champions(self, name: str | None, digests: Collection[str]) -> list[Champion]:
        """Of that registered model, or of all that have versions on these data."""
        if name is not None:
            names = [name]
        else:
            with one_line(self.uri):
                found = promoted_versions(self._client)
                names = sorted({each.name for each in found if tags_of(each).get("data_digest") in digests})
        return [champion for each in names if (champion := self.champion(each)) is not None]

    def run(self, text: str) -> TrackedRun | None:
        """The training of that id, or whose id begins so, or of that name. InputError where it may be
        several."""
        with one_line(self.uri):
            run = find_run(self._client, list(self._places), text)
            return self._whole(run) if run else None

    def version(self, address: Address) -> tuple[str, TrackedRun]:
        """A registered version's number, and the training behind it. InputError if there is none."""
        with one_line(self.uri):
            version = find_version(self._client, address)
            run_id = version.run_id or version.tags.get("run_id")
            run = get_run(self._client, run_id) if run_id else None
            if run is None:
                why = f"its run {run_id} is gone" if run_id else "it was registered without a run"
                raise InputError(f"model {address}, version {version.version}: {why}")
            return str(version.version), self._whole(run)

    def answers(self, run: TrackedRun) -> tuple[Answers, dict[str, str]]:
        """A training's stored predictions, and its classes' readable names by folder. InputError without."""
        with one_line(self.uri):
            trained = self._client.get_run(run.tags.get("reused_run", run.run_id))
            answers = self._file(trained.info.artifact_uri, PREDICTIONS, read_predictions)
            try:
                return answers, self._file(trained.info.artifact_uri, CLASSES, read_classes)
            except InputError:
                return answers, {}

    def newest(self, most: int) -> list[str]:
        """Names of trainings, the newest first."""
        with one_line(self.uri):
            runs = (run for run in self._search("", newest=True) if run.data.tags.get("role") in _TRAININGS)
            return list(dict.fromkeys(str(run.info.run_name) for run in islice(runs, most)))

    def champion(self, name: str) -> Champion | None:
        """The registered model's champion; None if there is none, or its predictions are gone."""
        with one_line(self.uri):
            version = version_at(self._client, Address(name, alias=CHAMPION))
            if version is None:
                return None
            run_id = version.run_id or version.tags.get("run_id")
            run = get_run(self._client, run_id) if run_id else None
            if run is None:
                return None
            try:
                names = self._file(run.info.artifact_uri, CLASSES, read_classes)
                answers = self._file(run.info.artifact_uri, PREDICTIONS, read_predictions)
                place = {folder: number for number, folder in enumerate(names)}
                true = [place[folder] for folder in answers.labels]
                predicted = [place[folder] for folder in answers.predicted[SELECTED]]
                counts = np.zeros((len(names), len(names)), dtype=np.int64)
                np.add.at(counts, (true, predicted), 1)
            except (InputError, KeyError):
                return None
            return Champion(
                name=name,
                version=str(version.version),
                run_id=run.info.run_id,
                study=run.data.tags.get("study", "none"),
                data_digest=run.data.tags.get("data_digest", ""),
                classes=tuple(names.values()),
                counts=counts,
            )

    def page(self, experiment_id: str, run_id: str) -> str | None:
        """A run's page in MLflow; None where there is none, or none that another machine reaches."""
        address = link_of_run(self.uri, experiment_id, run_id)
        return (
            None if urlsplit(address or "").hostname in (None, "localhost", "127.0.0.1", "::1") else address
        )

    def log(self, run_id: str, folder: Path, files: Iterable[Path]) -> None:
        """Show these files of a folder under a run, at `report/`, over what an earlier report left there."""
        with one_line(self.uri):
            for file in files:
                place = Path("report") / file.parent.relative_to(folder)
                self._client.log_artifact(run_id, str(file), place.as_posix())

    def launched(self) -> AbstractContextManager[Callable[[str], None]]:
        """Gives what writes a report's result into the run that `mlflow run -e report` made, if it did."""
        return outer_run(self._client, "report")

    def _search(self, query: str, *, newest: bool = False) -> Iterator[Run]:
        yield from search(self._client, self._places, query, NEWEST_FIRST if newest else OLDEST_FIRST)

    def _known(self, name: str) -> str:
        names = self.studies()
        near = "".join(f"; did you mean {each}?" for each in get_close_matches(name, names, n=1))
        return f"{near}; there are {', '.join(names[:8])}" if names else ""

    def _plan(self, parents: Sequence[Run]) -> tuple[StudyPlan | None, str]:
        problem = "no parent run, so nothing says what was planned"
        for parent in parents:
            try:
                folder = f"{parent.info.artifact_uri}/study"
                return self._file(folder, OUTLINE, lambda path: StudyPlan.read(path.read_text("utf-8"))), ""
            except InputError as error:
                problem = f"parent run {parent.info.run_id}: {error}"
        return None, problem

    def _whole(self, run: Run) -> TrackedRun:
        """The run with its curves and answers; one that was read without a flaw is read once. A run that a
        study took from another has the figures of the one that was trained."""
        run_id = run.info.run_id
        if run_id in self._read:
            return self._read[run_id]
        tracked = _brief(run)
        if not tracked.finished:
            return tracked
        trained = trained_run(self._client, run)
        if trained is None:
            return replace(tracked, state="the run that it was taken from is deleted")
        if trained is not run:
            known = _brief(trained)
            tags = {**known.tags, "reused_run": trained.info.run_id}
            own = {name: getattr(tracked, name) for name in ("run_id", "name", "arm", "seed")}
            tracked = replace(known, tags=tags, **own)
            if not tracked.finished:
                return tracked
        read = self._history(tracked, trained)
        try:
            answers = self._file(trained.info.artifact_uri, PREDICTIONS, read_predictions)
            right = {accuracy: answers.right(accuracy) for accuracy in answers.predicted}
            read |= {"answers": right, "images": answers.images, "test_images": len(answers.names)}
        except InputError as error:
            read["flaws"] = (*read["flaws"], f"has no stored predictions ({error})")
        whole = replace(tracked, **read)
        if not whole.flaws:
            self._read[run_id] = whole
        return whole

    def _history(self, run: TrackedRun, trained: Run) -> dict[str, Any]:
        """From the file that training leaves; else, slower, from the server's own records."""
        keys = (*CURVES, "speed/epoch_seconds", "speed/images_per_second")
        try:
            rows = self._file(trained.info.artifact_uri, HISTORY, read_table)
            found = {key: _curve((row.get("epoch"), row.get(key)) for row in rows) for key in keys}
        except InputError:
            found = {key: self._metric(trained.info.run_id, key) for key in keys}
        curves = {key: found[key] for key in CURVES if len(found[key][0])}
        timed, seconds = found["speed/epoch_seconds"]
        speed = found["speed/images_per_second"][1]
        planned = number(run.params.get("epochs"))
        epochs = max((x[-1] for x, _ in curves.values()), default=0)
        cut_off = planned is not None and 0 < epochs < planned
        whole = len(seconds) > 0 and (planned is None or len(seconds) >= planned)
        return {
            "curves": curves,
            "seconds": float(seconds.sum()) if whole else None,
            "elapsed": (timed, seconds.cumsum()) if len(timed) and len(timed) == timed[-1] else None,
            "images_per_second": statistics.median(speed.tolist()) if len(speed) else run.images_per_second,
            "flaws": (f"has curves up to epoch {epochs:g} of {planned:g}",) if cut_off else (),
        }

    def _metric(self, run_id: str, key: str) -> Curve:
        return _curve((point.step, point.value) for point in self._client.get_metric_history(run_id, key))

    def _file(self, artifacts: str, name: str, read: Callable[[Path], _Read]) -> _Read:
        """What a file of a run holds. InputError if it cannot be had, unless it is the server that fails."""
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            with fetched(self._client, f"{artifacts}/{name}") as path:
                return read(path)
        except (InputError, RequestException, MlflowException):
            raise
        except Exception as error:  # a folder of that name, no text, a store whose library is not installed
            raise InputError(f"{name} cannot be read: {first_line(error)}") from None


def open_reader(tracking_uri: str | None, experiment: str | None) -> Reader:
    """InputError without the experiment; RunError, within seconds, without the server. experiment: see
    `look_in`."""
    with opened(tracking_uri, advice="start it, a report reads all it shows from there") as client:
        return Reader(client, look_in(client, experiment))


def _brief(run: Run) -> TrackedRun:
    """What the list of runs says of one."""
    tags, metrics, status = run.data.tags, run.data.metrics, _status(run)
    why = unfinished(run)
    if tags.get("role") == "reused":  # the run that it was taken from has to be finished
        why = None if status == Status.FINISHED else status
    reason = f": {tags['reason']}" if tags.get("reason") else ""
    state = why if status == Status.FINISHED else f"{status}{reason}"
    return TrackedRun(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        arm=tags.get("arm", ""),
        seed=_whole_number(tags.get("seed", run.data.params.get("seed"))),
        state=state or Status.FINISHED,
        params=dict(run.data.params),
        tags=dict(tags),
        claims={name: metrics[name] for name in METRICS if name in metrics},
        test_images=profile(run).get("test_images"),
        images_per_second=metrics.get("speed/images_per_second"),
    )


def _status(run: Run) -> str:
    """Our own word for how it stands, else MLflow's."""
    return run.data.tags.get("status") or str(run.info.status.lower())


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
