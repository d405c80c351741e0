"""`mlflow run . -P ...`, as a user types it, and what MLflow then holds."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from imagenette.config import KNOBS, Config, resolve
from tests.integration.conftest import TINY

ROOT = Path(__file__).resolve().parents[2]
GIVEN = {"data": "digits", "depth": "18", "size": "32", "limit": "128", "epochs": "2", "weight_decay": "5e-4"}
METRICS = {
    *("train/loss", "train/accuracy", "holdout/loss", "holdout/accuracy", "test/loss", "test/accuracy"),
    *("lr", "speed/images_per_second", "speed/epoch_seconds"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Where MLflow keeps everything in this module, with its artifacts beside it."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri)
    client.create_experiment("imagenette", artifact_location=str(folder / "artifacts"))
    return uri


def mlflow_run(server, **given):
    """The exit code and output of `mlflow run`."""
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local"]
    command += ["--experiment-name", "imagenette"]
    command += [part for name, text in given.items() for part in ("-P", f"{name}={text}")]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"MLFLOW_TRACKING_URI": server, "PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=350, check=False)


@pytest.fixture(scope="module")
def trained(server, tmp_path_factory):
    output = tmp_path_factory.mktemp("outputs") / "trained"
    done = mlflow_run(server, **GIVEN, output=output)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("imagenette").experiment_id
    (run,) = client.search_runs([experiment])
    return client, run


def test_the_run_mlflow_made_is_adopted_and_finished(trained):
    _, run = trained
    assert run.info.status == "FINISHED"
    assert run.data.tags["status"] == "finished"
    assert run.data.tags["mlflow.project.entryPoint"] == "main"


def test_every_knob_is_a_param_under_its_own_name(trained):
    _, run = trained
    params = run.data.params
    assert set(KNOBS) <= set(params)
    config = resolve(GIVEN)
    assert params["weight_decay"] == "5e-4", "what MLflow logged first cannot be changed"
    assert resolve({name: params[name] for name in KNOBS}) == config


def test_every_metric_is_there_at_every_epoch(trained):
    client, run = trained
    for name in METRICS:
        assert [m.step for m in client.get_metric_history(run.info.run_id, name)] == [1, 2], name
    best = {"best/test_accuracy", "best/epoch", "final/test_accuracy", "final/holdout_accuracy"}
    assert best <= set(run.data.metrics)
    assert any(name.startswith("system/") for name in run.data.metrics)
    for name, value in run.data.metrics.items():
        if name.endswith("accuracy"):
            assert 0 <= value <= 1, name


def test_tags_say_where_the_run_comes_from(trained):
    _, run = trained
    tags = run.data.tags
    for name in (
        "study",
        "arm",
        "seed",
        "depth",
        "role",
        "status",
        "reproduce",
        "data_digest",
        "config_digest",
    ):
        assert tags.get(name), name
    assert len(tags["data_digest"]) == 64
    assert len(tags["commit"]) == 40
    assert "--weight_decay=0.0005" in tags["reproduce"]
    assert "test accuracy" in tags["mlflow.note.content"]


def test_the_data_set_is_the_one_input(trained):
    _, run = trained
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.name == "digits"
    assert run.data.tags["data_digest"].startswith(data.dataset.digest)


def test_artifacts_tell_the_run(trained):
    client, run = trained
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    expected = {"config.json", "curves.png", "confusion.png", "per_class.csv", "predictions.csv", "worst.png"}
    assert expected <= names
    path = client.download_artifacts(run.info.run_id, "config.json")
    assert Config.model_validate_json(Path(path).read_text()) == resolve(GIVEN)
    predictions = Path(client.download_artifacts(run.info.run_id, "predictions.csv")).read_text().splitlines()
    assert len(predictions) == 1 + 359, "one line for every test image"
    right = sum(line.split(",")[1] == line.split(",")[2] for line in predictions[1:])
    assert right / 359 == pytest.approx(run.data.metrics["final/test_accuracy"])


LOAD = """
import os, sys
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
import io, mlflow, numpy as np, pandas as pd, torch
from PIL import Image
mlflow.set_tracking_uri(sys.argv[1])
file = io.BytesIO()
Image.effect_noise((9, 9), 64).save(file, "PNG")
model, graph = mlflow.pyfunc.load_model(sys.argv[2]), mlflow.pytorch.load_model(sys.argv[3])
assert model.metadata.signature is not None
for n in (1, 5):
    pictures = pd.DataFrame({"image": [file.getvalue()] * n})
    for said in (model.predict(pictures), graph(torch.rand(n, 3, 32, 32))):
        shares = np.asarray(said)
        assert shares.shape == (n, 10), shares.shape
        assert np.allclose(shares.sum(axis=1), 1, atol=1e-5), shares.sum(axis=1)
print("loaded")
"""


def test_models_load_without_unpickling_and_predict_for_one_and_for_five(server, trained):
    client, run = trained
    models = client.search_logged_models([run.info.experiment_id])
    assert {model.status.value for model in models} == {"READY"}
    assert "selected" in {model.name for model in models}
    uris = [f"models:/{models[0].model_id}", f"runs:/{run.info.run_id}/selected"]
    command = [sys.executable, "-c", LOAD, server, *uris]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["loaded"]


@pytest.mark.slow
def test_a_stopped_run_goes_on_by_its_id(server, start, tmp_path):
    """SIGTERM while it trains; then `mlflow run . -P resume=RUN_ID`, which makes a run of its own."""
    output = tmp_path / "stopped"
    training = start(output, env={"MLFLOW_TRACKING_URI": server}, offline="false", epochs="5")
    training.reaches_epoch(2)
    training.process.send_signal(signal.SIGTERM)
    assert training.wait(60) == 75, training.said
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("imagenette").experiment_id
    (run,) = client.search_runs([experiment], "tags.status = 'preempted'")
    assert run.info.status == "KILLED"

    done = mlflow_run(server, resume=run.info.run_id)
    assert done.returncode == 0, done.stderr
    resumed = client.get_run(run.info.run_id)
    assert (resumed.info.status, resumed.data.tags["status"]) == ("FINISHED", "finished")
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "test/accuracy")]
    assert steps == [1, 2, 3, 4, 5]
    assert resumed.data.params["limit"] == TINY["limit"], "the run's own config, not MLproject's defaults"
    (launcher,) = client.search_runs([experiment], "tags.role = 'launcher'")
    assert launcher.data.tags["resumed_run"] == run.info.run_id
    assert np.isfinite(resumed.data.metrics["final/test_accuracy"])
