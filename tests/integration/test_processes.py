"""Two processes compute what one does: real gloo processes, the package's own loop."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from imagenette.config import resolve
from imagenette.data import open_dataset
from imagenette.errors import EXIT_PREEMPTED
from imagenette.processes import STOPS
from imagenette.results import Status
from imagenette.training import train
from imagenette.training.distributed import join
from imagenette.training.job import Result
from imagenette.training.launch import _left_as_found
from imagenette.training.loop import fit
from tests.data.small_sets import pack, small_set
from tests.integration.conftest import processes_of
from tests.waiting import wait_until

KNOBS = {"epochs": 1, "size": 32, "batch_size": 32, "limit": 307, "precision": "float32"}
KNOBS |= {"device": "cpu", "lr": 0.01}
KNOBS |= {"optimizer": "sgd"}  # Muon makes weak directions of a gradient as large as strong ones

ODD = {"drop_last": False}  # the last batch of 19 images is shared out as 9 and 10

RANK = """
import json, sys
from tests.integration.test_processes import rank
rank(json.loads(sys.argv[1]), sys.argv[2])
"""


def rank(knobs: dict[str, object], out: str | Path) -> None:
    """Train as the rank that the environment makes of this process; rank 0 saves what it has."""
    config = resolve(knobs)
    dataset = open_dataset(config.data)
    with join(config.device) as world:
        task = train.make_task(config, dataset, world)
        state = train.make_state(config, len(dataset.classes), world)
        ((epoch, predictions),) = fit(state, task, world)
        net = {name: tensor.cpu() for name, tensor in state.net.state_dict().items()}
        if world.first:
            said = {name: getattr(predictions, name).tolist() for name in ("label", "predicted")}
            torch.save({"net": net, "epoch": asdict(epoch), **said}, out)


def train_with(processes: int, out: Path, **knobs: object) -> dict[str, object]:
    """The weights, metrics and predictions of rank 0 after training on so many processes."""
    if processes == 1:
        rank(KNOBS | knobs, out)
        return torch.load(out, weights_only=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    world |= {"LOCAL_WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RANK, json.dumps(KNOBS | knobs), str(out)]
    ranks = [
        subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            env=os.environ | world | {"RANK": str(r), "LOCAL_RANK": str(r)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in range(processes)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return torch.load(out, weights_only=True)


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, TWO_GPUS])])
def results(noise_set, tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("processes")
    odd = {"data": str(noise_set), "device": request.param, **ODD}
    return {
        "device": request.param,
        "near": 1e-5 if request.param == "cpu" else 1e-3,  # a GPU adds up in other orders
        "one": train_with(1, folder / "one.pt", **odd),
        "two": train_with(2, folder / "two.pt", **odd),
    }


def test_two_processes_equal_one(results):
    near = results["near"]
    assert furthest(results["one"]["net"], results["two"]["net"]) <= near
    one, two = results["one"]["epoch"], results["two"]["epoch"]
    for name in ("train_loss", "train_accuracy", "holdout_loss", "test_loss", "test_accuracy", "lr"):
        assert one[name] == pytest.approx(two[name], abs=near), name


def test_evaluation_over_processes_keeps_the_order_of_the_split(results):
    assert results["one"]["label"] == results["two"]["label"] == sorted(results["one"]["label"])
    assert results["one"]["predicted"] == results["two"]["predicted"]


@pytest.mark.slow
def test_groups_of_batch_norm_are_the_same_over_processes(results, noise_set, tmp_path):
    """And another thing than the whole batch, or the first law would hold for nothing."""
    knobs = {"data": str(noise_set), "device": results["device"], "bn_group": 16}
    one, two = (train_with(count, tmp_path / f"{count}.pt", **knobs) for count in (1, 2))
    assert furthest(one["net"], two["net"]) <= results["near"]
    assert furthest(results["one"]["net"], one["net"]) > 1e-4


@pytest.mark.slow
def test_what_a_data_set_has_that_is_odd_is_said_by_one_process(tmp_path):
    pack(small_set(train=8) | {"train/cat/@eaDir/x.jpg": b"x"}, tmp_path / "data")
    env = os.environ | {"IMAGENETTE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    knobs = ["--data", "data", "--size", "32", "--batch-size", "8", "--epochs", "1", "--nproc", "2"]
    line = [sys.executable, "-m", "imagenette", "train", *knobs, "--offline", "--output", "out"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("passed over: hidden or system entries: 1") == 1, done.stderr


def test_two_processes_stopped_as_they_start_are_preempted_and_under_nohup_deaf_to_a_closed_terminal(
    start, tmp_path: Path
):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        training = start(tmp_path / "run", nproc="2", offline="true")
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_until(lambda: len(processes_of(training.output)) == 3, 60)
    os.kill(training.process.pid, signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        training.process.wait(0.5)
    os.kill(training.process.pid, signal.SIGTERM)
    assert training.process.wait(60) == EXIT_PREEMPTED, (tmp_path / "run.log").read_text()
    assert Result.read(training.output).status is Status.PREEMPTED
    assert not processes_of(training.output)


def test_python_gets_its_signals_and_its_environment_back():
    handlers = {number: signal.getsignal(number) for number in STOPS}
    environ = dict(os.environ)
    with _left_as_found():
        os.environ |= {"TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGTERM", "HOME": "/elsewhere"}
        for number in STOPS:
            signal.signal(number, lambda *_: None)
    assert {number: signal.getsignal(number) for number in STOPS} == handlers
    assert os.environ == environ
