"""What a report is made from, as files that anybody can keep and read: `imagenette report --bundle FOLDER`
writes them from the tracking server, `--from FOLDER` makes the same report from them, without a server. What
several machines wrote is one report too: `--from` once for each.

studies.json        what each study planned, how its parent run stands, its champion's confusion counts
runs.parquet        a row a run: config, tags that a report reads, accuracies as they were logged
history.parquet     a row a run and epoch: losses, accuracies, seconds up to its end
predictions.parquet a row a run and test image: the class it was given, and that class's probability (float16)
images.parquet      a row a test image: its name and class

Tags that name machines, users and folders are left out; data and plugins are named by the last part of their
path. Why a run failed stands as in the report.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imagenette.artifacts import Answers
from imagenette.errors import InputError
from imagenette.files import write_whole
from imagenette.report.runs import CURVES, Champion, Tracked, TrackedRun
from imagenette.results import FINAL, SELECTED
from imagenette.tracking.study_plan import StudyPlan

if TYPE_CHECKING:
    import pandas as pd

FORM = 1
"""Of the files; a reader refuses others."""
STUDIES = "studies.json"
TABLES = ("runs", "history", "predictions", "images")
TAGS = (
    *("data_digest", "config_digest", "commit", "commit_dirty", "device", "torch", "torchvision", "python"),
    *("threads", "processes", "parameters", "weights_bytes", "selection", "reused_run", "role", "study"),
)
_PLAIN = ("run_id", "name", "arm", "state", "test_images", "seconds", "images_per_second", "images")
_RUN = ("study", "seed", *_PLAIN, "config", "tags", "accuracies", "flaws", "answers")
_PLACES = ("data", "plugin")
"""Knobs that may be paths."""
_ELAPSED = "elapsed"
_GIVEN = {FINAL: "final", SELECTED: "selected"}
_SHARE = {accuracy: f"{column}_share" for accuracy, column in _GIVEN.items()}


def write(
    folder: Path,
    studies: Mapping[str, Tracked],
    champions: Sequence[Champion],
    answers: Callable[[TrackedRun], tuple[Answers, Any]],
) -> None:
    """All of it into a folder, which is made; an earlier bundle there is replaced, once this one is whole.

    studies: name -> what the server has of it. answers: a run's stored predictions, and its classes' names.
    """
    import pandas as pd

    runs: list[dict[str, Any]] = []
    history: list[pd.DataFrame] = []
    given: dict[str, pd.DataFrame] = {}
    images: dict[str, pd.DataFrame] = {}
    for name, tracked in studies.items():
        for run in tracked.runs:
            runs.append({"study": name, **_row(run)})
            if run.curves or run.elapsed:
                history.append(_history(run))
            if run.answers and run.run_id not in given:
                stored, _ = answers(run)
                given[run.run_id] = _given(run.run_id, stored)
                images.setdefault(run.images, _images(run.images, stored))
    parts = ([pd.DataFrame(runs, columns=_RUN)], history, list(given.values()), list(images.values()))
    about = {
        "form": FORM,
        "studies": [{"name": name, **_study(tracked)} for name, tracked in studies.items()],
        "champions": [asdict(champion) | {"counts": champion.counts.tolist()} for champion in champions],
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as new:
        for table, frames in zip(TABLES, parts, strict=True):
            whole = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
            whole.to_parquet(Path(new, f"{table}.parquet"), index=False, compression="zstd")
        (folder / STUDIES).unlink(missing_ok=True)  # without it there is no bundle: never half of each
        for table in TABLES:
            Path(new, f"{table}.parquet").replace(folder / f"{table}.parquet")
        write_whole(folder / STUDIES, json.dumps(about, indent=1) + "\n")


def _study(tracked: Tracked) -> dict[str, Any]:
    kept = ("experiment_id", "experiment", "others", "parents", "status", "problem")
    plan = tracked.plan and tracked.plan.model_dump(mode="json")
    for knobs in (plan["base"], plan["overrides"], *plan["arms"].values()) if plan else ():
        knobs.update(_placeless(knobs))
    return {name: getattr(tracked, name) for name in kept} | {"plan": plan}


def _placeless(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Without the folders of the machine that they were given on."""
    return {name: Path(str(value)).name if name in _PLACES else value for name, value in knobs.items()}


