"""Laws of logged models and of the doctor."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from torch import nn

from imagenette.network.export import save_model
from imagenette.results import Status
from imagenette.tracking.doctor import doctor, find, mend
from imagenette.tracking.outbox import read_card
from imagenette.tracking.provenance import HEARTBEAT, UNSEEN
from imagenette.tracking.sync import sync
from tests.data.small_sets import encode, picture
from tests.tracking.tracking_helpers import epoch, open_run

CLASSES = ("n01", "n02", "n03")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    )
    net.eval()(torch.zeros(2, 3, 8, 8))
    path = tmp_path_factory.mktemp("saved") / "model"
    third = (0.5, 0.5, 0.5)
    return save_model(net, path, classes=CLASSES, labels=CLASSES, side=8, size=8, mean=third, std=third)


def models(uri: str, experiment: str = "laws") -> list[mlflow.entities.LoggedModel]:
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_logged_models([found.experiment_id]))


def test_a_model_loads_by_id_and_by_run_without_pickle(
    saved: Path, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = open_run(tmp_path / "out", uri)
    tracker.log(epoch(1))
    tracker.log(epoch(2))
    shutil.copytree(saved, tmp_path / "out" / "models" / "best")
    tracker.model(
        "best", tmp_path / "out" / "models" / "best", step=1, metrics={"test/accuracy": 0.9, "extra": 1.0}
    )
    assert tracker.close(Status.FINISHED) == 0

    [model] = models(uri)
    assert (str(model.status), model.name, model.model_type) == ("READY", "best", "image-classification")
    assert model.params["depth"] == "18"
    assert {m.key: m.value for m in model.metrics}["train/loss"] == 2.0
    run = MlflowClient(uri).get_run(tracker.run_id)
    [output] = run.outputs.model_outputs
    assert (output.model_id, output.step) == (model.model_id, 1)
    history = MlflowClient(uri).get_metric_history(tracker.run_id, "test/accuracy")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.5)], "the run's own curve is untouched"

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(uri)
    try:
        for address in (f"models:/{model.model_id}", f"runs:/{tracker.run_id}/best"):
            loaded = mlflow.pyfunc.load_model(address)
            assert loaded.metadata.model_id == model.model_id
            for count in (1, 5):
                shares = loaded.predict(pd.DataFrame({"image": [encode(picture(0))] * count}))
                assert shares.shape == (count, 3)
                graph = mlflow.pytorch.load_model(address)
                assert graph(torch.zeros(count, 3, 8, 8)).shape == (count, 3)
    finally:
        mlflow.set_tracking_uri(None)


def test_a_store_on_this_file_system_and_the_folder_have_one_copy_of_a_large_file(
    saved: Path, uri: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out/models/selected"
    shutil.copytree(saved, folder)
    (folder / "data/large").write_bytes(os.urandom(2 << 20))
    tracker = open_run(tmp_path / "out", uri)
    tracker.model("selected", folder, step=1, metrics={})
    assert tracker.close(Status.FINISHED) == 0
    [model] = models(uri)
    store = Path(model.artifact_location.removeprefix("file://"))
    assert (store / "data/large").samefile(folder / "data/large")
    assert not (store / "MLmodel").samefile(folder / "MLmodel"), "into which MLflow may write"
    content = (folder / "data/large").read_bytes()
    MlflowClient(uri).finalize_logged_model(model.model_id, "FAILED")
    (tmp_path / "out/outbox/acked").unlink()
    assert sync(tmp_path / "out") == 0, "sent again, though MLflow copies no file onto itself"
    assert (store / "data/large").read_bytes() == (folder / "data/large").read_bytes() == content
    shutil.rmtree(tmp_path / "out")
    assert (store / "data/large").read_bytes() == content
    assert not [*tmp_path.rglob(".*.once")]


def test_a_model_sent_again_or_gone_on_with_is_one_model(saved: Path, uri: str, tmp_path: Path) -> None:
    tracker = open_run(tmp_path / "out", uri)
    tracker.model("last", saved, step=1, metrics={"a": 1.0})
    assert tracker.close(Status.FINISHED) == 0
    [before] = models(uri)
    # As a server killed inside leaves it: PENDING, not linked; and a double of a repeated POST.
    client = MlflowClient(uri)
    client.finalize_logged_model(before.model_id, "FAILED")
    client.create_logged_model(before.experiment_id, "last", tracker.run_id, tags=before.tags)
    (tmp_path / "out" / "outbox" / "acked").unlink()
    assert sync(tmp_path / "out") == 0
    [after] = models(uri)
    assert str(after.status) == "READY"
    assert len(client.get_run(tracker.run_id).outputs.model_outputs) == 1
    (tmp_path / "out" / "outbox" / "acked").unlink()
    assert sync(tmp_path / "out") == 0
    [again] = models(uri)
    assert again.model_id == after.model_id
    assert [(m.key, m.value) for m in again.metrics] == [("a", 1.0)]


def test_a_model_whose_files_are_gone_is_refused_and_the_run_still_ends(
    saved: Path, uri: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    tracker = open_run(output, uri, offline=True)
    shutil.copytree(saved, output / "model")
    tracker.model("last", output / "model", step=1, metrics={})
    tracker.close(Status.FINISHED)
    shutil.rmtree(output / "model")
    assert sync(output, uri) == 1
    assert MlflowClient(uri).get_run(read_card(output).run_id).info.status == "FINISHED"


def killed_trainer(output: Path, uri: str) -> str:
    """A run whose process was SIGKILLed; its id."""
    code = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from tests.tracking.tracking_helpers import open_run; t = open_run(Path(sys.argv[2]), sys.argv[3]);"
        "t.tag(x='y'); print(t.run_id, flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parents[2]), str(output), uri]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return run_id


def test_doctor_mends_a_run_whose_process_was_killed_and_leaves_the_living(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    living = open_run(tmp_path / "living", uri)
    lost = killed_trainer(tmp_path / "lost", uri)
    client = MlflowClient(uri)
    pending = client.create_logged_model(client.get_run(lost).info.experiment_id, "last", lost)

    [run, model] = doctor(tracking_uri=uri, experiment="laws", folder=None, dry_run=True)
    assert (run.kind, run.subject, run.mended) == ("lost run", lost, False)
    assert (model.kind, model.subject) == ("pending model", pending.model_id)
    assert client.get_run(lost).info.status == "RUNNING", "a dry run mends nothing"

    assert all(f.mended for f in doctor(tracking_uri=uri, experiment="laws", folder=None))
    ended = client.get_run(lost)
    assert (ended.info.status, ended.data.tags["status"]) == ("FAILED", "lost")
    assert "is gone" in ended.data.tags["mlflow.note.content"]
    assert ended.info.end_time >= ended.info.start_time - 1000
    assert client.get_run(living.run_id).info.status == "RUNNING"
    assert str(client.get_logged_model(pending.model_id).status) == "FAILED"
    capsys.readouterr()
    assert doctor(tracking_uri=uri, experiment="laws", folder=None) == []
    assert capsys.readouterr().out == "nothing to mend\n"
    assert living.close(Status.FINISHED) == 0


@pytest.mark.parametrize("key", [HEARTBEAT, "heartbeat"], ids=["of today", "of earlier versions"])
def test_doctor_goes_by_the_heartbeat_of_another_host(uri: str, tmp_path: Path, key: str) -> None:
    tracker = open_run(tmp_path / "out", uri)
    tracker.close(Status.FINISHED)
    client = MlflowClient(uri)
    if key == HEARTBEAT:  # of a machine of this name: a clone, or this one before it was started again
        client.set_tag(tracker.run_id, f"{UNSEEN}place", "elsewhere")
    else:
        client.set_tag(tracker.run_id, "host", "elsewhere")
        client.delete_tag(tracker.run_id, f"{UNSEEN}place")
    client.set_tag(tracker.run_id, f"{UNSEEN}pid_started", "1.00")
    client.delete_tag(tracker.run_id, HEARTBEAT)
    five_minutes_ago = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 300))
    client.set_tag(tracker.run_id, key, five_minutes_ago)
    client.set_tag(tracker.run_id, "status", "running")
    client.update_run(tracker.run_id, status="RUNNING")
    assert list(find(client, "laws")) == []
    [finding] = find(client, "laws", stale_minutes=4)
    assert finding.what == "no heartbeat for 5 minutes"


def test_doctor_believes_our_tag_over_the_exit_code(uri: str, tmp_path: Path) -> None:
    tracker = open_run(tmp_path / "out", uri)
    tracker.close(Status.FINISHED)
    client = MlflowClient(uri)
    client.set_terminated(tracker.run_id, "FAILED")  # `mlflow run`, on exit code 74
    [finding] = find(client, "laws")
    assert finding.what == "tag status=finished, but MLflow says FAILED"
    assert mend(client, finding).mended
    assert client.get_run(tracker.run_id).info.status == "FINISHED"


def test_doctor_sends_what_a_folder_still_holds(uri: str, tmp_path: Path) -> None:
    tracker = open_run(tmp_path / "runs" / "a", uri)
    tracker.log(epoch(1))
    tracker.close(Status.FINISHED)
    (tmp_path / "runs" / "a" / "outbox" / "acked").write_text("1")
    [finding] = doctor(tracking_uri=uri, experiment="laws", folder=tmp_path / "runs")
    assert (finding.kind, finding.mended) == ("undelivered records", True)
