"""One worker: claims a cell, opens its trial, has it trained, closes both; until no cell is left.

Started by the driver as `python -m imagenette.study.worker`, with its order on standard input: a database's
password does not belong on a command line, which everybody on the machine can read. It shares nothing with
other workers but the database. Losing the database makes it wait, losing a claim (it was frozen, and taken
for dead) makes it drop the training, being asked to stop makes it save and give the cell back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from imagenette.config import Config, resolve
from imagenette.errors import EXIT_DONE, EXIT_FAILED, EXIT_PREEMPTED, RunError, as_line
from imagenette.processes import follow_parent, on_stop
from imagenette.results import Status, split_of
from imagenette.study.identity import Worker
from imagenette.study.ledger import Ledger, Lost, StaleClaims
from imagenette.study.queue import Queue, Row
from imagenette.study.schema import Search
from imagenette.study.storage import AWAY, Patience, connect, open_study
from imagenette.study.table import in_words
from imagenette.study.trainer import holders, run_training
from imagenette.study.trials import Trials
from imagenette.tracking.client import check_alive
from imagenette.tracking.outbox import count_epochs, is_held
from imagenette.training.job import Job
from imagenette.training.pruning import Reports

PAUSE = 5.0  # seconds before the next cell after one that could not begin
IDLE = 0.5  # seconds between two looks for a cell to claim
LONGEST = 120  # letters of a folder's name


class Order(BaseModel, frozen=True):
    """What a driver gives a worker to know, as one JSON text."""

    storage: str
    study: str
    objective: str
    """Metric of a finished training that is maximized; the pruner looks at an epoch's on the same images."""
    runs: Path
    """Folder of the trainings' folders."""
    command: tuple[str, ...] = (sys.executable, "-m", "imagenette", "train")
    env: dict[str, str] = {}
    """Set for the trainings: this worker's share of cores and GPUs."""
    knobs: dict[str, str] = {}
    """Operational knobs of the trainings."""
    tracking_uri: str | None = None
    parent_run_id: str | None = None
    grace: float = 60.0
    """Seconds without a sign of life after which a worker is given up for dead."""
    search: Search | None = None
    base: dict[str, Any] = {}
    """Knobs that a search's trials share."""
    seed: int = 1
    """A search's seed."""
    driver: int | None = None
    """Process that this worker must not outlive."""


def main() -> None:
    order = Order.model_validate_json(sys.stdin.read())
    if order.driver:
        follow_parent(signal.SIGTERM, parent=order.driver)
    stopping = threading.Event()
    on_stop(lambda number, frame: stopping.set())
    try:
        code = work(order, stopping)
    except RunError as error:
        print(f"imagenette: {error}", file=sys.stderr)
        code = EXIT_FAILED
    sys.exit(code)


def work(order: Order, stopping: threading.Event) -> int:
    """Until no cell waits or runs, or stopping is set. The exit code."""
    patience = Patience(stopping.is_set)
    storage = patience(lambda: connect(order.storage))
    study_id = patience(lambda: open_study(storage, order.study))
    queue, me = Queue(storage.engine, study_id), Worker.here()
    trials = Trials(storage, study_id, search=order.search)
    ledger = Ledger(queue=queue, trials=trials, objective=order.objective, patience=patience)
    claims = StaleClaims(order.grace)
    while not stopping.is_set():
        await_server(order, stopping)
        row = patience(lambda: queue.claim(me)) if not stopping.is_set() else None
        if row:
            if not run_cell(order, ledger, row):
                stopping.wait(PAUSE)
        elif patience(queue.unfinished) == 0:
            ledger.reconcile()
            return EXIT_DONE
        else:
            ledger.take_back(claims)
            stopping.wait(IDLE * random.uniform(0.5, 1.5))
    return EXIT_PREEMPTED


