"""Laws of the tracker against a real MLflow server: nothing lost, nothing twice, nobody waits."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from imagenette.errors import InputError, RunError
from imagenette.results import Status
from imagenette.tracking import views
from imagenette.tracking.outbox import Outbox, read_card, read_refused
from imagenette.tracking.sync import end_lost, sync
from tests.tracking.tracking_helpers import Server, epoch, open_run, small_card


def the_run(output: Path, uri: str) -> Run:
    run_id = read_card(output).run_id
    assert run_id is not None
    return MlflowClient(uri).get_run(run_id)


def steps(output: Path, uri: str, metric: str = "train/loss") -> list[int]:
    run_id = read_card(output).run_id
    return [m.step for m in MlflowClient(uri).get_metric_history(run_id, metric)]


def runs_named(uri: str, uid: str) -> list[Run]:
    client = MlflowClient(uri)
    ids = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(ids, f"tags.`imagenette.uid` = '{uid}'"))


def test_a_run_carries_all_it_was_told(server: Server, tmp_path: Path) -> None:
    tracker = open_run(tmp_path / "out", server.uri)
    for index in (1, 2, 3):
        tracker.log(epoch(index))
    picture = tmp_path / "elsewhere.txt"
    picture.write_text("curves")
    tracker.artifact(picture, "figures")
    tracker.tag(arm="a")
    tracker.result({"best/epoch": 3.0, "best/test_accuracy": 0.4})
    tracker.result({"best/epoch": 2.0, "best/test_accuracy": 0.5})
    assert tracker.close(Status.FINISHED, "It went well.") == 0

    run = the_run(tmp_path / "out", server.uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "small"
    assert run.data.params == small_card().params
    tags = run.data.tags
    assert (tags["status"], tags["arm"], tags["role"]) == ("finished", "a", "train")
    assert tags["data_digest"] == small_card().dataset["digest"]
    assert tags["mlflow.note.content"] == "It went well."
    assert int(tags["mlflow.imagenette.pid"]) == os.getpid()
    assert "mlflow.user" in tags
    assert steps(tmp_path / "out", server.uri) == [1, 2, 3]
    assert steps(tmp_path / "out", server.uri, "system/cpu_utilization_percentage") == [1, 2, 3]
    assert run.data.metrics["best/test_accuracy"] == 0.5, "the last result wins"
    assert run.data.metrics["best/epoch"] == 2.0
    [data] = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", "01234567")
    listed = MlflowClient(server.uri).list_artifacts(run.info.run_id, "figures")
    assert [f.path for f in listed] == ["figures/elsewhere.txt"]


def test_a_run_knows_its_pages_and_its_experiment_opens_on_the_leaderboard(
    server: Server, tmp_path: Path
) -> None:
    tracker = open_run(tmp_path, server.uri)
    tracker.log(epoch(1))
    run = the_run(tmp_path, server.uri)
    experiment = MlflowClient(server.uri).get_experiment(run.info.experiment_id)
    page, board = tracker.pages
    assert page.endswith(
        f"/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}?workflowType=machine_learning"
    )
    assert board == views.link_here(server.uri, experiment.name)
    assert experiment.tags["mlflow.sharedViewState.leaderboard"] == views.leaderboard()
    tracker.result({"best/test_accuracy": 0.5})
    tracker.close(Status.FINISHED)
    [point] = MlflowClient(server.uri).get_metric_history(run.info.run_id, "best/test_accuracy")
    assert point.step == 0  # drawn as a bar, not as a line of one dot
    assert views.link_here(server.uri, "no such experiment") is None


def test_records_sent_again_are_stored_once(server: Server, tmp_path: Path) -> None:
    tracker = open_run(tmp_path, server.uri)
    for index in (1, 2, 3):
        tracker.log(epoch(index))
    tracker.result({"best/epoch": 3.0})
    assert tracker.close(Status.FINISHED) == 0
    before = the_run(tmp_path, server.uri)
    (tmp_path / "outbox" / "acked").unlink()
    assert sync(tmp_path) == 0
    after = the_run(tmp_path, server.uri)
    assert after.to_dictionary() == before.to_dictionary()
    assert steps(tmp_path, server.uri) == [1, 2, 3]
    assert steps(tmp_path, server.uri, "best/epoch") == [0]


def test_resume_goes_on_in_the_same_run(server: Server, tmp_path: Path) -> None:
    first = open_run(tmp_path, server.uri)
    first.log(epoch(1))
    assert first.close(Status.PREEMPTED) == 0
    assert the_run(tmp_path, server.uri).info.status == "KILLED"
    second = open_run(tmp_path, server.uri)
    assert second.run_id == first.run_id
    assert the_run(tmp_path, server.uri).data.tags["status"] in ("preempted", "running")
    for index in (1, 2):
        second.log(epoch(index))
    assert second.close(Status.FINISHED) == 0
    run = the_run(tmp_path, server.uri)
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "finished")
    assert steps(tmp_path, server.uri) == [1, 2]
    assert len(run.inputs.dataset_inputs) == 1


def test_a_run_that_was_killed_before_its_first_record_is_whole_when_it_goes_on(
    uri: str, tmp_path: Path
) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.write_card(replace(small_card(), params={}, dataset={}))  # as run.json keeps it
    end_lost(tmp_path, "its worker was killed", offline=True)
    tracker = open_run(tmp_path, uri)
    tracker.log(epoch(1))
    assert tracker.close(Status.FINISHED) == 0
    run = the_run(tmp_path, uri)
    assert run.data.params["weight_decay"] == "0.0005"
    assert run.data.tags["data_digest"] == small_card().dataset["digest"]
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "finished")
    assert len(run.inputs.dataset_inputs) == 1


def test_resume_says_running_on_the_server(server: Server, tmp_path: Path) -> None:
    open_run(tmp_path, server.uri).close(Status.PREEMPTED)
    tracker = open_run(tmp_path, server.uri)
    deadline = time.monotonic() + 10
    while the_run(tmp_path, server.uri).info.status != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert tracker.close(Status.FINISHED) == 0


def test_a_server_killed_and_restarted_loses_nothing_and_holds_nobody_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs: one ends while the server is dead and needs `sync`, the other outlives the outage."""
    ended, going = tmp_path / "ended", tmp_path / "going"
    unlucky, lucky = open_run(ended, server.uri), open_run(going, server.uri)
    for index in range(1, 10):
        lucky.log(epoch(index))
    unlucky.log(epoch(1))
    server.kill()
    unlucky.log(epoch(2))
    monkeypatch.setenv("IMAGENETTE_FLUSH_SECONDS", "1")
    began = time.monotonic()
    assert unlucky.close(Status.FINISHED) >= 2
    assert time.monotonic() - began < 5
    with pytest.raises(RunError, match="does not answer"):
        sync(ended)

    restart = threading.Thread(target=server.start)  # which takes 5 s and more
    restart.start()
    waits = []
    for index in range(10, 41):
        began = time.perf_counter()
        lucky.log(epoch(index))
        waits.append(time.perf_counter() - began)
        time.sleep(0.05)
    monkeypatch.setenv("IMAGENETTE_FLUSH_SECONDS", "60")
    assert lucky.close(Status.FINISHED) == 0
    restart.join()
    assert steps(going, server.uri) == list(range(1, 41))
    assert sorted(waits)[-3] < 0.05, "two hiccups of a busy machine aside"
    assert max(waits) < 0.5
    assert "does not take records" in capsys.readouterr().err

    assert sync(ended) == 0
    run = the_run(ended, server.uri)
    assert (run.info.status, steps(ended, server.uri)) == ("FINISHED", [1, 2])
    capsys.readouterr()
    assert sync(ended) == 0
    assert "nothing to send" in capsys.readouterr().out
    assert the_run(ended, server.uri).to_dictionary() == run.to_dictionary()


