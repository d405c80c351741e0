"""The package as an earlier commit had it, beside today's: the same verbs, each version in its own processes.

Both run with this interpreter and its libraries; what differs is the folder that Python imports from.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from PIL import Image

from imagenette.data import open_dataset

ROOT = Path(__file__).resolve().parents[2]
BEFORE = "a7f1bd2ac42b81098d4ac5da6c20ca90e21375e1"
"""The commit whose work today's code must go on using."""
SMALL = {"data": "digits", "size": 32, "limit": 256, "batch_size": 32, "precision": "float32"}
"""Knobs of trainings that take seconds; float32, where "the same" can mean bit for bit."""
ASK_PYFUNC = """
import json, sys
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
files = pandas.DataFrame({"image": [open(name, "rb").read() for name in sys.argv[2:]]})
print(json.dumps(model.predict(files).to_dict("records")))
"""


def check_out(folder: Path) -> Path:
    """The files of BEFORE, in a folder. Skips the test where git does not have them."""
    archive = folder / "before.tar"
    command = ["git", "-C", str(ROOT), "archive", "--output", str(archive), BEFORE]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("git is not installed, so the earlier code cannot be made")
    if done.returncode:
        pytest.skip(f"this clone does not hold commit {BEFORE[:7]}: {done.stderr.strip()}")
    with tarfile.open(archive) as files:
        files.extractall(folder / "before", filter="data")
    return folder / "before"


@dataclass(frozen=True)
class Version:
    """One version of the package, used in one folder with one tracking store."""

    source: Path
    """Where `imagenette/` lies."""
    folder: Path
    tracking: str
    """MLflow's address."""

    @property
    def imports(self) -> dict[str, str]:
        """The variables that make Python import this version, and not what lies in the current folder."""
        return {"PYTHONPATH": str(self.source), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}

    @property
    def env(self) -> dict[str, str]:
        """A whole environment, with nothing of the caller's own service in it."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "OPTUNA_"))}
        places = {
            "MLFLOW_TRACKING_URI": self.tracking,
            "MLFLOW_EXPERIMENT_NAME": "imagenette",
            "OPTUNA_STORAGE": f"sqlite:///{self.folder}/optuna.db",
            "IMAGENETTE_HOME": str(self.folder / "home"),
        }
        return own | self.imports | places

    def start(self, *words: object) -> subprocess.Popen[str]:
        """`imagenette WORDS` in the background; what it writes is added to VERB.log."""
        command = [sys.executable, "-m", "imagenette", *map(str, words)]
        with (self.folder / f"{words[0]}.log").open("a") as log:
            return subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=log, stderr=log, text=True)

    def run(self, *words: object, code: int = 0) -> str:
        """The standard output of `imagenette WORDS`."""
        return self.python("-m", "imagenette", *words, code=code)

    def python(self, *words: object, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def train(self, output: Path, **knobs: object) -> str:
        """The run that it trained, for one epoch."""
        given = {"output": output, "epochs": 1, **SMALL, **knobs}
        self.run("train", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items()))
        return run_of(output)

    def write_study(self, name: str, *, seeds: list[int], epochs: int, lr: list[float]) -> Path:
        """The file of a study over learning rates."""
        base = {**SMALL, "epochs": epochs}
        lines = [f"name = {name!r}", f"title = {name!r}", f"seeds = {seeds}", "[base]"]
        lines += [*(f"{knob} = {value!r}" for knob, value in base.items()), "[grid]", f"lr = {lr}"]
        file = self.folder / f"{name}.toml"
        file.write_text("\n".join(lines))
        return file

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.tracking)

    def cells(self, database: str = "optuna.db") -> list[dict[str, Any]]:
        """The rows of the studies' cells, as they lie in the database; none before it is made."""
        connection = sqlite3.connect(self.folder / database, timeout=20)
        connection.row_factory = sqlite3.Row
        try:
            return [
                dict(row) for row in connection.execute("SELECT * FROM imagenette_cells ORDER BY position")
            ]
        except sqlite3.OperationalError:
            return []
        finally:
            connection.close()


def run_of(output: Path) -> str:
    return str(json.loads((output / "result.json").read_text())["run_id"])


def tracked_run(output: Path) -> str:
    """The run that MLflow has for the folder, also before the training has ended."""
    return str(json.loads((output / "outbox/run.json").read_text())["run_id"])


def pictures(folder: Path) -> list[Path]:
    """Some test images of the digits as files."""
    test, folder = open_dataset("digits", side=8).test, folder / "pictures"
    folder.mkdir(exist_ok=True)
    files = [folder / f"digit{i}.png" for i in (0, 100, 200, 300)]
    for file, i in zip(files, (0, 100, 200, 300), strict=True):
        Image.fromarray(test.images[i]).save(file)
    return files


def shares(top: list[dict[str, Any]]) -> dict[str, float]:
    return {row["class"]: row["share"] for row in top}


def curves(output: Path) -> list[dict[str, str]]:
    """history.csv as written, without what depends on the clock and on the machine."""
    with (output / "summary/history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {k: v for k, v in row.items() if k != "timestamp" and not k.startswith(("speed/", "system/"))}
        for row in rows
    ]


def contents(home: Path) -> dict[str, tuple[int, int]]:
    """Each file in a folder, with its number on the disk and the time of its last change."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return {str(path.relative_to(home)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}