def run_cell(order: Order, ledger: Ledger, row: Row) -> bool:
    """One attempt at a claimed cell, from the trial's opening to its close. False if it could not begin, for
    no fault of its own: better to wait a little before the next."""
    patience, hold = ledger.patience, Hold(ledger.queue, row, every=min(order.grace, 60.0) / 6)
    try:
        row = patience(lambda: ledger.trials.open(row, seed=order.seed))
        job = job_of(order, row)
        row = replace(row, config=job.config.model_dump(), output=str(job.output))
        changed = ("trial", "trial_id", "values", "config", "output")
        hold.note(patience, **{name: getattr(row, name) for name in changed})
        result = run_training(
            job,
            command=order.command,
            env={**os.environ, **order.env},
            wanted=lambda: hold.holds(job) and not patience.unless(),
            prune=pruner(order, ledger.trials, row),
        )
        ledger.close(row, result)
        return result.status != Status.UNTRACKED
    except Lost:
        print(f"imagenette: {row.cell}: taken over by another worker", file=sys.stderr)
    except RunError:
        raise
    except Exception as error:  # a bug of ours, or a database that refuses: this cell's end, not the study's
        traceback.print_exc()
        reason = as_line(f"{type(error).__name__}: {error}", limit=200)
        patience(lambda: ledger.queue.finish(row, Status.FAILED, reason=reason, marked=0))
    return True


def job_of(order: Order, row: Row) -> Job:
    """The training of a row whose trial is open: its config, or a search's with what the sampler drew;
    operational knobs as ordered."""
    drawn = in_words(row.values)
    values = row.config if row.config is not None else resolve({**order.base, **row.values}).model_dump()
    return Job(
        config=Config.model_validate({**values, **order.knobs}),
        output=folder(order, row),
        run_name=row.cell if order.search is None else f"{row.cell}: {drawn}",
        study=order.study,
        arm=row.arm if order.search is None else drawn,
        parent=order.parent_run_id,
        trial=row.trial,
    )


def pruner(order: Order, trials: Trials, row: Row) -> Callable[[Reports], bool] | None:
    """The study's answer to `shall this run stop here?`; None where nothing is ever pruned."""
    if order.search is None or order.search.pruner == "none":
        return None
    trial_id, metric = row.trial_id, f"{split_of(order.objective)}/accuracy"
    assert trial_id is not None

    def prune(reports: Reports) -> bool:
        accuracies = {epoch: metrics[metric] for epoch, metrics in reports.items() if metric in metrics}
        try:
            return trials.report(trial_id, accuracies)
        except AWAY:  # the training waits for the answer, and asks again after the next epoch
            return False

    return prune


def folder(order: Order, row: Row) -> Path:
    """The cell's folder: the same one in every attempt, so that a training goes on where it stopped; one
    beside it while a training on another machine still holds it."""
    deadline = time.monotonic() + 5.0  # what only reads or sends the folder's records is soon done
    name = re.sub(r"[^A-Za-z0-9._=-]+", "_", row.cell)
    if name != row.cell.replace(" ", "_") or len(name) > LONGEST:  # else another cell's may be the same
        name = f"{name[:LONGEST]}-{hashlib.sha256(row.cell.encode()).hexdigest()[:8]}"
    path = (order.runs / name).resolve()
    while is_held(path) and not holders(path):  # those of this machine are ended by run_training
        if time.monotonic() > deadline:
            return path.with_name(f"{path.name}-attempt{row.attempt}")
        time.sleep(0.2)
    return path


def await_server(order: Order, stopping: threading.Event) -> None:
    """Wait for the tracking server, or until somebody asks to stop: without it each training would fail, and
    so the whole study."""
    while not stopping.is_set():
        try:
            check_alive(order.tracking_uri or "", advice="the study waits")
            return
        except RunError as error:
            print(f"imagenette: {error}", file=sys.stderr)
            stopping.wait(2)


@dataclass
class Hold:
    """A claim, kept alive by whoever looks whether it still holds."""

    queue: Queue
    row: Row
    every: float
    """Seconds between two signs of life."""
    lost: bool = False
    """Whether another worker has the cell now."""
    _next: float = 0.0

    def note(self, patience: Patience, **known: Any) -> None:
        """Write into the row. Lost if it is no longer ours."""
        if not patience(lambda: self.queue.note(self.row, **known)):
            raise Lost

    def holds(self, job: Job) -> bool:
        """Beat, where it is time to, and write down how far the training is; False once the claim is lost."""
        if not self.lost and time.monotonic() >= self._next:
            with contextlib.suppress(*AWAY):  # nobody else can take the claim while the database is away
                progress = count_epochs(job.output) / job.config.epochs
                self.lost = not self.queue.note(self.row, progress=progress)
            self._next = time.monotonic() + self.every
        return not self.lost


if __name__ == "__main__":
    main()
