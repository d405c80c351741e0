"""Real training processes on a tiny real data set, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.torch import load_file

from imagenette.training import checkpoint
from tests.waiting import wait_until

# Small enough for a second an epoch; float32, where "the same" can mean bit for bit.
TINY = {
    "data": "digits",
    "size": "32",
    "limit": "480",
    "epochs": "4",
    "batch_size": "32",
    "precision": "float32",
    "offline": "true",
}


@dataclass
class Training:
    """One `imagenette train` process and its output folder."""

    output: Path
    process: subprocess.Popen[str]

    def wait(self, seconds: float = 150) -> int:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        return self.process.returncode

    @property
    def said(self) -> str:
        return (self.output.parent / f"{self.output.name}.log").read_text()

    def reaches_epoch(self, epoch: int, seconds: float = 90) -> None:
        wait_until(
            lambda: len(logged_epochs(self.output)) >= epoch or self.process.poll() is not None, seconds
        )
        assert self.process.poll() is None, f"ended before epoch {epoch}:\n{self.said}"
        assert processes_of(self.output), "who looks for orphans would see none"

    def trains_to_the_end(self) -> None:
        """Until the last epoch is saved and recorded; what follows (figures, models) is cut short."""
        self.reaches_epoch(int(TINY["epochs"]))
        os.killpg(self.process.pid, signal.SIGKILL)
        self.wait(10)
        wait_until(lambda: not processes_of(self.output), seconds=5)

    def ranks(self) -> list[psutil.Process]:
        """The rank processes under an elastic launcher, by rank."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        ranks = [p for p in children if "RANK" in p.environ() and f"--output={self.output}" in p.cmdline()]
        return sorted(ranks, key=lambda p: int(p.environ()["RANK"]))


def logged_epochs(output: Path) -> list[dict[str, Any]]:
    """The epochs in a run's outbox, in the order in which they were recorded."""
    path = output / "outbox/records.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [record for line in lines if (record := json.loads(line))["kind"] == "epoch"]


def metric_history(output: Path) -> list[tuple[int, dict[str, float]]]:
    """What must not depend on how often a run was stopped: all but clocks and machine readings."""
    return [
        (e["step"], {k: v for k, v in e["metrics"].items() if not k.startswith(("speed/", "system/"))})
        for e in logged_epochs(output)
    ]


def weights(output: Path) -> dict[str, Any]:
    """Of the last epoch: in the state that a run under way has saved, or in the models of one that ended."""
    state = output / "checkpoints/last.pt"
    if state.exists():
        return checkpoint.read(state)["net"]
    models = [output / "models" / name / "weights.safetensors" for name in ("last", "selected")]
    return load_file(next(file for file in models if file.exists()))


def processes_of(output: Path) -> list[psutil.Process]:
    """Every process whose command line names this output folder."""
    found = []
    for process in psutil.process_iter():
        try:
            names_it = {str(output), f"--output={output}"} & set(process.cmdline())
            if names_it and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="session")
def noise_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noisy pictures in 4 classes, 360 to train on. Digits have flat areas, where one rounding
    error decides which of two equal pixels a max-pool takes; here "equal to 1e-5" means something."""
    root, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for split, count in (("train", 90), ("val", 10)):
        for label in range(4):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 200, (40, 40, 3)) + 12 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Training]]:
    """start(output, env={}, **options): a training process in a group of its own, ended with the session."""
    trainings: list[Training] = []
    home = tmp_path_factory.mktemp("home")

    def start(output: Path, env: dict[str, str] | None = None, **options: str) -> Training:
        said = {name: text for name, text in {**TINY, "output": str(output), **options}.items() if text}
        command = [sys.executable, "-m", "imagenette", "train"]
        command += [part for name, text in said.items() for part in (f"--{name}", text)]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        clean |= {"IMAGENETTE_HOME": str(home), "OMP_NUM_THREADS": "1"}
        log = output.parent / f"{output.name}.log"
        with log.open("a") as file:
            process = subprocess.Popen(
                command,
                env=clean | (env or {}),
                stdout=file,
                stderr=file,
                cwd=output.parent,
                start_new_session=True,
                text=True,
            )
        trainings.append(Training(output, process))
        return trainings[-1]

    yield start
    for training in trainings:
        if training.process.poll() is None:
            os.killpg(training.process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def uninterrupted(
    start: Callable[..., Training], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Path]:
    """uninterrupted(nproc): the output of the tiny run, trained once per session without a stop."""
    outputs: dict[int, Path] = {}

    def run(nproc: int) -> Path:
        if nproc not in outputs:
            output = tmp_path_factory.mktemp("uninterrupted") / f"nproc{nproc}"
            start(output, nproc=str(nproc)).trains_to_the_end()
            outputs[nproc] = output
        return outputs[nproc]

    return run
