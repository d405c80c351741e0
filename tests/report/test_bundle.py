"""A bundle makes the report that the server makes, file by file; what is no bundle is refused in one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from imagenette.artifacts import Answers
from imagenette.errors import InputError
from imagenette.report.bundle import STUDIES, Bundle, write
from imagenette.report.runs import Tracked, TrackedRun
from imagenette.results import FINAL, SELECTED
from tests.report.conftest import Report
from tests.report.store import outline

ROOT = Path(__file__).resolve().parents[2]
DATE = re.compile(rb"\d{4}-\d{2}-\d{2}(( at |[ T])\d{2}:\d{2})?")
NOWHERE = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def bundle(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    done = report("decay", "--out", folder / "report", "--no-log", "--bundle", folder / "bundle")
    assert done.returncode == 0, done.stderr
    return folder / "bundle"


def contents(folder: Path) -> dict[str, bytes]:
    """File -> what it holds, but for dates."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): DATE.sub(b"DATE", path.read_bytes()) for path in files}


def test_its_report_is_the_servers_file_by_file(report: Report, bundle: Path, tmp_path: Path) -> None:
    pages = {"IMAGENETTE_PAGES_URI": "https://another.example"}
    done = report("--from", bundle, "--out", tmp_path / "out", **NOWHERE, **pages)
    assert done.returncode == 0, done.stderr
    ours, theirs = contents(tmp_path / "out"), contents(bundle.parent / "report")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert "decay/figures/accuracy.svg" in ours


def test_the_published_results_are_those_of_their_bundle(report: Report, tmp_path: Path) -> None:
    """Tables and words; figures' bytes are also those of a version of matplotlib."""
    results = ROOT / "docs/results"
    done = report("--from", results / "bundle", "--out", tmp_path, **NOWHERE)
    assert done.returncode == 0, done.stderr
    ours, theirs = contents(tmp_path), contents(results)
    tables = [name for name in ours if name.endswith((".csv", ".tex", ".md"))]
    assert len(tables) > 8
    assert [name for name in tables if ours[name] != theirs[name]] == []


def test_a_bundle_of_a_bundle_is_the_same(report: Report, bundle: Path, tmp_path: Path) -> None:
    again = ["decay", "--from", bundle, "--out", tmp_path / "out", "--bundle", tmp_path / "again"]
    assert report(*again, **NOWHERE).returncode == 0
    assert contents(tmp_path / "again") == contents(bundle)


def test_it_holds_config_curves_and_predictions_and_no_place_of_a_machine(bundle: Path) -> None:
    runs, history, given, images = (
        pd.read_parquet(bundle / f"{name}.parquet") for name in ("runs", "history", "predictions", "images")
    )
    assert len(runs) == 6
    assert set(history["run_id"]) == set(given["run_id"]) == set(runs["run_id"])
    assert len(given) == len(runs) * len(images)
    assert str(given["selected_share"].dtype) == "float16"
    assert json.loads(runs["config"][0]) == {"epochs": "3", "lr": "0.1", "data": "imagenette.tar"}
    text = " ".join([*runs["config"], *runs["tags"], (bundle / STUDIES).read_text()])
    assert not re.search(r"/(tmp|home|root|work)/|\"(host|output|user|reproduce)\"", text)


