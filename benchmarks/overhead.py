"""What surrounds the training itself: start-up, `--help`, tracking.

    python benchmarks/overhead.py --data ARCHIVE --json FILE

start-up    seconds from the start of `imagenette train` to the end of its first optimizer step, the data
            set decoded before, tracked in a SQLite database that is there already, and offline; beside it
            what any program pays for importing torch and torchvision.
--help      the command's help.
tracking    digits: seconds from one epoch's end to the next's, checkpoint and records included, and of the
            whole command, with MLflow on SQLite and offline.

What a study costs beside its trainings: benchmarks/study_overhead.py. All of it in turns, medians.
"""

from __future__ import annotations

import csv
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import _common

from imagenette.errors import EXIT_DONE, EXIT_PREEMPTED

# torch's hook for every optimizer shows the first step from outside; the command imports torch anyway. Then
# SIGTERM stops the run, as a user would.
WATCHED = """
import os, signal, time
from torch.optim.optimizer import register_optimizer_step_post_hook

def first(*_):
    hook.remove()
    with open(os.environ["FIRST_STEP"], "w") as file:
        file.write(repr(time.time()))
    os.kill(os.getpid(), signal.SIGTERM)

hook = register_optimizer_step_post_hook(first)
from imagenette.cli import main
main()
"""
IMAGENETTE = ("-m", "imagenette")
COUNTER = itertools.count()


def call(folder: Path, *arguments: str, ends: int = EXIT_DONE, **environment: str) -> float:
    """Seconds that Python takes for it, in a folder with its own tracking database."""
    tracked = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    began = time.time()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | tracked | environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != ends:
        raise SystemExit(f"{arguments}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return time.time() - began


def new(folder: Path) -> Path:
    return folder / f"run{next(COUNTER)}"


def start_up(folder: Path, data: str, *, offline: bool) -> float:
    """Seconds to the first optimizer step."""
    output = new(folder)
    stamp = output.with_suffix(".time")
    knobs = [f"--data={data}", "--nproc=1", f"--offline={str(offline).lower()}", f"--output={output}"]
    began = time.time()
    call(folder, "-c", WATCHED, "train", *knobs, ends=EXIT_PREEMPTED, FIRST_STEP=str(stamp))
    return float(stamp.read_text("utf-8")) - began


def digits(folder: Path, epochs: int, *, offline: bool) -> dict[str, float]:
    """Seconds of an epoch, from end to end (median), and of the whole command."""
    output = new(folder)
    knobs = [f"--epochs={epochs}", f"--offline={str(offline).lower()}", f"--output={output}"]
    seconds = call(folder, *IMAGENETTE, "train", "--data=digits", *knobs)
    with (output / "summary/history.csv").open(encoding="utf-8") as file:
        done = [int(row["timestamp"]) / 1000 for row in csv.DictReader(file)]
    return {"epoch": statistics.median(b - a for a, b in itertools.pairwise(done)), "command": seconds}


def main() -> None:
    parser = _common.parser(__doc__, rounds=5)
    parser.add_argument("--data", default="digits", help="of the start-ups, decoded before [digits]")
    parser.add_argument("--epochs", type=int, default=12, help="of digits [12]")
    given = parser.parse_args()
    data = str(Path(given.data).resolve()) if Path(given.data).exists() else given.data

    facts = _common.about("mlflow", seeds=[1])
    with tempfile.TemporaryDirectory(prefix="imagenette-bench-") as name:
        folder = Path(name)
        start_up(folder, data, offline=False)  # decodes the data set, makes the database
        short = {
            "`imagenette train` to its first step, tracked": partial(start_up, folder, data, offline=False),
            "the same offline": partial(start_up, folder, data, offline=True),
            "`import torch, torchvision`": partial(call, folder, "-c", "import torch, torchvision"),
            "`imagenette --help`": partial(call, folder, *IMAGENETTE, "--help"),
        }
        seconds = _common.in_turns(short, rounds=given.rounds)
        trainings = {
            "tracked": partial(digits, folder, given.epochs, offline=False),
            "offline": partial(digits, folder, given.epochs, offline=True),
        }
        long = _common.in_turns(trainings, rounds=given.rounds)
    for what in ("epoch", "command"):
        for kind, turns in long.items():
            seconds[f"digits, {what}, {kind}"] = [turn[what] for turn in turns]
    rows = [
        {"what": what, "seconds": statistics.median(each), "rounds": _common.spread(each)}
        for what, each in seconds.items()
    ]
    ratios = {
        what: _common.ratio(*(seconds[f"digits, {what}, {kind}"] for kind in trainings))
        for what in ("epoch", "command")
    }
    notes = [
        f"Medians of {given.rounds} rounds; start-up with {Path(data).name}. Digits, {given.epochs} epochs: "
        f"tracked / offline is {ratios['epoch']:.3f} an epoch, {ratios['command']:.3f} the command."
    ]
    _common.publish(facts, rows, file=given.json, notes=notes, seconds=seconds, tracked_to_offline=ratios)


if __name__ == "__main__":
    main()
