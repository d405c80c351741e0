"""One training over two hosts: the same numbers as on one, and an end in words when the other one is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from mlflow import MlflowClient

from imagenette.training.job import Result
from tests.integration.conftest import (
    TINY,
    Training,
    logged_epochs,
    metric_history,
    processes_of,
    weights,
)
from tests.integration.hosts import Host, Node, torchrun, two_hosts, why_not
from tests.waiting import wait_until

REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"two hosts on one machine: {REASON}")

Start = Callable[..., Training]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path) as both:
        yield both


@pytest.fixture
def train(hosts: tuple[Host, Host], tmp_path: Path) -> Callable[..., object]:
    """train(output, env={}, **options): the tiny run over both hosts, a context that gives its two nodes."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    clean |= {"IMAGENETTE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

    @contextmanager
    def train(output: Path, env: dict[str, str] | None = None, **options: str) -> Iterator[list[Node]]:
        said = {**TINY, "output": str(output), **options}
        arguments = [part for name, text in said.items() for part in (f"--{name}", text)]
        with torchrun(hosts, arguments, clean | (env or {}), tmp_path) as nodes:
            yield nodes

    return train


def reaches_epoch(output: Path, epoch: int, nodes: list[Node]) -> None:
    wait_until(
        lambda: len(logged_epochs(output)) >= epoch or any(n.process.poll() is not None for n in nodes), 120
    )
    for node in nodes:
        assert node.process.poll() is None, f"ended before epoch {epoch}:\n{node.said}"


def ends(nodes: list[Node], seconds: float) -> list[int]:
    """Exit codes."""
    wait_until(lambda: all(node.process.poll() is not None for node in nodes), seconds)
    return [node.process.returncode for node in nodes]


def is_gone(output: Path) -> None:
    wait_until(lambda: not processes_of(output), seconds=5)  # no orphan goes on training


def silent(host: str, rank: int, seconds: int) -> str:
    on = "the same command goes on from the last checkpoint"
    return f"host {host} (rank {rank}) has been silent for {seconds} s: {on}"


@pytest.mark.slow
def test_a_run_cut_apart_ends_in_words_and_goes_on_on_one_host_to_the_same_weights(
    hosts, train, start, tmp_path
):
    output, whole, tiny = tmp_path / "run", tmp_path / "whole", {"epochs": "3", "limit": "240"}
    with train(output, env={"IMAGENETTE_SILENCE": "10"}, **tiny) as nodes:
        reaches_epoch(output, 1, nodes)
        hosts[0].run("ip", "link", "set", "cable", "down")
        uncut = start(whole, nproc="2", **tiny)  # meanwhile: two silent hosts leave the cores to it
        # beta's torchrun hangs in a call to the store on alpha, and is killed.
        assert ends(nodes, 60)[1] == -signal.SIGKILL
        assert nodes[0].words == [f"imagenette: {silent('beta', 1, 10)}"]
        assert nodes[1].words == [f"imagenette: {silent('alpha', 0, 10)}"]
    is_gone(output)
    ended = Result.read(output)
    assert (ended.status, ended.message) == ("failed", silent("beta", 1, 10))
    assert len(logged_epochs(output)) < 3, "cut too late to show anything"

    resumed = start(output, nproc="2", **tiny)
    resumed.reaches_epoch(3, seconds=150)
    os.killpg(resumed.process.pid, signal.SIGKILL)  # figures and models show nothing more
    assert uncut.wait() == 0, uncut.said
    assert [step for step, _ in metric_history(output)] == [1, 2, 3], "each epoch once"
    assert metric_history(output) == metric_history(whole)
    ours, theirs = weights(output), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_process_is_noticed_by_the_other_host(train, tmp_path, frozen):
    output = tmp_path / "run"
    with train(output, env={"IMAGENETTE_SILENCE": "10"}) as nodes:
        reaches_epoch(output, 1, nodes)
        training = psutil.Process(nodes[frozen].process.pid).children()[0]
        training.suspend()
        other = nodes[1 - frozen]
        wait_until(lambda: other.process.poll() is not None, 60)
        assert other.process.returncode != 0
        assert other.words == [f"imagenette: {silent(('alpha', 'beta')[frozen], frozen, 10)}"]
        training.resume()  # it finds everybody else gone, and ends too
        assert 0 not in ends(nodes, 60)
    is_gone(output)
    assert Result.read(output).status == "failed"


@pytest.mark.slow
def test_a_tracked_run_preempted_on_one_host_then_cut_apart_ends_within_a_minute_and_is_finished_on_one(
    hosts, train, start, tmp_path
):
    output, store = tmp_path / "run", f"sqlite:///{tmp_path}/mlflow.db"
    tracked = {"MLFLOW_TRACKING_URI": store}
    with train(output, env=tracked, offline="false") as nodes:
        reaches_epoch(output, 1, nodes)
        nodes[1].process.send_signal(signal.SIGTERM)  # one host is wanted back: both save and end
        assert ends(nodes, 60) == [1, 1]  # torchrun's own code for our 75
    assert Result.read(output).status == "preempted"

    with train(output, env=tracked, offline="false") as nodes:
        reaches_epoch(output, 2, nodes)
        hosts[0].run("ip", "link", "set", "cable", "down")
        ends(nodes, 60)
        assert nodes[0].words == [f"imagenette: {silent('beta', 1, 30)}"]
        assert nodes[1].words == [f"imagenette: {silent('alpha', 0, 30)}"]
    is_gone(output)
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("imagenette").experiment_id])
    assert (run.info.status, run.data.tags["status"]) == ("FAILED", "failed")
    assert run.data.tags["reason"] == silent("beta", 1, 30)

    hosts[0].run("ip", "link", "set", "cable", "up")
    with train(output, env=tracked, offline="false") as nodes:  # the cable is mended: on both again
        reaches_epoch(output, 3, nodes)
        hosts[1].run("ip", "link", "set", "cable", "down")
        ends(nodes, 60)
    assert start(output, env=tracked, offline="false", nproc="2").wait() == 0
    (run,) = client.search_runs([run.info.experiment_id])
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "finished")
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2, 3, 4]


@pytest.mark.slow
def test_two_hosts_end_with_zero(train, tmp_path):
    output = tmp_path / "run"
    tracked = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "IMAGENETTE_SILENCE": "10"}
    with train(output, env=tracked, offline="false", epochs="1") as nodes:
        assert ends(nodes, 120) == [0, 0], [node.said for node in nodes]
    assert Result.read(output).status == "finished"
