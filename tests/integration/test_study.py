"""A study of real trainings, as `mlflow run . -e study` starts it, and what MLflow and Optuna then hold."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from imagenette.config import resolve

ROOT = Path(__file__).resolve().parents[2]
KNOBS = {"data": "digits", "size": "32", "epochs": "1", "limit": "256", "batch_size": "8", "lr": "1"}
TOML = """
name = "decays"
title = "A decay that can be and one that cannot"
seeds = [1]
[base]
data = "digits"
size = 32
epochs = 1
limit = 256
batch_size = 8
lr = 1        # with decay 10 the weights grow ninefold at each step
[grid]
weight_decay = [0, 10]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


def environment(place: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    clean = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db", "IMAGENETTE_HOME": str(place / "home")}
    return {**clean, **own, "PATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def ended(place: Path) -> subprocess.CompletedProcess[str]:
    (place / "decays.toml").write_text(TOML)
    given = {"name": place / "decays.toml", "workers": "1", "output": place / "runs"}
    given["storage"] = f"sqlite:///{place}/optuna.db"
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local", "-e", "study"]
    command += ["--experiment-name", "imagenette"]
    command += [part for name, text in given.items() for part in ("-P", f"{name}={text}")]
    return subprocess.run(command, env=environment(place), capture_output=True, text=True, timeout=350)


def test_a_study_of_real_trainings(place: Path, ended: subprocess.CompletedProcess[str]):
    assert ended.returncode == 1, ended.stderr
    assert "1 of 2 cells done; missing: weight_decay=10.0 seed=1 (failed: diverged: " in ended.stderr
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("imagenette")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"decays", "weight_decay=0.0 seed=1", "weight_decay=10.0 seed=1"}
    parent = runs.pop("decays")
    assert parent.data.tags["mlflow.project.entryPoint"] == "study"  # the run that `mlflow run` made
    assert (parent.info.status, parent.data.tags["status"]) == ("FAILED", "failed")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    for name, run in runs.items():
        arm, seed = name.split(" seed=")
        tags = run.data.tags
        assert (tags["study"], tags["arm"], tags["seed"], tags["role"]) == ("decays", arm, seed, "trial")
        assert run.info.status == ("FINISHED" if arm == "weight_decay=0.0" else "FAILED")
        assert ("not finite" in tags.get("reason", "")) == (arm != "weight_decay=0.0"), tags.get("reason")

    trials = optuna.load_study(study_name="decays", storage=f"sqlite:///{place}/optuna.db").get_trials()
    for trial in trials:
        run = runs[trial.user_attrs["cell"]]
        assert trial.user_attrs["run_id"] == run.info.run_id
        assert run.data.tags["trial"] == str(trial.number)
        if trial.state == TrialState.COMPLETE:
            assert trial.value == run.data.metrics["selected/holdout_accuracy"]
            assert len(client.search_logged_models([experiment.experiment_id])) == 1
        else:
            assert trial.state == TrialState.FAIL
            assert trial.user_attrs["reason"] == f"diverged: {run.data.tags['reason']}"


@pytest.mark.slow
def test_a_cell_trained_alone_with_the_same_seed_is_the_same_run(place: Path, ended: object):
    command = [sys.executable, "-m", "imagenette", "train", "--weight-decay", "0"]
    command += [part for name, text in KNOBS.items() for part in (f"--{name}", text)]
    command += ["--output", str(place / "alone"), "--workers", "1"]
    subprocess.run(command, env=environment(place), check=True, capture_output=True, timeout=200)
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("imagenette")
    digest = resolve({**KNOBS, "weight_decay": "0"}).digest()
    found = client.search_runs([experiment.experiment_id], f"tags.config_digest = '{digest}'")
    one, two = (
        {k: v for k, v in run.data.metrics.items() if "loss" in k or "accuracy" in k} for run in found
    )
    assert one == two
    assert len(one) > 6


def test_optunas_own_dashboard_opens_on_the_storage(place: Path, ended: object):
    from optuna_dashboard import wsgi

    from imagenette.study.storage import open_storage

    app = wsgi(open_storage(f"sqlite:///{place}/optuna.db"))
    started: list[str] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/api/studies",
        "SERVER_NAME": "x",
        "SERVER_PORT": "80",
        "wsgi.input": None,
        "wsgi.errors": sys.stderr,
        "wsgi.url_scheme": "http",
    }
    body = b"".join(app(environ, lambda status, headers, *_: started.append(status))).decode()
    assert started == ["200 OK"]
    assert '"study_name": "decays"' in body or '"study_name":"decays"' in body


def test_its_report_shows_the_real_runs_and_names_the_diverged_ones(place: Path, ended: object):
    command = [sys.executable, "-m", "imagenette", "report", "decays", "--out", str(place / "report")]
    subprocess.run(command, env=environment(place), check=True, capture_output=True, timeout=100)
    with (place / "report/decays/runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert [(run["arm"], run["seed"]) for run in runs] == [("weight_decay=0.0", "1")]
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    for run in runs:
        tracked = client.get_run(run["run_id"]).data
        assert float(run["selected/test_accuracy"]) == tracked.metrics["selected/test_accuracy"]
        assert float(run["seconds"]) == pytest.approx(tracked.metrics["speed/epoch_seconds"])
        assert (run["test_images"], run["device"]) == ("359", tracked.tags["device"])
        assert 40e6 < int(run["weights_bytes"]) < 50e6  # float32, four bytes a parameter and a little
    text = (place / "report/decays/report.md").read_text()
    assert "| weight_decay=10.0 | 0 of 1 | missing |" in text
    assert "weight_decay=10.0: seed 1: diverged: " in text
    assert "seed 1: diverged: " in (place / "report/decays/report.html").read_text()
