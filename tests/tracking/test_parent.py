"""Laws of a study's parent run: one for ever, whoever asks; never in the study's way; honest about reuse."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Param, Run

from imagenette.config import Config, resolve
from imagenette.errors import InputError, RunError
from imagenette.results import Status
from imagenette.study.queue import Queue
from imagenette.study.storage import open_storage, open_study
from imagenette.tracking import parent as parent_module
from imagenette.tracking.deliver import log_missing_params
from imagenette.tracking.doctor import find
from imagenette.tracking.outbox import Outbox, read_card
from imagenette.tracking.parent import StudyRun
from imagenette.tracking.provenance import HEARTBEAT, UNSEEN
from imagenette.tracking.runs import UID
from tests.tracking.tracking_helpers import Server, epoch, open_run

DATA = "d" * 64
GOOD = {
    "best/test_accuracy": 0.93,
    "selected/test_accuracy": 0.92,
    "final/test_accuracy": 0.91,
    "best/epoch": 7.0,
    "test/accuracy": 0.91,
    "speed/images_per_second": 100.0,
}


def described(tags: dict[str, str]) -> str:
    """A study's description, below the links to its runs."""
    links, text = tags["mlflow.note.content"].split("\n\n", 1)
    assert links.startswith("[The runs by arm](#/experiments/")
    return text


def unopposed(replaced: str | None, run_id: str) -> str:
    """The study's database where no other driver registers a run."""
    return run_id


def opened(uri: str, uid: str = "one", **other: Any) -> StudyRun:
    given: dict[str, Any] = {
        "experiment": "laws",
        "name": "depth",
        "params": {"epochs": "2"},
        "tags": {"commit_of_study": "abc"},
        "description": "0 of 2",
        "known_run_id": None,
        "register": unopposed,
        "files": [],
    }
    return StudyRun.open(tracking_uri=uri, uid=uid, **(given | other))


def with_uid(uri: str, uid: str) -> list[Run]:
    client = MlflowClient(uri)
    ids = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(ids, f"tags.`{UID}` = '{uid}'"))


def outer_run(uri: str, experiment: str = "theirs", **params: str) -> str:
    """What `mlflow run` makes before our code starts."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    run = client.create_run(found.experiment_id if found else client.create_experiment(experiment))
    for key, value in params.items():
        client.log_param(run.info.run_id, key, value)
    return str(run.info.run_id)


def config(name: str) -> Config:
    """Another one for each name."""
    return resolve({"data": "digits", "epochs": 8, "seed": int.from_bytes(name.encode()[:6])})


def digests(*names: str) -> dict[str, str]:
    """Digest -> the name whose config has it."""
    return {config(name).digest(): name for name in names}


def reusable(parent: StudyRun, *names: str) -> dict[str, Run]:
    """Name -> the run that need not be trained again."""
    asked = digests(*names)
    return {asked[digest]: run for digest, run in parent.reusable(asked, data_digest=DATA).items()}


def trained(
    parent: StudyRun,
    name: str,
    uri: str,
    *,
    status: str = "finished",
    params: dict[str, str] | None = None,
    **tags: str,
) -> str:
    """A training run as the tracker leaves it; params: others than those of the name's config."""
    client = MlflowClient(uri)
    params = config(name).params() if params is None else params
    tags = {"config_digest": "old", "data_digest": DATA, "role": "run", "seed": "1", "depth": "18"} | tags
    run = client.create_run(parent.experiment_id, run_name="resnet18", tags={"status": status, **tags})
    client.log_batch(run.info.run_id, params=[Param(key, value) for key, value in params.items()])
    for key, value in GOOD.items():
        client.log_metric(run.info.run_id, key, value, step=8)
    if status != "running":
        client.set_terminated(run.info.run_id, "FINISHED" if status == "finished" else "FAILED")
    return str(run.info.run_id)