def _row(run: TrackedRun) -> dict[str, Any]:
    return {name: getattr(run, name) for name in _PLAIN} | {
        "seed": None if run.seed is None else str(run.seed),  # of any size
        "config": json.dumps(_placeless(run.params)),
        "tags": json.dumps({name: run.tags[name] for name in TAGS if name in run.tags}),
        "accuracies": json.dumps(dict(run.claims)),
        "flaws": json.dumps(run.flaws),
        "answers": json.dumps(list(run.answers)),
    }


def _history(run: TrackedRun) -> pd.DataFrame:
    import pandas as pd

    curves = dict(run.curves) | ({_ELAPSED: run.elapsed} if run.elapsed else {})
    columns = {name: pd.Series(values, index=epochs) for name, (epochs, values) in curves.items()}
    table = pd.DataFrame(columns, columns=[*CURVES, _ELAPSED], dtype=np.float64)
    table.insert(0, "epoch", table.index)
    table.insert(0, "run_id", run.run_id)
    return table


def _given(run_id: str, stored: Answers) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Any] = {"run_id": run_id, "image": np.arange(len(stored.names), dtype=np.int32)}
    for accuracy, predicted in stored.predicted.items():
        columns[_GIVEN[accuracy]] = predicted
        if shares := stored.shares.get(accuracy):
            columns[_SHARE[accuracy]] = np.array(shares, dtype=np.float16)
    return pd.DataFrame(columns)


def _images(digest: str, stored: Answers) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({"images": digest, "name": stored.names, "label": stored.labels})


