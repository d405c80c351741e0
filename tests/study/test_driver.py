"""A whole study: its driver, its workers, its parent run; trainings are stand-ins of a tenth of a second."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState

from imagenette.data import open_dataset
from imagenette.errors import InputError, RunError
from imagenette.results import Status
from imagenette.study import driver
from imagenette.study.as_report import study_so_far
from imagenette.study.definition import load
from imagenette.study.driver import Drive, Plan, run_study
from imagenette.study.queue import Row
from imagenette.study.storage import find_queue, open_storage
from imagenette.tracking.study_plan import StudyPlan
from tests.study.study_helpers import STUB
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
GRID = """
name = "{name}"
title = "Two rates"
seeds = {seeds}
objective = "{objective}"
[base]
data = "digits"
epochs = {epochs}
[grid]
lr = {rates}
"""
METRIC = "selected/holdout_accuracy"


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


class Driven:
    """Studies of one test: one Optuna database, one experiment."""

    def __init__(self, folder: Path, uri: str, experiment: str) -> None:
        self.folder, self.uri, self.experiment = folder, uri, experiment
        self.storage = f"sqlite:///{folder}/optuna.db"
        self.client = MlflowClient(uri)

    def toml(self, name: str = "rates", **change: Any) -> Path:
        told = {
            "name": name,
            "seeds": [1, 2],
            "rates": [0.1, 0.2],
            "objective": METRIC,
            "epochs": 1,
            **change,
        }
        path = self.folder / f"{name}.toml"
        path.write_text(GRID.format(**told))
        return path

    @property
    def plan(self) -> dict[str, Any]:
        place = {"storage": self.storage, "tracking_uri": self.uri, "experiment": self.experiment}
        return {**place, "runs": self.folder / "runs", "workers": 2, "grace": 5.0}

    def run(self, path: Path, **plan: Any) -> int:
        return run_study(load(str(path)), Plan(command=STUB, **{**self.plan, **plan}))

    def start(self, path: Path, **env: str) -> subprocess.Popen[str]:
        plan = json.dumps({**self.plan, "runs": str(self.plan["runs"])})
        return subprocess.Popen(
            [sys.executable, str(ROOT / "tests/study/drive.py"), str(path), plan],
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def rows(self, name: str = "rates") -> list[Row]:
        return find_queue(open_storage(self.storage), name).rows()

    def trials(self, *states: TrialState, name: str = "rates") -> list[optuna.trial.FrozenTrial]:
        study = optuna.load_study(study_name=name, storage=self.storage)
        return study.get_trials(states=states or None)

    def runs(self, role: str, study: str = "rates") -> list[Run]:
        found = self.client.get_experiment_by_name(self.experiment)
        assert found
        wanted = f"tags.role = '{role}' and tags.study = '{study}'"
        return list(self.client.search_runs([found.experiment_id], wanted))

    def parent(self, study: str = "rates") -> Run:
        (run,) = self.runs("study", study)
        return run

    def began(self) -> list[str]:
        lines = (self.folder / "stub.log").read_text().splitlines()
        return sorted(line.removeprefix("began ").rsplit(" pid=")[0] for line in lines if "began" in line)


@pytest.fixture
def driven(
    tmp_path: Path, mlflow_uri: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Driven:
    monkeypatch.setenv("STUB_LOG", str(tmp_path / "stub.log"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Driven(tmp_path, mlflow_uri, request.node.name)


def test_a_study_from_its_definition_to_its_last_cell(driven: Driven, capfd: pytest.CaptureFixture[str]):
    path = driven.toml()
    assert driven.run(path) == 0
    said = capfd.readouterr().err.splitlines()
    assert said[-1] == "rates: 4 of 4 cells done"
    assert sum(line.startswith("done  lr=") for line in said) == 4
    assert driven.began() == sorted(row.cell for row in driven.rows())
    assert sorted(t.user_attrs["cell"] for t in driven.trials(TrialState.COMPLETE)) == driven.began()
    parent = driven.parent()
    assert parent.info.status == "FINISHED"
    assert "4 of 4 cells done" in parent.data.tags["mlflow.note.content"]
    assert "measured on the holdout" in parent.data.tags["mlflow.note.content"]
    files = {file.path for file in driven.client.list_artifacts(parent.info.run_id, "study")}
    assert files == {
        f"study/{name}" for name in ("table.md", "cells.csv", "figure.png", "rates.toml", "outline.json")
    }
    assert parent.data.metrics["cells/done"] == 4

    assert driven.run(path) == 0  # nothing is left to do, and nothing is done
    assert len(driven.began()) == 4
    assert driven.parent().info.run_id == parent.info.run_id

    assert driven.run(driven.toml(seeds=[1, 2, 3])) == 0  # one more seed: two more cells
    assert len(driven.began()) == 6
    assert driven.parent().data.metrics["cells/done"] == 6

    for change, words in (
        ({"seeds": [1]}, "a cell that is not asked for any more: lr=0.1 seed=2"),
        (
            {"objective": "best/test_accuracy", "seeds": [1, 2, 3]},
            "objective=selected/holdout_accuracy (not best/test_accuracy)",
        ),
        ({"epochs": 2, "seeds": [1, 2, 3]}, "already in this storage with epochs=1 (not 2)"),
    ):
        with pytest.raises(InputError, match="another storage") as error:
            driven.run(driven.toml(**change))
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_a_study_goes_on_with_more_seeds_of_its_baseline(
    driven: Driven, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    path = driven.toml()
    assert driven.run(path) == 0
    assert len(driven.began()) == 4

    def away(*_: object) -> None:
        raise RunError("tracking server: away")

    with monkeypatch.context() as patch:
        patch.setattr(driver, "reuse", away)  # the server stays away as a second driver starts
        assert driven.run(path) == 1
        assert "4 of 4 cells done" in driven.parent().data.tags["mlflow.note.content"], "what was seen before"
        capfd.readouterr()
        patch.setattr(Drive, "look", away)  # so does the database
        assert driven.run(path) == 1
        assert capfd.readouterr().err == "imagenette: tracking server: away\n"
        assert "4 of 4 cells done" in driven.parent().data.tags["mlflow.note.content"]
    named = "seeds = [1, 2]\nbaseline = { lr = 0.2 }\nbaseline_seeds = [1, 2, 3, 4]\nmargin = 0.02"
    path.write_text(path.read_text().replace("seeds = [1, 2]", named))
    assert driven.run(path) == 0
    assert driven.began()[2:] == [f"lr=0.2 seed={seed}" for seed in (1, 2, 3, 4)]
    parent = driven.parent()
    assert "**6 of 6 cells done**" in parent.data.tags["mlflow.note.content"]
    assert parent.data.params["baseline_seeds"] == "1, 2, 3, 4"
    outline = driven.client.download_artifacts(parent.info.run_id, "study/outline.json")
    plan = StudyPlan.read(Path(outline).read_text())
    assert (plan.seeds_of("lr=0.1"), plan.seeds_of("lr=0.2")) == ((1, 2), (1, 2, 3, 4))
    assert plan.margin == 0.02
    arms = {arm.name: arm for arm in study_so_far(plan, driven.rows()).arms}
    assert {name: (len(arm.runs), arm.missing) for name, arm in arms.items()} == {
        "lr=0.1": (2, ()),
        "lr=0.2": (4, ()),
    }


def test_failures_are_named_everywhere_and_can_be_run_again(
    driven: Driven, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    causes = {
        "STUB_KILLED": ("lr=0.1 seed=1", "killed by SIGKILL (the kernel does so when memory runs out)"),
        "STUB_RAISES": ("lr=0.1 seed=2", "exit code 1: RuntimeError: the sky fell"),
        "STUB_DIVERGES": ("lr=0.2 seed=1", "diverged: loss is nan at epoch 1, step 3"),
        "STUB_NAN": ("lr=0.2 seed=2", "its objective selected/holdout_accuracy is nan"),
    }
    for name, (cell, _) in causes.items():
        monkeypatch.setenv(name, cell)
    path = driven.toml(rates=[0.1, 0.2, 0.3])
    assert driven.run(path) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert "2 of 6 cells done; missing: lr=0.1 seed=1 (failed: killed by SIGKILL" in last
    assert last.endswith("--retry-failed")
    reasons = dict(causes.values())
    assert {r.cell: r.reason for r in driven.rows() if r.state == Status.FAILED} == reasons
    failed = driven.trials(TrialState.FAIL)
    assert {t.user_attrs["cell"]: t.user_attrs["reason"] for t in failed} == reasons
    told = {run.info.run_name: run for run in driven.runs("trial")}
    parent = driven.parent()
    for cell, reason in reasons.items():
        if cell == "lr=0.2 seed=1":  # this one could say it itself; the stand-in has no run of its own
            continue
        assert told[cell].info.status == "FAILED"
        assert told[cell].data.tags["reason"] == reason
        assert told[cell].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.status == "FAILED"
    assert "the sky fell" in parent.data.tags["mlflow.note.content"]

    for name in causes:
        monkeypatch.delenv(name)
    assert driven.run(path) == 1  # failed cells stay failed...
    assert len(driven.began()) == 6
    assert driven.run(path, retry_failed=True) == 1  # ...until asked for
    assert len(driven.began()) == 9  # and one that ran to its end is not trained again: it would end the same
    assert [row.cell for row in driven.rows() if row.state == Status.FAILED] == ["lr=0.2 seed=2"]
    assert len(driven.trials(TrialState.COMPLETE)) == 5


def test_stopped_and_resumed(driven: Driven):
    path = driven.toml(seeds=[1, 2, 3])
    driver = driven.start(path, STUB_SECONDS="1.5")
    wait_until(lambda: (driven.folder / "stub.log").exists() and len(driven.began()) >= 3)
    os.kill(driver.pid, signal.SIGTERM)
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 75, said
    assert "go on with" in said.splitlines()[-1]
    assert {row.state for row in driven.rows()} == {Status.FINISHED, Status.WAITING}
    assert driven.parent().info.status == "KILLED"
    assert not driven.trials(TrialState.RUNNING)
    assert driven.run(path) == 0
    assert len(driven.trials(TrialState.COMPLETE)) == 6
    assert driven.parent().info.status == "FINISHED"


def test_workers_and_trainings_end_with_their_driver(driven: Driven):
    driver = driven.start(driven.toml(), STUB_SECONDS="60")
    wait_until(lambda: (driven.folder / "stub.log").exists() and len(driven.began()) == 2)
    below = psutil.Process(driver.pid).children(recursive=True)
    assert len(below) == 4  # two workers, two trainings
    os.kill(driver.pid, signal.SIGKILL)
    assert driver.wait(10) == -9
    _, left = psutil.wait_procs(below, timeout=10)
    assert not left
    assert {row.state for row in driven.rows()} == {Status.WAITING}


@pytest.mark.slow
def test_dead_workers_are_replaced(driven: Driven):
    driver = driven.start(driven.toml(seeds=[1, 2, 3, 4]), STUB_SECONDS="1")
    wait_until(lambda: (driven.folder / "stub.log").exists() and len(driven.began()) >= 2)
    for worker in psutil.Process(driver.pid).children():
        worker.kill()
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 0, said
    assert len(driven.trials(TrialState.COMPLETE)) == 8
    assert {row.reason for row in driven.rows() if row.losses} == {None}


def test_finished_runs_of_the_same_config_are_not_trained_again(driven: Driven):
    path = driven.toml("first", seeds=[1])
    cell = load(str(path)).cells[0]
    experiment = driven.client.create_experiment(driven.experiment)
    digest = open_dataset("digits", side=256).digest
    tags = {"status": "finished", "config_digest": "some", "data_digest": digest, "role": "run"}
    alone = driven.client.create_run(experiment, tags=tags, run_name="alone")
    for knob, text in cell.config.params().items():
        driven.client.log_param(alone.info.run_id, knob, text)
    for name in ("selected/holdout_accuracy", *(f"{e}/test_accuracy" for e in ("best", "selected", "final"))):
        driven.client.log_metric(alone.info.run_id, name, 0.9)
    driven.client.set_terminated(alone.info.run_id)
    assert driven.run(path) == 0
    assert driven.began() == ["lr=0.2 seed=1"]
    row = driven.rows("first")[0]
    assert (row.state, row.value, row.reused) == (Status.FINISHED, 0.9, alone.info.run_id)
    (child,) = driven.runs("reused", "first")
    assert child.info.run_name == cell.name
    assert child.data.metrics[METRIC] == 0.9
    assert child.data.tags["mlflow.parentRunId"] == driven.parent("first").info.run_id
    assert len(driven.trials(TrialState.COMPLETE, name="first")) == 2


def test_an_objective_that_reads_the_test_set_says_so(driven: Driven, capfd: pytest.CaptureFixture[str]):
    assert driven.run(driven.toml(objective="best/test_accuracy", seeds=[1])) == 0
    assert "measured on the test set: it flatters" in capfd.readouterr().err
    assert "test set" in driven.parent().data.tags["mlflow.note.content"].split("| arm")[0]
