"""The machine dealt out, and what the end of a training means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagenette.config import resolve
from imagenette.study.crew import deal, share_out
from imagenette.study.trainer import Training, holders, judge, run_training
from imagenette.training.job import Result
from tests.study.study_helpers import STUB


@given(st.integers(0, 16), st.integers(1, 20))
def test_gpus_are_dealt_out_whole_and_evenly(gpus: int, workers: int):
    hands = [list(deal(range(gpus), workers, turn)) for turn in range(workers)]
    dealt = [gpu for hand in hands for gpu in hand]
    assert set(dealt) == set(range(gpus))
    if gpus >= workers:
        assert sorted(dealt) == list(range(gpus))  # nobody shares
        assert max(map(len, hands)) - min(map(len, hands)) <= 1
    elif gpus:
        assert {len(hand) for hand in hands} == {1}
        loads = [dealt.count(gpu) for gpu in range(gpus)]
        assert max(loads) - min(loads) <= 1


@pytest.fixture(scope="module", autouse=True)
def nothing_said_of_threads():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        yield patch


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 8))
def test_threads_never_outnumber_cores_unless_workers_do(cores: int, workers: int, processes: int):
    shares = share_out(workers, cores=cores, gpus=[])
    threads = sum(int(share.env(processes)["OMP_NUM_THREADS"]) * processes for share in shares)
    assert threads <= max(cores, workers * processes)
    assert all("CUDA_VISIBLE_DEVICES" not in share.env(1) for share in shares)


def test_a_share_of_gpus_is_what_the_training_sees():
    shares = share_out(2, cores=8, gpus=["0", "1", "2", "3"])
    assert [share.env(share.processes)["CUDA_VISIBLE_DEVICES"] for share in shares] == ["0,1", "2,3"]
    assert [share.processes for share in shares] == [2, 2]
    assert shares[0].env(2)["OMP_NUM_THREADS"] == "2"


def test_what_the_user_says_of_threads_holds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert share_out(2, cores=8, gpus=[])[0].env(1)["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("code", "result", "stopped", "expected"),
    [
        (0, Result(status="finished"), False, ("finished", None, True)),
        (74, Result(status="finished", unsynced=2), False, ("finished", None, True)),
        (
            0,
            Result(status="finished"),
            True,
            ("finished", None, True),
        ),  # it ended before it heard of the stop
        (
            0,
            Result(status="pruned", message="pruned after epoch 2 of 4"),
            False,
            ("pruned", "pruned after", True),
        ),
        (75, Result(status="preempted"), True, ("stopped", "stopped on request", True)),
        (75, Result(status="preempted"), False, ("failed", "by a signal from outside", False)),
        (1, Result(status="failed", message="disk full"), False, ("failed", "disk full", True)),
        (1, Result(status="diverged", message="nan"), False, ("failed", "diverged: nan", True)),
        (-9, None, False, ("failed", "killed by SIGKILL (the kernel", False)),
        (-15, None, True, ("stopped", "stopped on request", True)),
        (2, None, False, ("failed", "exit code 2: output=x is in use", False)),
    ],
)
def test_what_an_end_means(tmp_path: Path, code, result, stopped, expected):
    log = tmp_path / "train.log"
    log.write_text("$ imagenette train\nimagenette: output=x is in use\n")
    outcome = judge(code, result, log, stopped=stopped)
    status, reason, said_itself = expected
    assert (outcome.status, outcome.said_itself) == (status, said_itself)
    assert (reason or "") in (outcome.reason or "")


def training(output: Path) -> Training:
    config = resolve({"data": "digits", "lr": 0.5, "seed": 3})
    return Training(
        config=config, output=output, study="s", arm="lr=0.5", name="lr=0.5 seed=3", parent="p", trial=7
    )


def test_every_knob_is_said(tmp_path: Path):
    arguments = training(tmp_path).arguments()
    said = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    assert resolve({k: v for k, v in said.items() if k in training(tmp_path).config.params()}).lr == 0.5
    assert said["trial"] == "7"
    assert said["parent"] == "p"


def test_a_training_left_by_a_frozen_worker_is_ended_first(tmp_path: Path):
    """Its checkpoint stays; two never write into one folder."""
    output, log = tmp_path / "run", tmp_path / "log"
    output.mkdir()
    env = {**os.environ, "STUB_LOG": str(log)}
    old = subprocess.Popen([*STUB, *training(output).arguments()], env={**env, "STUB_SECONDS": "60"})
    while not log.exists():
        time.sleep(0.01)
    assert [process.pid for process in holders(output)] == [old.pid]
    outcome = run_training(training(output), command=STUB, env=env, wanted=lambda: True)
    assert old.wait(1) == 75
    assert outcome.status == "finished"
    words = [line.split()[0] for line in log.read_text().splitlines()]
    assert words == ["began", "preempted", "began", "ended"]


def test_a_finished_folder_is_not_trained_again(tmp_path: Path):
    output, log = tmp_path / "run", tmp_path / "log"
    env = {**os.environ, "STUB_LOG": str(log), "MLFLOW_RUN_ID": "somebody's"}
    first = run_training(training(output), command=STUB, env=env, wanted=lambda: True)
    again = run_training(training(output), command=STUB, env=env, wanted=lambda: True)
    assert first.metrics == again.metrics
    assert first.metrics["selected/holdout_accuracy"] == pytest.approx(0.5 + 0.05 + 0.003)
    assert log.read_text().count("began") == 1


def test_what_is_no_longer_wanted_is_asked_to_stop(tmp_path: Path):
    output, log = tmp_path / "run", tmp_path / "log"
    env = {**os.environ, "STUB_LOG": str(log), "STUB_SECONDS": "60"}
    outcome = run_training(training(output), command=STUB, env=env, wanted=lambda: not log.exists())
    assert outcome.status == "stopped"
    assert json.loads((output / "result.json").read_text())["status"] == "preempted"


def test_a_training_adopts_no_run_and_follows_its_worker(tmp_path: Path):
    show = "import os, sys; print(os.environ.get('MLFLOW_RUN_ID'), os.environ['IMAGENETTE_PARENT'])"
    env = {**os.environ, "MLFLOW_RUN_ID": "the study's"}
    run_training(training(tmp_path), command=(sys.executable, "-c", show), env=env, wanted=lambda: True)
    assert (tmp_path / "train.log").read_text().splitlines()[-1] == f"None {os.getpid()}"
