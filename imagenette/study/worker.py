"""One worker: claims a cell, opens its trial, has it trained, closes both; until no cell is left.

Started by the driver as `python -m imagenette.study.worker`, with its order on standard input: a database's
password does not belong on a command line, which everybody on the machine can read. It shares nothing with
other workers but the database. Losing the database makes it wait, losing a claim (it was frozen, and taken
for dead) makes it drop the training, being asked to stop makes it save and give the cell back.
"""

from __future__ import annotations

import math
import os
import random
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from imagenette.config import Config, resolve
from imagenette.errors import EXIT_DONE, EXIT_FAILED, EXIT_PREEMPTED, RunError
from imagenette.processes import follow_parent
from imagenette.study.queue import MOST_LOSSES, Queue, Row, Watch, Worker
from imagenette.study.schema import Search
from imagenette.study.storage import AWAY, Patience, connect, open_study
from imagenette.study.table import in_words, one_line
from imagenette.study.trainer import Outcome, Training, holders, run_training
from imagenette.study.trials import OpenTrial, Trials
from imagenette.tracking.client import check_alive
from imagenette.tracking.outbox import count_epochs, holds_run, is_held, read_card
from imagenette.training.pruning import Reports

PAUSE = 5.0  # seconds before the next cell after one that could not begin
IDLE = 0.5  # seconds between two looks for a cell to claim


class Order(BaseModel, frozen=True):
    """What a worker must know; one JSON text."""

    storage: str
    study: str
    objective: str
    """Metric of a finished training that is maximized."""
    pruning_metric: str
    """Metric of an epoch that the pruner looks at."""
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


class Lost(Exception):
    """Another worker has the cell now."""


def main() -> None:
    order = Order.model_validate_json(sys.stdin.read())
    if order.driver:
        follow_parent(signal.SIGTERM, parent=order.driver)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
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
    watch = Watch(order.grace)
    while not stopping.is_set():
        await_server(order, stopping)
        row = patience(lambda: queue.claim(me)) if not stopping.is_set() else None
        if row:
            if not run_cell(order, queue, trials, row, patience):
                stopping.wait(PAUSE)
        elif patience(queue.unfinished) == 0:
            patience(lambda: trials.reconcile(queue.rows))
            return EXIT_DONE
        else:
            take_back(queue, trials, watch, patience)
            stopping.wait(IDLE * random.uniform(0.5, 1.5))
    return EXIT_PREEMPTED


def run_cell(order: Order, queue: Queue, trials: Trials, row: Row, patience: Patience) -> bool:
    """One attempt at a claimed cell, from the trial's opening to its close. False if it could not begin, for
    no fault of its own: better to wait a little before the next."""
    try:
        with Hold(queue, row, patience, beat=min(order.grace, 60.0) / 6) as hold:
            trial = patience(lambda: trials.open(row, seed=order.seed))
            config = configure(order, row, trial)
            output = folder(order, row)
            hold.note(
                trial=trial.number,
                trial_id=trial.trial_id,
                values=trial.values,
                config=config.model_dump(),
                output=str(output),
            )
            hold.follow(output, config.epochs)
            outcome = run_training(
                training(order, row, trial, config, output),
                command=order.command,
                env={**os.environ, **order.env},
                wanted=lambda: not patience.unless() and not hold.lost.is_set(),
                prune=pruner(order, trials, trial),
            )
        close(order.objective, queue, trials, row, trial, outcome, output, patience)
        return outcome.status != "untracked"
    except Lost:
        print(f"imagenette: {row.cell}: taken over by another worker", file=sys.stderr)
    except RunError:
        raise
    except Exception as error:  # a bug of ours, or a database that refuses: this cell's end, not the study's
        traceback.print_exc()
        reason = one_line(f"{type(error).__name__}: {error}")
        patience(lambda: queue.finish(row, "failed", reason=reason, marked=0))
    return True


def close(
    objective: str,
    queue: Queue,
    trials: Trials,
    row: Row,
    trial: OpenTrial,
    outcome: Outcome,
    output: Path | None,
    patience: Patience,
) -> None:
    """Write the end down: in the row first, which decides, then in Optuna."""
    run_id = outcome.run_id or (run_of(output) if output else None)
    known: dict[str, Any] = {
        "run_id": run_id,
        "seconds": (row.seconds or 0.0) + time.time() - (row.started or time.time()),
        "reason": outcome.reason,
    }
    said_itself = outcome.said_itself
    state, value = {"finished": "done", "stopped": "waiting"}.get(outcome.status, outcome.status), None
    if state == "done":
        value = outcome.metrics.get(objective)
        if value is not None and math.isfinite(value):
            known |= {"value": value, "metrics": outcome.metrics, "progress": 1.0}
        else:
            known["reason"] = f"its objective {objective} is {value}"
            state, value, said_itself = "failed", None, False
    if state == "untracked":
        known["losses"] = row.losses + 1
        state, said_itself = ("failed", False) if row.losses + 1 >= MOST_LOSSES else ("waiting", True)
    known |= {"unsynced": outcome.unsynced, "marked": int(said_itself)}
    if not patience(lambda: queue.finish(row, state, **known)):
        raise Lost
    ended = "failed" if state == "waiting" else state  # Optuna's trial is over; the cell gets another one
    about = {"reason": known["reason"], "run_id": run_id, "output": str(output) if output else None}
    patience(lambda: trials.close(trial.trial_id, ended, value, **about))


