"""Accuracy against epochs and seconds: `imagenette train` for every combination of knobs in --runs.

    python benchmarks/recipes.py --data ARCHIVE --folder RUNS --json FILE \\
        --runs "recipe=fast epochs=5,16 seed=1,2,3 holdout=0"

Each of --runs is a set of knobs; several values of one, with commas, are as many runs. A run lives in a
folder of its own under --folder: one that has finished is not run again, one that was cut short goes on.

Choices are made on the holdout. What is reported is one accuracy on the test images: of the last epoch where
holdout=0 (`final/test_accuracy`), else of the epoch that was best on the holdout (`selected/test_accuracy`);
the table says which. `best/test_accuracy` is only in the JSON: it was chosen on the test set, and flatters.
"""

from __future__ import annotations

import csv
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _common

from imagenette.errors import EXIT_PREEMPTED
from imagenette.files import write_whole
from imagenette.training.job import Result, read_config

Knobs = dict[str, str]


def combinations(text: str) -> list[Knobs]:
    """`"epochs=5,16 seed=1"` as two sets of knobs."""
    pairs = [part.split("=", 1) for part in text.split()]
    if wrong := [pair[0] for pair in pairs if len(pair) != 2]:
        raise SystemExit(f"--runs {text!r}: {wrong[0]!r} is not NAME=VALUE")
    names = [name.replace("-", "_") for name, _ in pairs]
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(v.split(",") for _, v in pairs))
    ]


def arm(knobs: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in knobs.items() if name != "seed")


def train(knobs: Knobs, output: Path, *, data: str, tracked: bool, facts: Mapping[str, Any]) -> None:
    """The run, to its end or on from where it stopped; nothing if it has finished."""
    ended = Result.read(output)
    if ended and ended.status == "finished":
        _common.say(f"{output.name}: finished before")
        return
    _common.say(f"{output.name}: training")
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / "machine.json", json.dumps(facts, indent=2) + "\n")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in knobs.items()]
    where = [f"--data={data}", f"--output={output}", f"--offline={str(not tracked).lower()}"]
    process = subprocess.Popen([sys.executable, "-m", "imagenette", "train", *flags, *where])
    try:
        code = process.wait()
    except KeyboardInterrupt:  # the training was interrupted too, and saves
        code = process.wait()
        raise
    if code == EXIT_PREEMPTED:
        raise SystemExit(f"{output.name} was stopped; the same command goes on")
    if Result.read(output) is None:
        raise SystemExit(f"{output.name}: exit code {code}")


def read(output: Path, knobs: Knobs) -> dict[str, Any]:
    """What a run left behind."""
    result, config = Result.read(output), read_config(output)
    assert result
    about = {"run": output.name, "knobs": knobs, "config": _common.shown(config.params())}
    about |= {"status": result.status, "message": result.message, "metrics": result.metrics}
    machine = output / "machine.json"
    about["machine"] = json.loads(machine.read_text("utf-8")) if machine.exists() else None
    if result.status != "finished":
        return about
    with (output / "summary/history.csv").open(encoding="utf-8") as file:
        history = list(csv.DictReader(file))
    reported = "selected/test_accuracy" if config.holdout else "final/test_accuracy"
    return about | {
        "reported": reported,
        "accuracy": result.metrics[reported],
        "seconds": sum(float(row["speed/epoch_seconds"]) for row in history),
        "images_per_second": statistics.median(float(row["speed/images_per_second"]) for row in history),
    }


def rows(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """One a set of knobs, over its seeds."""
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        arms.setdefault(arm(run["knobs"]), []).append(run)
    return [row(name, members) for name, members in arms.items()]


def row(name: str, members: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    done = [run for run in members if run["status"] == "finished"]
    accuracies = [100 * run["accuracy"] for run in done]
    chosen = [
        100 * run["metrics"]["selected/holdout_accuracy"] for run in done if float(run["config"]["holdout"])
    ]
    return {
        "knobs": name,
        "n": len(done),
        "seeds": ", ".join(run["config"]["seed"] for run in done),
        "test accuracy, %": f"{statistics.fmean(accuracies):.2f}" if done else "-",
        "sd": f"{statistics.stdev(accuracies):.2f}" if len(done) > 1 else "-",
        "of": ", ".join(sorted({run["reported"] for run in done})),
        "holdout, %": f"{statistics.fmean(chosen):.2f}" if chosen else "-",
        "seconds a run": f"{statistics.median(run['seconds'] for run in done):.0f}" if done else "-",
        "not finished": len(members) - len(done),
    }


def main() -> None:
    parser = _common.parser(__doc__)
    parser.add_argument("--runs", nargs="+", required=True, metavar="KNOBS", help='"epochs=5,16 seed=1,2,3"')
    parser.add_argument("--data", default="imagenette", help="as in `imagenette train` [imagenette]")
    parser.add_argument("--folder", type=Path, required=True, help="of the runs")
    parser.add_argument("--tracked", action="store_true", help="in MLFLOW_TRACKING_URI; else offline")
    given = parser.parse_args()

    wanted = [knobs for text in given.runs for knobs in combinations(text)]
    facts = _common.about("timm", seeds=[int(knobs.get("seed", 1)) for knobs in wanted])
    runs: list[dict[str, Any]] = []
    for knobs in wanted:
        output = given.folder / ",".join(f"{k}={v}" for k, v in knobs.items()).replace("/", "_")
        train(knobs, output, data=given.data, tracked=given.tracked, facts=facts)
        runs.append(read(output, knobs))
        _common.save(given.json, facts, table=rows(runs), runs=runs)
    note = (
        "Mean and standard deviation over seeds. Seconds: training and evaluation, without start-up. "
        "final/test_accuracy: last epoch, no holdout; selected/test_accuracy: epoch chosen on the holdout."
    )
    _common.publish(facts, rows(runs), file=given.json, notes=[note], runs=runs)


if __name__ == "__main__":
    main()
