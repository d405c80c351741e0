"""A tracking server that dies while a run trains, or before it ends, costs nothing but time."""

import subprocess
import sys

import pytest
from mlflow import MlflowClient

from tests.integration.conftest import logged_epochs
from tests.tracking.tracking_helpers import Server


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_that_dies_twice_has_every_epoch_once(server, start, tmp_path):
    """Killed in the middle, back, killed before the end: exit code 74, then `sync` completes the run."""
    output = tmp_path / "run"
    env = {"MLFLOW_TRACKING_URI": server.uri, "IMAGENETTE_FLUSH_SECONDS": "3"}
    training = start(output, env=env, offline="false", epochs="8")
    training.reaches_epoch(2)
    server.kill()
    training.reaches_epoch(4)  # goes on without the server
    server.start()
    training.reaches_epoch(6)
    server.kill()
    assert training.wait() == 74, training.said
    assert f"imagenette sync {output}" in training.said

    server.start()
    command = [sys.executable, "-m", "imagenette", "sync", str(output)]
    for said in ("records sent", "nothing to send"):  # a second time there is nothing to do
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    client = MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("imagenette").experiment_id])
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "finished")
    kept = {record["step"]: record["metrics"] for record in logged_epochs(output)}
    for name in ("train/loss", "test/accuracy", "speed/epoch_seconds"):
        history = client.get_metric_history(run.info.run_id, name)
        assert {m.step: m.value for m in history} == {step: kept[step][name] for step in range(1, 9)}
        assert len(history) == 8, "each epoch once"
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"curves.png", "predictions.csv", "config.json"} <= artifacts
    models = client.search_logged_models([run.info.experiment_id])
    assert {model.status.value for model in models} == {"READY"}