def test_dead_at_the_start_is_one_line_within_ten_seconds(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(
        RunError, match=r"http://127\.0\.0\.1:9 does not answer \(connection refused\)"
    ) as error:
        open_run(tmp_path / "out", "http://127.0.0.1:9")
    assert time.monotonic() - began < 10
    assert "\n" not in str(error.value)
    assert "imagenette sync" in str(error.value)
    assert not (tmp_path / "out").exists(), "no half-made run"


def test_offline_then_sync_makes_one_run_with_its_own_times(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    output = tmp_path / "outputs" / "a"
    before = int(time.time() * 1000)
    tracker = open_run(output, uri, offline=True)
    tracker.log(epoch(1))
    assert tracker.run_id is None
    assert tracker.close(Status.FINISHED) > 0
    ended = time.time() * 1000
    assert not (tmp_path / "mlflow.db").exists(), "no contact"
    time.sleep(0.5)
    assert sync(tmp_path / "outputs", uri) == 0
    run = the_run(output, uri)
    assert before <= run.info.start_time <= run.info.end_time <= ended
    # A card that forgot its run finds it again by uid.
    card = output / "outbox" / "run.json"
    card.write_text(card.read_text().replace(f'"{run.info.run_id}"', "null"))
    assert sync(output, uri) == 0
    assert len(runs_named(uri, read_card(output).uid)) == 1
    assert steps(output, uri) == [1]


def test_sync_to_another_server_makes_the_whole_run_there(uri: str, tmp_path: Path) -> None:
    one, two = uri, f"sqlite:///{shutil.copy(tmp_path / 'mlflow.db', tmp_path / 'two.db')}"
    tracker = open_run(tmp_path / "out", one)
    tracker.log(epoch(1))
    assert tracker.close(Status.FINISHED) == 0
    assert sync(tmp_path / "out", two) == 0
    assert steps(tmp_path / "out", two) == [1]
    assert the_run(tmp_path / "out", two).info.status == "FINISHED"


def test_sync_refuses_a_folder_with_no_outbox(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no outbox"):
        sync(tmp_path)


def test_the_run_of_mlflow_run_is_adopted_raw_params_kept(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(uri)
    outer = client.create_run(client.create_experiment("theirs")).info.run_id
    client.log_param(outer, "weight_decay", "5e-4")
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    tracker = open_run(tmp_path / "out", uri)
    assert "MLFLOW_RUN_ID" not in os.environ
    assert tracker.run_id == outer
    assert tracker.close(Status.FINISHED) == 0
    run = client.get_run(outer)
    assert run.data.params == {"weight_decay": "5e-4", "depth": "18"}
    assert client.get_experiment_by_name("laws") is None


def test_a_resume_under_mlflow_run_marks_the_outer_run_as_launcher(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = open_run(tmp_path / "out", uri)
    tracker.close(Status.PREEMPTED)
    client = MlflowClient(uri)
    outer = client.create_run(client.get_run(tracker.run_id).info.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    again = open_run(tmp_path / "out", uri)
    assert again.run_id == tracker.run_id
    again.close(Status.FINISHED)
    run = client.get_run(outer)
    tags = run.data.tags
    assert (tags["status"], tags["role"], tags["resumed_run"]) == ("resumed", "launcher", tracker.run_id)
    assert run.info.run_name == "launcher of small"
    assert (
        f"went on in run [small](#/experiments/{run.info.experiment_id}/runs/" in tags["mlflow.note.content"]
    )


def test_why_a_run_stopped_is_forgotten_once_it_goes_on(uri: str, tmp_path: Path) -> None:
    tracker = open_run(tmp_path / "out", uri)
    tracker.tag(reason="stopped at epoch 3, step 0")
    tracker.close(Status.PREEMPTED)
    client = MlflowClient(uri)
    assert client.get_run(tracker.run_id).data.tags["reason"] == "stopped at epoch 3, step 0"
    again = open_run(tmp_path / "out", uri)
    again.close(Status.FINISHED)
    assert "reason" not in client.get_run(tracker.run_id).data.tags
    (tmp_path / "out/outbox/acked").unlink()
    assert sync(tmp_path / "out") == 0, "sent once more it comes to the same"
    assert "reason" not in client.get_run(tracker.run_id).data.tags


def test_a_refused_record_is_said_and_does_not_block_those_behind_it(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = open_run(tmp_path / "out", uri)
    tracker.tag(**{"not a ? valid : key!\n": "x"})
    tracker.log(epoch(1))
    assert tracker.close(Status.FINISHED) == 1, "the refused one"
    assert "refused record 2 (tags)" in capsys.readouterr().err
    assert [seq for seq, _ in read_refused(tmp_path / "out")] == [1]
    assert steps(tmp_path / "out", uri) == [1]
    assert sync(tmp_path / "out") == 1


def test_inf_never_wins(uri: str, tmp_path: Path) -> None:
    tracker = open_run(tmp_path / "out", uri)
    tracker.result({"best/test_accuracy": float("inf")})
    assert tracker.close(Status.DIVERGED) == 0
    run = the_run(tmp_path / "out", uri)
    assert run.info.status == "FAILED"
    assert run.data.metrics["best/test_accuracy"] != run.data.metrics["best/test_accuracy"]


def test_two_processes_may_create_one_experiment_at_once(server: Server, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from tests.tracking.tracking_helpers import open_run; from imagenette.results import Status;"
        "sys.exit(open_run(Path(sys.argv[2]), sys.argv[3], experiment='contended').close(Status.FINISHED))"
    )
    here = str(Path(__file__).parent)
    both = [
        subprocess.Popen([sys.executable, "-c", code, here, str(tmp_path / name), server.uri])
        for name in ("a", "b")
    ]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    experiments = {the_run(tmp_path / name, server.uri).info.experiment_id for name in ("a", "b")}
    assert len(experiments) == 1


def test_runs_that_begin_together_share_their_data_set(uri: str, tmp_path: Path) -> None:
    """Whoever comes second finds it there: MLflow's UNIQUE constraint is no refusal."""
    for name in ("first", "second", "third"):
        outputs = [tmp_path / f"{name}{turn}" for turn in range(6)]
        with ThreadPoolExecutor(len(outputs)) as pool:
            trackers = list(pool.map(partial(open_run, uri=uri, experiment=name), outputs))
        assert [tracker.close(Status.FINISHED) for tracker in trackers] == [0] * len(outputs)


def test_a_deleted_experiment_is_one_clear_line(uri: str, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment("laws"))
    with pytest.raises(InputError, match="experiment 'laws' is deleted: restore it"):
        open_run(tmp_path / "out", uri)


def test_importing_the_protocol_imports_neither_mlflow_nor_torch() -> None:
    code = "import sys, imagenette.tracking; sys.exit(bool({'mlflow', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_more_params_and_tags_than_one_call_takes(uri: str, tmp_path: Path) -> None:
    many = {f"knob_{number}": str(number) for number in range(230)}
    tracker = open_run(tmp_path / "out", uri, **many)
    tracker.tag(**{**many, "long": "x" * 9000})
    assert tracker.close(Status.FINISHED) == 0
    run = the_run(tmp_path / "out", uri)
    assert len(run.data.params) == 232
    assert all(run.data.tags[key] == value for key, value in itertools.islice(many.items(), 230))