class Bundle:
    """The files as the source of a report, in place of a server; of several folders, all of their studies."""

    where = "in the bundle"

    def __init__(self, *folders: Path) -> None:
        """InputError where one is no bundle, or of another form, or two hold a study of the same name."""
        self._folders = folders
        self._studies: dict[str, dict[str, Any]] = {}
        self._champions: dict[tuple[str, str], Champion] = {}
        self._runs: dict[str, tuple[TrackedRun, ...]] = {}
        self._history: dict[str, pd.DataFrame] = {}
        self._given: dict[str, pd.DataFrame] = {}
        self._images: dict[str, pd.DataFrame] = {}
        for folder in folders:
            for file in (STUDIES, *(f"{table}.parquet" for table in TABLES)):
                if not (folder / file).is_file():
                    raise InputError(f"from={folder}: no bundle: {file} is not there")
            try:
                self._read(folder)
            except InputError:
                raise
            except Exception as error:  # cut off, another file of that name: pyarrow raises of all kinds
                raise InputError(
                    f"from={folder}: cannot be read: {' '.join(str(error).split())[:200]}"
                ) from None

    def _read(self, folder: Path) -> None:
        import pandas as pd

        about = json.loads((folder / STUDIES).read_text("utf-8"))
        if about.get("form") != FORM:
            raise InputError(f"from={folder}: a bundle of form {about.get('form')}; {FORM} is read")
        runs, *others = (pd.read_parquet(folder / f"{table}.parquet") for table in TABLES)
        history, given, images = map(_parted, others, ("run_id", "run_id", "images"))
        self._history |= history
        self._given |= given
        self._images |= images
        studies = {each["name"]: each for each in about["studies"]}
        if twice := sorted(studies.keys() & self._studies.keys()):
            raise InputError(f"from={folder}: {', '.join(twice)} is in another of these bundles too")
        self._studies |= studies
        for champion in map(_champion, about["champions"]):  # of two bundles' the first's is shown
            self._champions.setdefault((champion.name, champion.data_digest), champion)
        for study, rows in _parted(runs, "study").items():
            self._runs[study] = tuple(self._run(row) for row in rows.to_dict("records"))

    @property
    def uri(self) -> str:
        return ", ".join(map(str, self._folders))

    def studies(self) -> list[str]:
        return list(self._studies)

    def state(self, study: str) -> tuple[Any, ...]:
        return ()

    def study(self, name: str) -> Tracked:
        """InputError if it has none of that name."""
        if name not in self._studies:
            near = get_close_matches(name, self._studies, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"study {name}: not in {self.uri}; {hint}there are {', '.join(self._studies)}")
        kept = self._studies[name]
        return Tracked(
            experiment_id=kept["experiment_id"],
            experiment=kept["experiment"],
            others=tuple(kept["others"]),
            parents=tuple(kept["parents"]),
            status=kept["status"],
            plan=StudyPlan.read(json.dumps(kept["plan"])) if kept["plan"] else None,
            problem=kept["problem"],
            runs=self._runs.get(name, ()),
        )

    def answers(self, run: TrackedRun) -> tuple[Answers, dict[str, str]]:
        """A training's stored predictions, and no names of classes but their folders'. InputError without."""
        if not run.answers:
            raise InputError(f"run {run.run_id} has no predictions in {self.uri}")
        return self._answers(run.run_id, run.images, list(run.answers)), {}

    def champions(self, name: str | None, digests: Collection[str]) -> list[Champion]:
        known = self._champions.values()
        return [each for each in known if each.data_digest in digests and name in (None, each.name)]

    def page(self, experiment_id: str, run_id: str) -> str | None:
        """Its server is not known."""

    def log(self, run_id: str, folder: Path, files: Iterable[Path]) -> None:
        """There is nowhere to."""

    def launched(self) -> AbstractContextManager[Callable[[str], None]]:
        return nullcontext(lambda text: None)

    def _run(self, row: dict[str, Any]) -> TrackedRun:
        import pandas as pd

        run_id, held = row["run_id"], json.loads(row["answers"])

        def known(name: str, kind: Callable[[Any], Any]) -> Any:
            return None if pd.isna(row[name]) else kind(row[name])

        curves = {}
        if (past := self._history.get(run_id)) is not None:
            for name in (*CURVES, _ELAPSED):
                if len(points := past[["epoch", name]].dropna()):
                    curves[name] = (points["epoch"].to_numpy(np.float64), points[name].to_numpy(np.float64))
        stored = self._answers(run_id, row["images"], held) if held else None
        return TrackedRun(
            run_id=run_id,
            name=row["name"],
            arm=row["arm"],
            seed=known("seed", int),
            state=row["state"],
            params=json.loads(row["config"]),
            tags=json.loads(row["tags"]),
            claims=json.loads(row["accuracies"]),
            test_images=known("test_images", int),
            seconds=known("seconds", float),
            images_per_second=known("images_per_second", float),
            elapsed=curves.pop(_ELAPSED, None),
            curves=curves,
            answers={accuracy: stored.right(accuracy) for accuracy in held} if stored else {},
            images=row["images"],
            flaws=tuple(json.loads(row["flaws"])),
        )

    def _answers(self, run_id: str, digest: str, held: list[str]) -> Answers:
        given, images = self._given[run_id], self._images[digest]
        with_share = [a for a in held if _SHARE[a] in given and given[_SHARE[a]].notna().all()]
        return Answers(
            names=tuple(images["name"]),
            labels=tuple(images["label"]),
            predicted={accuracy: tuple(given[_GIVEN[accuracy]]) for accuracy in held},
            shares={accuracy: tuple(map(float, given[_SHARE[accuracy]])) for accuracy in with_share},
        )


def _champion(kept: dict[str, Any]) -> Champion:
    counts = np.array(kept["counts"], dtype=np.int64)
    return Champion(**kept | {"classes": tuple(kept["classes"]), "counts": counts})


def _parted(table: pd.DataFrame, by: str) -> dict[str, pd.DataFrame]:
    """A table's rows by what stands in a column; none of a table without any."""
    return {str(each): rows for each, rows in table.groupby(by, sort=False)} if by in table else {}