def test_studies_without_runs_or_with_odd_ones_come_back_as_they_were(tmp_path: Path) -> None:
    shared = {"experiment_id": "1", "experiment": "e", "others": (), "parents": ("p",), "status": "running"}
    plan = outline("odd", base={"data": "/home/me/set.tar", "plugin": "/home/me/parts.py"})
    half = {FINAL: ("a", "b"), SELECTED: ("a", "a")}
    stored = Answers(("1.png", "2.png"), ("a", "b"), half, {FINAL: (0.5, 0.25)})
    right = {accuracy: stored.right(accuracy) for accuracy in half}
    runs = (
        TrackedRun(run_id="1", name="none", arm="x", seed=None, state="failed: loss not finite at epoch 3"),
        TrackedRun(run_id="2", name="huge", arm="x", seed=2**70, flaws=("has no curves",)),
        TrackedRun(run_id="3", name="half", arm="x", seed=1, answers=right, images=stored.images),
    )
    studies = {
        "empty": Tracked(**shared, plan=None, problem="no parent run", runs=()),
        "odd": Tracked(**shared, plan=plan, problem="", runs=runs),
    }
    for kept in ({"empty": studies["empty"]}, studies):
        write(tmp_path / "b", kept, [], lambda run: (stored, {}))
        bundle = Bundle(tmp_path / "b")
        assert bundle.studies() == list(kept)
        assert bundle.study("empty").runs == ()
    back = bundle.study("odd")
    assert back.plan is not None
    assert back.plan.base == {"data": "set.tar", "plugin": "parts.py"}
    assert [(run.name, run.seed, run.state, run.flaws) for run in back.runs] == [
        (run.name, run.seed, run.state, run.flaws) for run in runs
    ]
    assert vars(bundle.answers(back.runs[2])[0]) == vars(stored)
    assert back.runs[2].right(SELECTED) is None, "it claims no accuracy"
    with pytest.raises(InputError, match="has no predictions"):
        bundle.answers(back.runs[0])


def test_bundles_of_several_servers_are_one_report_and_one_bundle(
    report: Report, bundle: Path, tmp_path: Path
) -> None:
    """Of two machines that each trained one of the studies."""
    other = ROOT / "docs/results/bundle"
    out, joined = tmp_path / "out", tmp_path / "joined"
    done = report("--from", bundle, "--from", other, "--out", out, "--bundle", joined, **NOWHERE)
    assert done.returncode == 0, done.stderr
    names = [name for folder in (bundle, other) for name in Bundle(folder).studies()]
    assert [name for name in names if not (out / name / "report.md").is_file()] == []
    assert contents(out / "decay").keys() == contents(bundle.parent / "report/decay").keys()
    tables = {name: held for name, held in contents(out).items() if name.endswith((".csv", ".tex"))}
    alone = {f"{path.parent.name}/{path.name}": path for path in other.parent.glob("*/*.csv")}
    assert [
        name for name, path in alone.items() if tables[name] != DATE.sub(b"DATE", path.read_bytes())
    ] == []
    for name in names:
        once, twice = (each.study(name) for each in (Bundle(joined), Bundle(bundle, other)))
        assert repr(once) == repr(twice), "their runs, curves and answers among it"
    with pytest.raises(InputError, match="decay is in another of these bundles too"):
        Bundle(bundle, bundle)


def test_a_write_that_breaks_off_leaves_the_earlier_bundle(
    report: Report, bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle, tmp_path / "b")
    study = Bundle(bundle).study("decay")

    def broken(run: TrackedRun) -> tuple[Answers, dict[str, str]]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "b", {"decay": study}, [], broken)
    assert contents(tmp_path / "b") == contents(bundle)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "no bundle: studies.json is not there"),
        (lambda folder: (folder / "runs.parquet").unlink(), "no bundle: runs.parquet is not there"),
        (lambda folder: (folder / "runs.parquet").write_bytes(b"PAR1 cut"), "cannot be read: "),
        (lambda folder: (folder / STUDIES).write_text("{"), "cannot be read: "),
        (
            lambda folder: (folder / STUDIES).write_text('{"form": 9}'),
            "a bundle of form 9; 1 is read",
        ),
    ],
)
def test_what_is_no_bundle_is_one_line(
    damage, words: str, report: Report, bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle, tmp_path / "b")
    damage(tmp_path / "b")
    done = report("--from", tmp_path / "b", "--out", tmp_path / "out", **NOWHERE)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_study_that_it_lacks_and_watching_it_are_refused(
    report: Report, bundle: Path, tmp_path: Path
) -> None:
    done = report("deca", "--from", bundle, "--out", tmp_path / "out", **NOWHERE)
    assert done.returncode == 2
    assert "did you mean decay?" in done.stderr
    done = report("--from", bundle, "--watch", "--out", tmp_path / "out", **NOWHERE)
    assert (done.returncode, "--watch: a bundle does not change" in done.stderr) == (2, True)
