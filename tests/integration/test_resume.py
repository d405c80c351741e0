"""However a run is stopped, the same command ends with the same weights and the same history, bit for bit."""

import signal

import pytest
import torch

from imagenette.job import Result
from tests.integration.conftest import metric_history, processes_of, wait_until, weights

STOPS = [
    ("the launcher gets SIGTERM", 1),
    ("the launcher gets SIGTERM", 2),
    ("the launcher is killed", 1),
    ("the launcher is killed", 2),
    ("rank 1 is killed", 2),
]


def stop(training, how):
    """Stop a training as told; the exit code that must follow."""
    if how == "the launcher gets SIGTERM":
        training.process.send_signal(signal.SIGTERM)
        return 75
    if how == "the launcher is killed":
        training.process.kill()
        return -signal.SIGKILL
    training.ranks()[1].kill()
    return 1


@pytest.mark.parametrize(("how", "nproc"), STOPS)
def test_resumed_run_equals_uninterrupted_run(start, uninterrupted, tmp_path, how, nproc):
    output = tmp_path / "run"
    training = start(output, nproc=str(nproc))
    training.reaches_epoch(2)
    expected = stop(training, how)
    assert training.wait(60) == expected, training.said
    wait_until(lambda: not processes_of(output), seconds=5)  # no orphan goes on training
    if expected == 75:
        assert Result.read(output).status == "preempted"
        assert f"output={output}" in training.said

    resumed = start(output, nproc=str(nproc))
    assert resumed.wait() == 74, resumed.said
    whole = uninterrupted(nproc)
    assert [step for step, _ in metric_history(output)] == [1, 2, 3, 4], "each epoch once"
    assert metric_history(output) == metric_history(whole)
    ours, theirs = weights(output), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_finished_run_is_not_trained_again(start, uninterrupted):
    output = uninterrupted(1)
    before = metric_history(output)
    again = start(output, nproc="1")
    assert again.wait(60) == 74, again.said
    assert metric_history(output) == before
    assert "finished" in again.said


def test_another_config_in_the_same_folder_is_refused(start, uninterrupted):
    output = uninterrupted(1)
    other = start(output, nproc="1", depth="34")
    assert other.wait(60) == 2
    assert "holds a run with depth=18 (not 34): choose another folder" in other.said