def configure(order: Order, row: Row, trial: OpenTrial) -> Config:
    """The row's config, or a search's with what the sampler answered; operational knobs as ordered."""
    values = row.config if row.config is not None else resolve({**order.base, **trial.values}).model_dump()
    return Config.model_validate({**values, **order.knobs})


def training(order: Order, row: Row, trial: OpenTrial, config: Config, output: Path) -> Training:
    searched = in_words(trial.values)
    return Training(
        config=config,
        output=output,
        study=order.study,
        arm=row.arm if order.search is None else searched,
        name=row.cell if order.search is None else f"{row.cell}: {searched}",
        parent=order.parent_run_id,
        trial=trial.number,
    )


def pruner(order: Order, trials: Trials, trial: OpenTrial) -> Callable[[Reports], bool] | None:
    """The study's answer to `shall this run go on?`; None where nothing is ever pruned."""
    if order.search is None or order.search.pruner == "none":
        return None

    def prune(reports: Reports) -> bool:
        accuracies = {e: m[order.pruning_metric] for e, m in reports.items() if order.pruning_metric in m}
        try:
            return trials.report(trial.trial_id, accuracies)
        except AWAY:  # the training waits for the answer, and asks again after the next epoch
            return False

    return prune


def folder(order: Order, row: Row) -> Path:
    """The cell's folder: the same one in every attempt, so that a training goes on where it stopped; one
    beside it while a training on another machine still holds it."""
    deadline = time.monotonic() + 5.0  # what only reads or sends the folder's records is soon done
    path = (order.runs / re.sub(r"[^A-Za-z0-9._=-]+", "_", row.cell)).resolve()
    while is_held(path) and not holders(path):  # those of this machine are ended by run_training
        if time.monotonic() > deadline:
            return path.with_name(f"{path.name}-attempt{row.attempt}")
        time.sleep(0.2)
    return path


def run_of(output: Path) -> str | None:
    """The MLflow run of a training's folder, where it got that far."""
    return read_card(output).run_id if holds_run(output) else None


def take_back(queue: Queue, trials: Trials, watch: Watch, patience: Patience) -> None:
    """Free the cells of workers that are gone or frozen."""
    for row, reason in watch.stale(patience(queue.running)):
        if patience(partial(queue.take_back, row, reason)):
            print(f"imagenette: {row.cell}: {reason}; it is tried again", file=sys.stderr)
            if row.trial_id is not None:
                patience(partial(trials.close, row.trial_id, "failed", None, reason=reason))


def await_server(order: Order, stopping: threading.Event) -> None:
    """Wait for the tracking server: without it each training would fail, and with it the whole study."""
    while not reachable(order):
        if stopping.wait(2):
            return


def reachable(order: Order) -> bool:
    """Whether the tracking server answers; if not, a line in the log says so."""
    try:
        check_alive(order.tracking_uri or "", advice="the study waits")
    except RunError as error:
        print(f"imagenette: {error}", file=sys.stderr)
        return False
    return True


class Hold:
    """A claim kept alive by a thread that beats, until the block ends. `lost` is set once the row is no
    longer ours."""

    def __init__(self, queue: Queue, row: Row, patience: Patience, *, beat: float) -> None:
        self._queue, self._row, self._patience, self._beat = queue, row, patience, beat
        self.lost, self._over = threading.Event(), threading.Event()
        self._output: Path | None = None
        self._epochs = 1
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Hold:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def follow(self, output: Path, epochs: int) -> None:
        """From now on each beat tells how far the training in this folder is."""
        self._output, self._epochs = output, epochs

    def note(self, **known: Any) -> None:
        """Write into the row; Lost if it is no longer ours."""
        if not self._patience(lambda: self._queue.note(self._row, **known)):
            self.lost.set()
            raise Lost

    def _keep(self) -> None:
        while not self._over.wait(self._beat):
            try:
                known = {"progress": count_epochs(self._output) / self._epochs} if self._output else {}
                if not self._queue.note(self._row, **known):
                    self.lost.set()
                    return
            except Exception:  # the database is away: nobody else can take the claim meanwhile
                continue


if __name__ == "__main__":
    main()
