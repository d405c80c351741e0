"""However a run is stopped, the same command ends with the same weights and the same history, bit for bit."""

import signal

import pytest
import torch

from imagenette.training.job import Result
from tests.integration.conftest import metric_history, processes_of, wait_until, weights


def stop(training, how):
    """Stop a training as told; the exit code that must follow."""
    if how.startswith("SIG"):
        training.process.send_signal(signal.Signals[how])
        return 75
    if how == "launcher killed":
        training.process.kill()
        return -signal.SIGKILL
    training.ranks()[1].kill()
    return 1


@pytest.mark.parametrize(
    ("nproc", "stops"),
    [
        (1, ["launcher killed"]),
        pytest.param(1, ["SIGUSR1", "SIGUSR2", "SIGTERM"], marks=pytest.mark.slow),
        pytest.param(2, ["SIGUSR1", "rank 1 killed", "launcher killed"], marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_again_and_again_equals_the_uninterrupted_one(
    start, uninterrupted, tmp_path, nproc, stops
):
    output = tmp_path / "run"
    for epoch, how in enumerate(stops, start=1):
        training = start(output, nproc=str(nproc))
        training.reaches_epoch(epoch)
        expected = stop(training, how)
        assert training.wait(60) == expected, training.said
        wait_until(lambda: not processes_of(output), seconds=5)  # no orphan goes on training
        if how != "launcher killed":
            assert Result.read(output).status == ("preempted" if how.startswith("SIG") else "failed")
            assert f"the same command with output={output} goes on" in training.said
        assert len(metric_history(output)) < 4, "stopped too late to show anything"

    start(output, nproc=str(nproc)).trains_to_the_end()
    whole = uninterrupted(nproc)
    assert [step for step, _ in metric_history(output)] == [1, 2, 3, 4], "each epoch once"
    assert metric_history(output) == metric_history(whole)
    ours, theirs = weights(output), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_finished_run_is_not_trained_again(start, uninterrupted):
    output = uninterrupted(1)
    first = start(output, nproc="1")
    assert first.wait() == 0, first.said  # finishes what the fixture left: models, figures
    assert not [*output.glob("checkpoints/*")], "nothing goes on from here any more"
    assert weights(output)
    before = metric_history(output)
    again = start(output, nproc="1")
    assert again.wait(60) == 0, again.said
    assert metric_history(output) == before
    assert again.said.splitlines()[-1].startswith("finished: run")
    other = start(output, nproc="1", depth="34")
    assert other.wait(60) == 2
    assert "holds a run with depth=18 (not 34): choose another folder" in other.said


@pytest.mark.slow
@pytest.mark.parametrize("nproc", ["1", "2"])
def test_a_finished_run_with_more_epochs_equals_one_that_had_them_from_the_start(start, tmp_path, nproc):
    knobs = {"nproc": nproc, "schedule": "constant"}
    short = start(tmp_path / "short", **knobs, epochs="2")
    assert short.wait() == 0, short.said
    start(tmp_path / "whole", **knobs).trains_to_the_end()
    same = dict.fromkeys(("data", "size", "limit", "batch_size", "precision"), "")  # those of the short one
    start(tmp_path / "longer", **same, extend=str(tmp_path / "short")).trains_to_the_end()
    assert [step for step, _ in metric_history(tmp_path / "longer")] == [1, 2, 3, 4]
    assert metric_history(tmp_path / "longer") == metric_history(tmp_path / "whole")
    ours, theirs = weights(tmp_path / "longer"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
