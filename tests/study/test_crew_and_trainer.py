"""The machine dealt out, and what the end of a training means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagenette.cli import main
from imagenette.config import resolve
from imagenette.errors import InputError
from imagenette.results import Status
from imagenette.study.crew import deal, share_out
from imagenette.study.trainer import holders, judge, run_training
from imagenette.study.worker import Order, folder
from imagenette.training import launch
from imagenette.training.job import Job, Result, claim_output
from tests.study.study_helpers import STUB, grid


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
def no_threads_set():
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


def test_threads_that_the_user_sets_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert share_out(2, cores=8, gpus=[])[0].env(1)["OMP_NUM_THREADS"] == "3"


FINISHED, PRUNED, PREEMPTED, FAILED = Status.FINISHED, Status.PRUNED, Status.PREEMPTED, Status.FAILED


@pytest.mark.parametrize(
    ("code", "result", "stopped", "expected"),
    [
        (0, Result(status=FINISHED), False, (FINISHED, "", True)),
        (74, Result(status=FINISHED, unsynced=2), False, (FINISHED, "", True)),
        (0, Result(status=FINISHED), True, (FINISHED, "", True)),  # it ended before it heard of the stop
        (0, Result(status=PRUNED, message="pruned after 2 of 4"), False, (PRUNED, "pruned after", True)),
        (75, Result(status=PREEMPTED), True, (PREEMPTED, "stopped on request", True)),
        (75, Result(status=PREEMPTED), False, (FAILED, "by a signal from outside", False)),
        (1, Result(status=FAILED, message="disk full"), False, (FAILED, "disk full", True)),
        (1, Result(status=Status.DIVERGED, message="nan"), False, (FAILED, "diverged: nan", True)),
        (-9, None, False, (FAILED, "killed by SIGKILL (the kernel", False)),
        (-15, None, True, (PREEMPTED, "stopped on request", True)),
        (2, None, False, (FAILED, "exit code 2: output=x is in use", False)),
    ],
)
def test_what_an_end_means(tmp_path: Path, code, result, stopped, expected):
    log = tmp_path / "train.log"
    log.write_text("$ imagenette train\nimagenette: output=x is in use\n")
    judged = judge(code, result, log, stopped=stopped)
    status, message, recorded = expected
    assert (judged.status, judged.recorded) == (status, recorded)
    assert message in judged.message


def test_a_result_written_before_there_was_a_field_reads_as_before(tmp_path: Path):
    old = {"status": "finished", "run_id": "r", "unsynced": 0, "metrics": {"best/epoch": 1.0}, "message": ""}
    (tmp_path / "result.json").write_text(json.dumps(old))
    assert Result.read(tmp_path) == Result(status=FINISHED, run_id="r", metrics={"best/epoch": 1.0})


def job(output: Path, **more: Any) -> Job:
    config = resolve({"data": "digits", "lr": 0.5, "seed": 3})
    return Job(config=config, output=output, study="s", arm="lr=0.5", trial=7, parent="p", **more)


@pytest.mark.parametrize("more", [{"run_name": "lr=0.5: a b"}, {"offline": True}])
def test_the_arguments_of_a_job_are_parsed_to_the_same_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
):
    got: list[Job] = []
    monkeypatch.setattr(launch, "train", lambda job: got.append(job) or Result(status=FINISHED))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    ordered = job(tmp_path, **more)
    monkeypatch.setattr(sys, "argv", ["imagenette", "train", *ordered.arguments()])
    with pytest.raises(SystemExit):
        main()
    assert got == [ordered]


def test_a_training_left_by_a_frozen_worker_is_ended_first(tmp_path: Path):
    """Its checkpoint stays; two never write into one folder."""
    output, log = tmp_path / "run", tmp_path / "log"
    output.mkdir()
    env = {**os.environ, "STUB_LOG": str(log)}
    old = subprocess.Popen(
        [*STUB, *job(output, run_name="lr=0.5 seed=3").arguments()], env={**env, "STUB_SECONDS": "60"}
    )
    while not log.exists():
        time.sleep(0.01)
    assert [process.pid for process in holders(output)] == [old.pid]
    result = run_training(job(output, run_name="lr=0.5 seed=3"), command=STUB, env=env, wanted=lambda: True)
    assert old.wait(1) == 75
    assert result.status == FINISHED
    words = [line.split()[0] for line in log.read_text().splitlines()]
    assert words == ["began", "preempted", "began", "ended"]


def test_a_finished_folder_is_not_trained_again(tmp_path: Path):
    output, log = tmp_path / "run", tmp_path / "log"
    env = {**os.environ, "STUB_LOG": str(log), "MLFLOW_RUN_ID": "somebody's"}
    first = run_training(job(output, run_name="lr=0.5 seed=3"), command=STUB, env=env, wanted=lambda: True)
    again = run_training(job(output, run_name="lr=0.5 seed=3"), command=STUB, env=env, wanted=lambda: True)
    assert first.metrics == again.metrics
    assert first.metrics["selected/holdout_accuracy"] == pytest.approx(0.5 + 0.05 + 0.003)
    assert log.read_text().count("began") == 1


def test_a_folder_with_another_config_s_result_is_refused(tmp_path: Path):
    claim_output(Job(config=resolve({"data": "digits", "lr": 0.25}), output=tmp_path))
    Result(status=FINISHED, metrics={"selected/holdout_accuracy": 0.9}).write(tmp_path)
    with pytest.raises(InputError, match=r"lr=0.25 \(not 0.5\): choose another folder"):
        run_training(job(tmp_path), command=STUB, env={}, wanted=lambda: True)


@pytest.mark.parametrize("first", ["data=/d/\u732b seed=1", "/".join(13 * ["augmentation=0.25"])])
def test_cells_of_another_name_have_another_folder(tmp_path: Path, first: str):
    order = Order(storage="sqlite://", study="s", objective="best/test_accuracy", runs=tmp_path)
    (row,) = grid(1)
    cells = [first, first.replace("\u732b", "\u82b1").replace("/aug", "?aug"), row.cell]
    names = [folder(order, replace(row, cell=cell)).name for cell in cells]
    assert len(set(names)) == 3
    assert names[2] == "lr=0.1_seed=1", "as it always was"
    assert all(len(name) < 200 for name in names)


def test_a_watch_that_breaks_off_leaves_no_training(tmp_path: Path):
    log = tmp_path / "log"
    env = {**os.environ, "STUB_LOG": str(log), "STUB_SECONDS": "60"}

    def wanted() -> bool:
        if log.exists():
            raise OSError("stale file handle")
        return True

    with pytest.raises(OSError, match="stale"):
        run_training(job(tmp_path / "run", run_name="lr=0.5 seed=3"), command=STUB, env=env, wanted=wanted)
    assert not holders(tmp_path / "run")


def test_what_is_no_longer_wanted_is_asked_to_stop(tmp_path: Path):
    output, log = tmp_path / "run", tmp_path / "log"
    env = {**os.environ, "STUB_LOG": str(log), "STUB_SECONDS": "60"}
    result = run_training(
        job(output, run_name="lr=0.5 seed=3"), command=STUB, env=env, wanted=lambda: not log.exists()
    )
    assert result.status == PREEMPTED
    assert json.loads((output / "result.json").read_text())["status"] == "preempted"


def test_a_training_adopts_no_run_and_follows_its_worker(tmp_path: Path):
    show = "import os, sys; print(os.environ.get('MLFLOW_RUN_ID'), os.environ['IMAGENETTE_PARENT'])"
    env = {**os.environ, "MLFLOW_RUN_ID": "the study's"}
    run_training(job(tmp_path), command=(sys.executable, "-c", show), env=env, wanted=lambda: True)
    assert (tmp_path / "train.log").read_text().splitlines()[-1] == f"None {os.getpid()}"
