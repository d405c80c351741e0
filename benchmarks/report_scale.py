"""What a report costs: on a small study, and on one study among thousands of runs in a full store.

    python benchmarks/report_scale.py --runs 5000 --epochs 350 --json FILE

Makes a store in a temporary folder: one study of five arms and three seeds with all its files, written by the
code that training uses; every other run is a copy of one of its runs inside the database (metrics of every
epoch, params, tags, no files), fifteen to a study. Then an `mlflow server` on it, and `imagenette report` as
a process of its own: wall time, peak memory.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import _common
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from imagenette.artifacts import write_tables
from imagenette.config import resolve
from imagenette.records import Epoch, Predictions
from imagenette.results import FINAL, SELECTED
from imagenette.study.definition import load
from imagenette.tracking.study_plan import OUTLINE

IMAGES, CLASSES = 3925, tuple(f"n{i:08d}" for i in range(10))


def main() -> None:
    parser = _common.parser(__doc__, rounds=5)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=350)
    parser.add_argument("--folder", type=Path, default=None, help="several gigabytes of room")
    given = parser.parse_args()
    facts = _common.about("mlflow", seeds=[])
    with tempfile.TemporaryDirectory(dir=given.folder) as temp:
        folder = Path(temp)
        measured = []
        with server(folder) as uri:
            first = make_study(uri, folder, "batch-size", epochs=given.epochs)
        for count in (15, given.runs // 10, given.runs):
            fill(folder / "mlflow.db", first, count)
            with server(folder) as uri:
                measured.append({"runs": count, **measure(uri, folder, rounds=given.rounds)})
            print(json.dumps(measured[-1]))
        size = round((folder / "mlflow.db").stat().st_size / 1e9, 2)
    study = "15 runs of 5 arms, 3,925 test images"
    about = {"epochs": given.epochs, "study": study, "database_gigabytes": size}
    _common.save(given.json, facts, **about, measured=measured)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    port = _common.free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=env, start_new_session=True, **quiet)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def make_study(uri: str, folder: Path, name: str, *, epochs: int) -> list[str]:
    """The study with its parent and files; the ids of its runs."""
    client = MlflowClient(uri)
    experiment = client.create_experiment("imagenette")
    definition = load(name)
    parent = client.create_run(
        experiment, tags={"study": name, "role": "study", "status": "finished"}, run_name=name
    )
    (folder / OUTLINE).write_text(definition.outline().model_dump_json(), encoding="utf-8")
    client.log_artifact(parent.info.run_id, str(folder / OUTLINE), "study")
    client.set_terminated(parent.info.run_id)
    return [
        make_run(client, experiment, folder / cell.name, parent.info.run_id, cell.arm, cell.values, epochs)
        for cell in definition.cells
    ]


def make_run(
    client: MlflowClient,
    experiment: str,
    folder: Path,
    parent: str,
    arm: str,
    values: dict[str, int],
    epochs: int,
) -> str:
    rng = np.random.default_rng(zlib.crc32(f"{arm} {values}".encode()))
    label = np.arange(IMAGES) % 10
    predicted = np.where(rng.random(IMAGES) < 0.92, label, (label + 1) % 10)
    said = Predictions(label, predicted, np.full(IMAGES, 0.9, np.float32))
    history = [
        Epoch(
            index=index,
            timestamp=1_700_000_000_000 + index,
            train_loss=2 / index,
            train_accuracy=1 - 1 / (1 + index),
            holdout_loss=2 / index,
            holdout_accuracy=1 - 1 / (1 + index),
            test_loss=2 / index,
            test_accuracy=said.accuracy * (1 - 1 / (1 + index)),
            lr=0.1,
            speed_images_per_second=3000,
            speed_epoch_seconds=3,
            system={"cpu_utilization_percentage": 50, "process_memory_usage_megabytes": 1000.0},
        )
        for index in range(1, epochs + 1)
    ]
    tags = {
        "study": "batch-size",
        "role": "trial",
        "status": "finished",
        "arm": arm,
        "seed": str(values["seed"]),
    }
    tags |= {"data_digest": "d" * 64, "commit": "c" * 40, "mlflow.parentRunId": parent, "device": "a device"}
    run_id = str(
        client.create_run(experiment, tags=tags, run_name=f"{arm} seed={values['seed']}").info.run_id
    )
    metrics = [Metric(k, v, e.timestamp, e.index) for e in history for k, v in e.metrics().items()]
    for which in ("selected", "final", "best"):
        metrics.append(Metric(f"{which}/test_accuracy", said.accuracy, 1_700_000_000_000, epochs))
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])
    params = resolve(values).params()
    client.log_batch(
        run_id, params=[Param(key, value) for key, value in params.items()], tags=[RunTag("x", "y")]
    )
    names = [f"val/{CLASSES[c]}/{i:05d}.jpg" for i, c in enumerate(label)]
    predictions = {FINAL: said, SELECTED: said}
    for file in write_tables(folder, history, predictions, names=names, classes=CLASSES, labels=CLASSES):
        client.log_artifact(run_id, str(file))
    client.set_terminated(run_id)
    return run_id


def fill(database: Path, templates: list[str], count: int) -> None:
    """Copies of the templates until the store has so many runs."""
    with sqlite3.connect(database) as store:
        store.execute("PRAGMA synchronous = OFF")
        columns = {
            table: [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
            for table in ("runs", "metrics", "latest_metrics", "params", "tags")
        }
        there = store.execute("SELECT count(*) FROM runs").fetchone()[0] - 1  # without the parent
        for number in range(there, count):
            template, copy = templates[number % len(templates)], uuid.uuid4().hex
            for table, names in columns.items():
                shown = ", ".join("?" if name == "run_uuid" else f'"{name}"' for name in names)
                listed = ", ".join(f'"{name}"' for name in names)
                store.execute(
                    f"INSERT INTO {table} ({listed}) SELECT {shown} FROM {table} WHERE run_uuid = ?",
                    (copy, template),
                )
            other = f"study-{number // 15}"
            store.execute("UPDATE tags SET value = ? WHERE key = 'study' AND run_uuid = ?", (other, copy))
            if number % 500 == 0:
                store.commit()


def measure(uri: str, folder: Path, *, rounds: int) -> dict[str, object]:
    """Time and memory of `imagenette report batch-size`, as a process."""
    seconds, peaks, out = [], [], folder / "out"
    command = [sys.executable, "-m", "imagenette", "report", "batch-size", "--out", str(out)]
    # Through a small process: a child's peak begins with what its parent had when it forked.
    watch = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=-3); "
    watch += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    for _ in range(rounds):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-S", "-c", watch, *command],
            env={**os.environ, "MLFLOW_TRACKING_URI": uri},
            check=True,
            stdout=subprocess.PIPE,
        )
        seconds.append(round(time.monotonic() - started, 2))
        peaks.append(int(done.stdout) * 1024 / 1e6)
    return {
        "seconds": seconds,
        "median_seconds": statistics.median(seconds),
        "peak_megabytes": round(max(peaks)),
        "page_kilobytes": round((out / "report.html").stat().st_size / 1e3),
    }


if __name__ == "__main__":
    main()