def test_the_parent_says_whose_it_is_and_is_found_again(uri: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("name = 'depth'")
    first = opened(uri, files=[tmp_path / "study.toml"])
    again = opened(uri)
    known = opened(uri, uid="forgotten", known_run_id=first.run_id)
    assert first.run_id == again.run_id == known.run_id
    run = MlflowClient(uri).get_run(first.run_id)
    assert (run.info.run_name, run.info.status, first.experiment) == ("depth", "RUNNING", "laws")
    assert run.data.params == {"epochs": "2"}
    tags = run.data.tags
    assert (tags["role"], tags["study"], tags["status"]) == ("study", "depth", "running")
    assert (tags["commit_of_study"], described(tags)) == ("abc", "0 of 2")
    assert int(tags["mlflow.imagenette.pid"]) == os.getpid()
    assert "mlflow.user" in tags
    listed = MlflowClient(uri).list_artifacts(first.run_id, "study")
    assert [f.path for f in listed] == ["study/study.toml"]


def test_a_parent_that_is_gone_is_made_again(uri: str) -> None:
    first = opened(uri)
    MlflowClient(uri).delete_run(first.run_id)
    again = opened(uri, known_run_id=first.run_id)
    assert again.run_id != first.run_id
    assert opened(uri, uid="elsewhere", known_run_id="0" * 32).run_id not in (first.run_id, again.run_id)


def test_a_study_that_ended_runs_again(uri: str) -> None:
    first = opened(uri)
    assert first.end(Status.FAILED, reason="2 cells failed", description="2 of 4")
    client = MlflowClient(uri)
    ended = client.get_run(first.run_id)
    assert (ended.info.status, ended.data.tags["status"]) == ("FAILED", "failed")
    assert (ended.data.tags["reason"], described(ended.data.tags)) == ("2 cells failed", "2 of 4")
    second = opened(uri, known_run_id=first.run_id, params={"epochs": "3", "new": "1"})
    running = client.get_run(first.run_id)
    assert (running.info.status, running.data.tags["status"]) == ("RUNNING", "running")
    assert running.data.params == {"epochs": "2", "new": "1"}, "params are immutable: only missing ones"
    assert second.end(Status.FINISHED, description="4 of 4")
    finished = client.get_run(first.run_id)
    assert finished.info.status == "FINISHED"
    assert "reason" not in finished.data.tags, "the failure was mended"
    assert first.end(Status.PREEMPTED, reason="SIGTERM", description="4 of 4")
    assert client.get_run(first.run_id).info.status == "KILLED"


def study_queue(database: str, uid: str) -> Queue:
    """The rows of a study of that name; its record is there."""
    storage = open_storage(database)
    queue = Queue(storage.engine, open_study(storage, uid))
    queue.open_record(uid, {})
    return queue


def open_in_rounds(
    uri: str, database: str, barrier: Any, rounds: dict[str, str | None], results: Any
) -> None:
    """One driver: opens each uid (with a run of `mlflow run`, if any) at the moment the other does."""
    run_ids = []
    for uid, outer in rounds.items():
        queue = study_queue(database, uid)
        if outer:
            os.environ["MLFLOW_RUN_ID"] = outer
        barrier.wait(timeout=60)
        run_ids.append(opened(uri, uid=uid, register=queue.set_parent).run_id)
    results.put(run_ids)


def test_two_drivers_at_once_end_on_one_run(uri: str, tmp_path: Path) -> None:
    uids = ["made 1", "made 2", "adopted"]
    outers = [outer_run(uri), outer_run(uri)]
    ours, theirs = ({uid: outer if uid == "adopted" else None for uid in uids} for outer in outers)
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(2), spawn.Queue()
    database = f"sqlite:///{tmp_path}/optuna.db"
    open_storage(database)
    other = spawn.Process(target=open_in_rounds, args=(uri, database, barrier, theirs, results))
    other.start()
    open_in_rounds(uri, database, barrier, ours, results)
    one, two = results.get(timeout=60), results.get(timeout=60)
    other.join(timeout=30)
    assert one == two
    for uid, run_id in zip(uids, one, strict=True):
        assert [run.info.run_id for run in with_uid(uri, uid)] == [run_id]
    [loser] = set(outers) - {one[-1]}
    run = MlflowClient(uri).get_run(loser)
    assert run.info.lifecycle_stage == "active", "`mlflow run` is going to end it"
    assert (run.data.tags["role"], run.data.tags["resumed_run"]) == ("launcher", one[-1])


@pytest.mark.parametrize("adopted", [False, True])
def test_a_run_that_another_driver_registers_meanwhile_wins(
    uri: str, monkeypatch: pytest.MonkeyPatch, adopted: bool
) -> None:
    client = MlflowClient(uri)
    rival = outer_run(uri, "laws")
    mine = outer_run(uri) if adopted else None
    if mine:
        monkeypatch.setenv("MLFLOW_RUN_ID", mine)
    asked: list[str | None] = []

    def rival_is_first(replaced: str | None, run_id: str) -> str:
        asked.append(replaced)
        client.set_tag(rival, UID, "one")
        return rival

    assert opened(uri, known_run_id="0" * 32, register=rival_is_first).run_id == rival
    assert asked == ["0" * 32]
    assert [run.info.run_id for run in with_uid(uri, "one")] == [rival]
    if mine:
        assert client.get_run(mine).info.lifecycle_stage == "active"
        assert client.get_run(mine).data.tags["role"] == "launcher"


@pytest.mark.parametrize("adopted", [False, True])
def test_a_driver_killed_before_it_registered_its_run_leaves_it_to_the_next(
    uri: str, monkeypatch: pytest.MonkeyPatch, adopted: bool
) -> None:
    left: list[str] = []
    if adopted:
        monkeypatch.setenv("MLFLOW_RUN_ID", outer_run(uri))

    def killed(replaced: str | None, run_id: str) -> str:
        left.append(run_id)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(uri, register=killed)
    assert [opened(uri).run_id] == left == [run.info.run_id for run in with_uid(uri, "one")]


def test_a_registered_run_of_another_server_is_replaced_by_one_here(uri: str) -> None:
    elsewhere = iter(["f" * 32])
    asked: list[tuple[str | None, str]] = []

    def another_first(replaced: str | None, run_id: str) -> str:
        asked.append((replaced, run_id))
        return next(elsewhere, run_id)

    run_id = opened(uri, register=another_first).run_id
    assert asked == [(None, run_id), ("f" * 32, run_id)]


def test_params_that_another_driver_logs_meanwhile_are_its_own(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rivals: list[str] = []

    def after_a_rival(client: MlflowClient, run: Run, params: dict[str, str]) -> None:
        if not rivals:
            rivals.append(run.info.run_id)
            client.log_param(run.info.run_id, "workers", "2")
        log_missing_params(client, run, params)

    monkeypatch.setattr(parent_module, "log_missing_params", after_a_rival)
    run_id = opened(uri, params={"epochs": "2", "workers": "4"}).run_id
    assert run_id == rivals[0]
    assert MlflowClient(uri).get_run(run_id).data.params == {"epochs": "2", "workers": "2"}


def test_the_run_of_mlflow_run_is_adopted_and_a_later_one_is_the_launcher(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(uri)
    outer = outer_run(uri, epochs="2e0")
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    parent = opened(uri, params={"epochs": "2", "seeds": "1 2"})
    assert "MLFLOW_RUN_ID" not in os.environ
    assert (parent.run_id, parent.experiment) == (outer, "theirs")
    run = client.get_run(outer)
    assert run.data.params == {"epochs": "2e0", "seeds": "1 2"}
    assert (run.info.run_name, run.data.tags["role"]) == ("depth", "study")

    for known in (None, outer):
        later = outer_run(uri, "third")
        monkeypatch.setenv("MLFLOW_RUN_ID", later)
        assert opened(uri, known_run_id=known).run_id == outer
        assert "MLFLOW_RUN_ID" not in os.environ
        tags = client.get_run(later).data.tags
        assert (tags["status"], tags["role"], tags["resumed_run"]) == ("resumed", "launcher", outer)


def test_an_outer_run_of_another_server_is_one_clear_line(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    with pytest.raises(RunError, match="is not on tracking server"):
        opened(uri)


def test_a_deleted_experiment_is_one_clear_line(uri: str) -> None:
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment("laws"))
    with pytest.raises(InputError, match="experiment 'laws' is deleted"):
        opened(uri)


def test_refresh_replaces_what_is_shown(uri: str, tmp_path: Path) -> None:
    parent = opened(uri)
    client = MlflowClient(uri)
    table = tmp_path / "table.md"
    for done in (1, 1, 2):
        table.write_text(f"{done} done")
        shares = {"best": 0.5, "broken": float("inf")}
        assert parent.refresh(files=[table], description=f"{done} of 2", metrics=shares, step=done)
    run = client.get_run(parent.run_id)
    assert described(run.data.tags) == "2 of 2"
    assert [f.path for f in client.list_artifacts(parent.run_id, "study")] == ["study/table.md"]
    assert Path(client.download_artifacts(parent.run_id, "study/table.md")).read_text() == "2 done"
    assert [m.step for m in client.get_metric_history(parent.run_id, "best")] == [1, 2], "no point twice"
    assert run.data.metrics["broken"] != run.data.metrics["broken"], "inf would win every search"


def test_a_driver_that_goes_on_sets_running_what_another_ended(uri: str) -> None:
    ours, theirs = opened(uri), opened(uri)
    client = MlflowClient(uri)
    client.set_tag(ours.run_id, HEARTBEAT, "2020-01-01T00:00:00Z")
    theirs.end(Status.PREEMPTED, reason="SIGTERM", description="")
    assert ours.refresh(files=[], description="1 of 2", metrics={}, step=1)
    run = client.get_run(ours.run_id)
    assert (run.info.status, run.data.tags["status"]) == ("RUNNING", "running")
    assert run.data.tags[HEARTBEAT] > "2021"


def test_a_dead_server_is_said_once_and_the_study_goes_on(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frozen first, which costs the most time, then killed."""
    parent = opened(server.uri, uid=str(tmp_path))
    output = tmp_path / "lost"
    open_run(output, server.uri, offline=True)
    (output / "outbox" / "lock").unlink()  # as if the training were dead: its lock dies with it
    file = tmp_path / "table.md"
    file.write_text("1 done")
    shown: dict[str, Any] = {"files": [file], "description": "1 of 2", "metrics": {"best": 0.5}, "step": 1}
    lost: dict[str, Any] = {"name": "x", "arm": "a", "seed": "1", "trial": 3, "reason": "killed"}
    capsys.readouterr()
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert not parent.refresh(**shown)
        assert parent.record_failure(**lost, output=output, run_id=None, uid="x") is None
        assert time.monotonic() - began < 8
    finally:
        os.killpg(server.process.pid, signal.SIGCONT)
    with Outbox(output) as outbox:
        assert outbox.records[-1].kind == "end", "on disk, whatever the server does"
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"imagenette: tracking server {server.uri} does not answer (timed out): "
        "the study goes on, its parent run waits"
    ]
    assert parent.refresh(**shown)
    assert capsys.readouterr().err == f"imagenette: tracking server {server.uri} is back\n"
    client = MlflowClient(server.uri)
    assert client.get_run(parent.run_id).data.metrics == {"best": 0.5}
    sent = parent.record_failure(**lost, output=output, run_id=None, uid="x")
    assert client.get_run(sent).info.status == "FAILED"

    server.kill()
    began = time.monotonic()
    assert not parent.refresh(**shown)
    assert not parent.end(Status.FINISHED, description="2 of 2")
    assert parent.record_failure(**lost, output=None, run_id=None, uid="x") is None
    with pytest.raises(RunError, match="tracking server"):
        parent.reusable(["a"], data_digest=DATA)
    with pytest.raises(RunError, match=r"does not answer .*start it, a study needs it") as error:
        opened(server.uri)
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 10
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_only_finished_finite_runs_on_the_same_data_are_reused(uri: str) -> None:
    parent = opened(uri)
    client = MlflowClient(uri)
    oldest = trained(parent, "good", uri)
    trained(parent, "good", uri)
    trained(parent, "other data", uri, data_digest="e" * 64)
    trained(parent, "failed", uri, status="failed")
    trained(parent, "running", uri, status="running")
    for role in ("reused", "study", "launcher"):
        trained(parent, role, uri, role=role)
    mismatch = trained(parent, "tag says failed", uri)
    client.set_tag(mismatch, "status", "failed")
    client.update_run(trained(parent, "ends just now", uri), status="RUNNING")
    client.log_metric(trained(parent, "nan", uri), "final/holdout_accuracy", float("nan"), step=9)
    client.log_metric(trained(parent, "inf", uri), "selected/test_accuracy", float("inf"), step=9)
    bare = {"config_digest": "bare", "data_digest": DATA, "status": "finished"}
    run = client.create_run(parent.experiment_id, tags=bare)
    client.log_batch(run.info.run_id, params=[Param(k, v) for k, v in config("bare").params().items()])
    client.set_terminated(run.info.run_id)
    client.delete_tag(trained(parent, "not ours", uri), "config_digest")
    trained(parent, "broken", uri, params=config("broken").params() | {"depth": "19"})
    client.delete_run(trained(parent, "deleted", uri))
    elsewhere = opened(uri, uid="two", experiment="other")
    trained(elsewhere, "other experiment", uri)

    others = [
        "other data",
        "failed",
        "running",
        "reused",
        "study",
        "launcher",
        "tag says failed",
        "nan",
        "inf",
    ]
    others += ["ends just now", "bare", "not ours", "broken", "deleted", "other experiment", "never trained"]
    found = reusable(parent, "good", *others)
    assert {name: run.info.run_id for name, run in found.items()} == {"good": oldest}
    assert reusable(parent, *others) == {}
    assert found["good"].data.metrics == GOOD
    assert found["good"].data.params == config("good").params()


def test_a_run_of_before_a_knob_was_added_is_reused(uri: str) -> None:
    """And one whose digest was made in another way, and one with a knob's text as it was given."""
    parent = opened(uri)
    params = config("old").params()
    old = trained(
        parent, "old", uri, params={k: v for k, v in params.items() if k not in ("cutmix", "erase")}
    )
    given = trained(parent, "given", uri, params=config("given").params() | {"weight_decay": "5.00e-4"})
    trained(parent, "given", uri, params=config("given").params() | {"weight_decay": "5e-3"})
    found = reusable(parent, "old", "given")
    assert {name: run.info.run_id for name, run in found.items()} == {"old": old, "given": given}


def test_reuse_reads_every_page(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = opened(uri)
    ids = {name: trained(parent, name, uri) for name in ("a", "b", "c")}
    search = MlflowClient.search_runs

    def one_a_page(self: MlflowClient, *arguments: Any, **named: Any) -> Any:
        return search(self, *arguments, **{**named, "max_results": 1})

    monkeypatch.setattr(MlflowClient, "search_runs", one_a_page)
    assert {name: run.info.run_id for name, run in reusable(parent, *ids).items()} == ids


def test_a_reused_run_stands_under_the_parent_once(uri: str) -> None:
    parent = opened(uri)
    client = MlflowClient(uri)
    source_id = trained(parent, "good", uri, commit="c0ffee")
    source = reusable(parent, "good")["good"]
    given: dict[str, Any] = {"name": "depth=18 seed=1", "arm": "depth=18", "source": source, "trial": 4}
    run_id = parent.add_reused(**given)
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "depth=18 seed=1")
    assert run.data.params == config("good").params()
    assert run.data.metrics == {key: value for key, value in GOOD.items() if not key.startswith("speed/")}
    assert [m.step for m in client.get_metric_history(run_id, "best/test_accuracy")] == [0]
    assert [m.step for m in client.get_metric_history(run_id, "test/accuracy")] == [8]
    tags = run.data.tags
    assert (tags["mlflow.parentRunId"], tags["study"], tags["arm"]) == (parent.run_id, "depth", "depth=18")
    assert (tags["seed"], tags["depth"], tags["trial"], tags["commit"]) == ("1", "18", "4", "c0ffee")
    assert (tags["role"], tags["reused_run"], tags["status"]) == ("reused", source_id, "finished")
    assert (tags["config_digest"], tags["data_digest"]) == ("old", DATA)
    assert "Not trained again" in tags["mlflow.note.content"]
    assert source_id in tags["mlflow.note.content"]

    assert parent.add_reused(**given) == run_id
    assert client.get_run(run_id).to_dictionary() == run.to_dictionary()
    # As a driver killed in the middle leaves it.
    client.update_run(run_id, status="RUNNING")
    client.set_tag(run_id, "status", "running")
    assert parent.add_reused(**given | {"trial": 5}) == run_id
    after = client.get_run(run_id)
    assert (after.info.status, after.data.tags["status"]) == ("FINISHED", "finished")
    assert after.data.tags["trial"] == "5"
    parent.add_reused(**given | {"trial": 6})
    assert client.get_run(run_id).data.tags["trial"] == "6"
    assert len(client.get_metric_history(run_id, "best/test_accuracy")) == 1
    assert len(with_uid(uri, "one:depth=18 seed=1:reused")) == 1
    assert reusable(parent, "good")["good"].info.run_id == source_id


def failed(parent: StudyRun, **given: Any) -> Run:
    defaults: dict[str, Any] = {"name": "depth=18 seed=1", "arm": "depth=18", "seed": "1", "trial": 7}
    defaults |= {"reason": "killed by signal 9", "output": None, "run_id": None, "uid": "one:7"}
    run_id = parent.record_failure(**(defaults | given))
    assert run_id is not None
    run: Run = parent._client.get_run(run_id)
    return run


def test_a_failure_goes_into_the_outbox_of_the_killed_run_with_all_it_holds(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = opened(uri)
    output = tmp_path / "out"
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def train() -> None:
        tracker = open_run(output, uri, offline=True)
        tracker.log(epoch(1))
        ready.set()
        time.sleep(60)

    training = context.Process(target=train)
    training.start()
    assert ready.wait(timeout=30)
    for _ in range(2):
        assert (
            parent.record_failure(
                name="x", arm="a", seed="1", trial=1, reason="lost", output=output, run_id=None, uid="x"
            )
            is None
        ), "an orphan still trains"
    assert capsys.readouterr().err.count("is in use by process") == 1
    training.kill()
    training.join()

    run = failed(parent, output=output)
    assert run.info.run_id == read_card(output).run_id
    assert (run.info.status, run.data.tags["status"]) == ("FAILED", "failed")
    assert run.data.tags["reason"] == "killed by signal 9"
    assert run.data.metrics["train/loss"] == 2.0
    again = failed(parent, output=output, reason="something else")
    assert again.data.tags["reason"] == "killed by signal 9"
    assert again.info.end_time == run.info.end_time
    assert with_uid(uri, "one:7") == []


def test_an_outbox_that_ended_by_its_own_word_keeps_it(uri: str, tmp_path: Path) -> None:
    parent = opened(uri)
    for word, kept in (("diverged", "diverged"), ("finished", "finished"), ("preempted", "failed")):
        tracker = open_run(tmp_path / word, uri, offline=True)
        tracker.close(Status(word))
        assert failed(parent, output=tmp_path / word).data.tags["status"] == kept


def test_a_failure_goes_into_a_run_whose_folder_is_not_here(uri: str, tmp_path: Path) -> None:
    parent = opened(uri)
    client = MlflowClient(uri)
    lost = trained(parent, "a", uri, status="running")
    run = failed(parent, run_id=lost, output=tmp_path / "not here")
    assert (run.info.run_id, run.info.status) == (lost, "FAILED")
    assert (run.data.tags["status"], run.data.tags["reason"]) == ("failed", "killed by signal 9")
    assert failed(parent, run_id=lost, reason="later").data.tags["reason"] == "killed by signal 9"
    unexplained = trained(parent, "a", uri, status="failed")
    assert failed(parent, run_id=unexplained).data.tags["reason"] == "killed by signal 9"
    finished = failed(parent, run_id=trained(parent, "a", uri))
    assert (finished.info.status, finished.data.tags["status"]) == ("FINISHED", "finished")
    deleted = trained(parent, "a", uri, status="running")
    client.delete_run(deleted)
    assert failed(parent, run_id=deleted).data.tags[UID] == "one:7"


def test_a_failure_before_any_run_existed_makes_one_child(uri: str) -> None:
    parent = opened(uri)
    run = failed(parent)
    assert failed(parent, reason="later").info.run_id == run.info.run_id
    assert len(with_uid(uri, "one:7")) == 1
    tags = run.data.tags
    assert (run.info.status, run.info.run_name) == ("FAILED", "depth=18 seed=1")
    assert (tags["mlflow.parentRunId"], tags["study"], tags["arm"]) == (parent.run_id, "depth", "depth=18")
    assert (tags["seed"], tags["trial"], tags["role"]) == ("1", "7", "trial")
    assert (tags["status"], tags["reason"]) == ("failed", "killed by signal 9")
    assert "trial" not in failed(parent, trial=None, uid="one:none").data.tags


def test_the_doctor_finds_nothing_wrong_with_a_study(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = opened(uri)
    client = MlflowClient(uri)
    trained(parent, "good", uri)
    source = reusable(parent, "good")["good"]
    parent.add_reused(name="depth=18 seed=1", arm="depth=18", source=source, trial=0)
    failed(parent)
    launcher = outer_run(uri, "laws")
    monkeypatch.setenv("MLFLOW_RUN_ID", launcher)
    opened(uri)
    assert list(find(client, "laws")) == [], "alive"

    client.set_tag(parent.run_id, f"{UNSEEN}pid", "1")  # not our process: its start differs
    assert [f.subject for f in find(client, "laws") if f.kind == "lost run"] == [parent.run_id]
    assert parent.refresh(files=[], description="", metrics={}, step=0)
    assert list(find(client, "laws")) == [], "another driver has taken over"

    for status, reason in (("preempted", "SIGTERM"), ("failed", "1 cell failed"), ("finished", "")):
        assert parent.end(Status(status), reason=reason, description="2 of 2")
        client.set_terminated(launcher)  # by `mlflow run`
        assert list(find(client, "laws")) == []
