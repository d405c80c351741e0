"""The soak, for two minutes in place of thirty; and that its checks see a loss, a double and a leak which are
planted: a soak that cannot fail shows nothing."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState, create_trial

from imagenette.files import PACKAGE
from imagenette.registry import promote
from imagenette.results import Status
from imagenette.study.identity import Worker
from imagenette.tracking.client import connect
from imagenette.training.job import Result
from tests.registry.finished_runs import Shop, saved_model
from tests.study.study_helpers import Study, grid
from tests.tracking.conftest import empty_store, quiet_environment, uri  # noqa: F401 - fixtures
from tests.tracking.tracking_helpers import epoch, open_run
from tests.waiting import wait_until

BENCHMARKS = PACKAGE.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import _aftermath as aftermath  # noqa: E402


@pytest.mark.slow  # five minutes
@pytest.mark.timeout(1500)
def test_two_minutes_of_kills_lose_double_and_leave_nothing(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "soak.py", "--minutes", "2", "--seed", "3"]
    done = subprocess.run([*command, "--json", tmp_path / "soak.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "soak.json").read_text())
    assert figures["summary"]["kills"] == sum(figures["kills"].values()) >= 5
    assert done.stderr.count(" to ") >= 5, "a line for each kill"


@pytest.fixture
def output(tmp_path: Path, uri: str) -> Path:  # noqa: F811
    """The folder of a run of two epochs, all on the server."""
    output = tmp_path / "run"
    tracker = open_run(output, uri)
    (output / "config.json").write_text(json.dumps({"epochs": 2}))
    tracker.artifact(output / "config.json")
    for index in (1, 2):
        tracker.log(epoch(index))
    unsynced = tracker.close(Status.FINISHED)
    Result(status=Status.FINISHED, run_id=tracker.run_id, unsynced=unsynced).write(output)
    return output


def run_found(output: Path, uri: str) -> aftermath.Found:  # noqa: F811
    found = aftermath.Found()
    assert aftermath.check_run(connect(uri), output, found) > 0
    return found


SQL = {
    "a metric is deleted": "DELETE FROM metrics WHERE key = 'train/loss' AND step = 2",
    "a metric has another value": "UPDATE metrics SET value = 9 WHERE key = 'train/loss' AND step = 2",
    "a run is not finished": "UPDATE runs SET status = 'RUNNING'",
}


@pytest.mark.parametrize("planted", SQL)
def test_what_the_database_lost_is_found(planted: str, output: Path, uri: str, tmp_path: Path) -> None:  # noqa: F811
    assert run_found(output, uri) == aftermath.Found()
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        assert db.execute(SQL[planted]).rowcount == 1
    found = run_found(output, uri)
    assert len(found.lost) == 1, found
    assert not found.doubled


def test_an_epoch_recorded_twice_is_found(output: Path, uri: str) -> None:  # noqa: F811
    client, run_id = connect(uri), Result.read(output).run_id
    client.log_metric(str(run_id), "train/loss", 0.5, step=1)
    assert run_found(output, uri).doubled == ["small: train/loss at step 1 has 2 values"]


def test_a_missing_artifact_and_an_unsent_record_are_found(output: Path, uri: str) -> None:  # noqa: F811
    client, run_id = connect(uri), Result.read(output).run_id
    artifacts = Path(client.get_run(str(run_id)).info.artifact_uri.removeprefix("file://"))
    (artifacts / "config.json").unlink()
    assert ["artifact /config.json" in line for line in run_found(output, uri).lost] == [True]
    acked = output / "outbox/acked"
    acked.write_text(str(int(acked.read_text()) - 1))
    assert "records acknowledged" in run_found(output, uri).lost[0]


def test_two_runs_of_one_training_are_found(output: Path, uri: str) -> None:  # noqa: F811
    client, found = connect(uri), aftermath.Found()
    (run,) = aftermath.check_experiment(client, "laws", found)
    assert found == aftermath.Found()
    client.create_run(run.info.experiment_id, tags={aftermath.UID: run.data.tags[aftermath.UID]})
    aftermath.check_experiment(client, "laws", found)
    assert len(found.doubled) == len(found.wrong) == 1  # and it still runs


def test_a_cell_without_a_trial_or_run_or_with_two_is_found(tmp_path: Path, uri: str) -> None:  # noqa: F811
    client, study = connect(uri), Study(f"sqlite:///{tmp_path / 'optuna.db'}", tmp_path, grid(2), name="soak")
    made = client.create_experiment("studies")

    def look() -> aftermath.Found:
        found = aftermath.Found()
        aftermath.check_study(client.search_runs([made]), study.url, "soak", 2, found)
        return found

    def finish_run(cell: str) -> str:
        tags = {"study": "soak", "role": "trial"}
        run = client.create_run(made, tags=tags, run_name=cell)
        client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def add_trial(cell: str) -> None:
        trial = create_trial(value=0.5, state=TrialState.COMPLETE, user_attrs={"cell": cell})
        study.storage.create_new_trial(study.id, trial)

    assert len(look().lost) == 2
    cells = list(study.rows())
    for cell in cells:
        row = study.queue.claim(Worker.here(), cell=cell)
        assert row
        add_trial(cell)
        study.queue.finish(row, Status.FINISHED, run_id=finish_run(cell))
    assert look() == aftermath.Found()
    add_trial(cells[0])
    finish_run(cells[1])
    assert [line.split(": ")[1] for line in look().doubled] == [
        "2 trials, 1 finished runs",
        "1 trials, 2 finished runs",
    ]
    study.storage.engine.dispose()


def test_a_version_an_alias_and_a_model_that_are_gone_are_found(tmp_path: Path, uri: str) -> None:  # noqa: F811
    shop = Shop(uri, saved_model(tmp_path / "model"), tmp_path)
    first, second = (shop.run(0.8 + i / 10) for i in range(2))
    for run in (first, second):
        promote(tracking_uri=uri, run_id=run, name="imagenette")
    client = connect(uri)

    def look(*promoted: str) -> list[str]:
        found = aftermath.Found()
        aftermath.check_registry(client, promoted, found)
        return found.lost

    assert look(first, second) == []
    assert look("another") == ["promoted run another is no version"]
    client.set_registered_model_alias("imagenette", "champion", "1")
    assert look() == ["champion is version 1, not 2"]
    client.set_registered_model_alias("imagenette", "champion", "2")
    (weights,) = Path(_artifacts(client, second)).glob("weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    assert len(look()) == 1
    found = aftermath.Found()
    for number in (1, 2):
        aftermath.check_run(client, tmp_path / f"run{number}", found)
    assert ["small 2: model selected" in line for line in found.lost] == [True]


def _artifacts(client: MlflowClient, run_id: str) -> str:
    run = client.get_run(run_id)
    (model,) = aftermath.models_of(client, run, "selected")
    return str(model.artifact_location).removeprefix("file://")


def test_a_process_a_port_and_a_file_that_are_left_are_found(tmp_path: Path) -> None:
    temporary, found = tmp_path / "tmp", aftermath.Found()
    temporary.mkdir()
    aftermath.check_leaks(tmp_path, temporary, [], found)
    assert found == aftermath.Found()

    started = []
    for folder in (tmp_path, tmp_path / "another soak's"):
        env = {**os.environ, aftermath.MARK: str(folder)}
        started.append(subprocess.Popen(["sleep", "60"], env=env, start_new_session=True))
    try:
        wait_until(lambda: list(aftermath.ours(tmp_path)), 10)
        (temporary / "left").touch()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            aftermath.check_leaks(tmp_path, temporary, [port], found)
        wanted = [f"process {started[0].pid}: sleep 60", f"port {port} still listens", "temporary file left"]
        assert found.leaked == wanted
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.parametrize(("growth", "leaks"), [(0.0, 0), (2.0, 1)])
def test_memory_that_grows_is_found_and_a_start_is_not_growth(growth: float, leaks: int) -> None:
    found = aftermath.Found()
    samples = [("serve", 7, 5.0 * i, 900 + growth * 5 * i) for i in range(100)]
    samples += [("serve", 8, 5.0 * i, min(100.0 * i, 900)) for i in range(100)]  # loads in its first minute
    (row,) = aftermath.memory(samples, found)
    assert len(found.leaked) == leaks
    assert row["MB an hour"] == pytest.approx(3600 * growth / 2)


def _nothing(page: Path) -> None:
    page.unlink()


def _half(page: Path) -> None:
    page.write_text("<html>")


@pytest.mark.parametrize("damage", [_nothing, _half])
def test_a_report_that_is_not_whole_is_found(damage: Callable[[Path], None], tmp_path: Path) -> None:
    found, page = aftermath.Found(), tmp_path / "report.html"
    page.write_text("<html></html>\n")
    (tmp_path / "report.md").write_text("## soak-1")
    aftermath.check_report(tmp_path, ["soak-1"], found)
    assert found == aftermath.Found()
    aftermath.check_report(tmp_path, ["soak-1", "soak-2"], found)
    damage(page)
    aftermath.check_report(tmp_path, ["soak-1"], found)
    assert len(found.lost) == 2


@pytest.mark.parametrize("shares", [[0.6, 0.3], [0.5, 0.4, 0.1], [0.5, 0.6]])
def test_an_answer_that_is_no_vector_of_shares_is_found(shares: list[float]) -> None:
    def answer(*shares: float) -> dict[str, object]:
        top = [{"class": str(number), "share": share} for number, share in enumerate(shares)]
        return {"predictions": [{"top": top}]}

    assert aftermath.check_answer(answer(0.6, 0.4), 2) == ""
    assert aftermath.check_answer(answer(*shares), 2)
