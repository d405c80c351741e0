"""Studies of trainings that take a tenth of a second, on real databases, with real workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from imagenette.config import resolve
from imagenette.study.crew import start_worker
from imagenette.study.queue import Queue, Row
from imagenette.study.storage import open_storage, open_study
from imagenette.study.worker import Order

STUB = (sys.executable, "-S", str(Path(__file__).with_name("stub_train.py")))


def grid(cells: int, *, seeds: int = 4) -> list[Row]:
    """So many cells of a grid over lr and seed."""
    rows = []
    for position in range(cells):
        values = {"lr": round(0.1 + 0.1 * (position // seeds), 3), "seed": 1 + position % seeds}
        arm = f"lr={values['lr']}"
        rows.append(
            Row(
                cell=f"{arm} seed={values['seed']}",
                arm=arm,
                position=position,
                values=values,
                config=resolve({"data": "digits", **values}).model_dump(),
            )
        )
    return rows


class Study:
    """One study in one database, and the workers on it."""

    def __init__(self, url: str, folder: Path, rows: list[Row], *, name: str = "grid", **order: Any) -> None:
        self.url, self.folder, self.name = url, folder, name
        self.storage = open_storage(url)
        self.id = open_study(self.storage, name)
        self.queue = Queue(self.storage.engine, self.id)
        self.queue.open_record(name, {})
        self.queue.fill(rows)
        self.log = folder / "stub.log"
        self.order = Order(
            storage=url,
            study=name,
            objective="selected/holdout_accuracy",
            runs=folder / "runs",
            **{"command": STUB, "grace": 3.0, "tracking_uri": "sqlite://", **order},
        )
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, count: int = 1, **env: str) -> list[subprocess.Popen[bytes]]:
        """So many more workers, each a process in a session of its own."""
        new = []
        for _ in range(count):
            variables = {"STUB_LOG": str(self.log), **env}
            log = self.folder / f"worker{len(self.workers)}.log"
            worker = start_worker(self.order.model_copy(update={"env": variables}), log)
            new.append(worker)
            self.workers.append(worker)
        return new

    def wait(self, seconds: float = 90) -> list[int]:
        """Exit codes of all workers."""
        return [worker.wait(seconds) for worker in self.workers]

    def kill(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()

    def lines(self, word: str) -> list[str]:
        """What the trainings noted: names of those that `began`, `ended`, ..."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.removeprefix(f"{word} ").rsplit(" pid=")[0] for line in lines if line.startswith(word)]

    def rows(self) -> dict[str, Row]:
        return {row.cell: row for row in self.queue.rows()}

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        study = optuna.load_study(study_name=self.name, storage=self.storage)
        return study.get_trials(deepcopy=False, states=states or None)

    def said(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("worker*.log")))
