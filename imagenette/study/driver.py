"""`imagenette study`: one study on this machine, from its definition to its last cell.

definition -> checked against the data and against what the database holds -> rows -> workers, who do the
rest; meanwhile here: the view, the parent run in MLflow, dead workers replaced, lost cells freed. Several
machines may each run this on the same study. Only drivers and trainings use MLflow; workers ask whether it is
there.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from imagenette.config import OPERATIONAL, Config
from imagenette.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_PREEMPTED,
    EXIT_UNSYNCED,
    RunError,
    hide_secrets,
)
from imagenette.files import write_whole
from imagenette.processes import cores, follow_parent, stop_signals
from imagenette.study.checks import check_data, check_facts, check_same, facts, planned
from imagenette.study.crew import Crew, Share, share_out, visible_gpus
from imagenette.study.definition import Definition
from imagenette.study.page import Page, describe
from imagenette.study.queue import Queue, Row, StudyRecord, Watch, Worker, place
from imagenette.study.show import missing_line, watching
from imagenette.study.storage import Patience, open_storage, open_study, said_in_one_line
from imagenette.study.trainer import Outcome
from imagenette.study.trials import Trials
from imagenette.study.worker import Lost, Order, close, take_back
from imagenette.tracking.client import resolve_uri
from imagenette.tracking.outbox import count_lacking
from imagenette.tracking.parent import StudyRun
from imagenette.tracking.study_plan import OUTLINE
from imagenette.training.readiness import process_count

GLANCE = 0.5  # seconds between two looks at the rows; up to 2 where a look takes long


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where and how a study runs: what does not belong to its definition."""

    storage: str
    workers: int = 1
    tracking_uri: str | None = None
    experiment: str = "imagenette"
    runs: Path = Path("runs")
    """Folder of the study's folder."""
    retry_failed: bool = False
    grace: float = 60.0
    """Seconds without a sign of life after which a worker is given up for dead."""
    command: tuple[str, ...] = (sys.executable, "-m", "imagenette", "train")
    """What trains one cell, before its options."""
    again: str | None = None
    """The command line that goes on with this study, for messages."""


def run_study(definition: Definition, plan: Plan) -> int:
    """Run or resume; the exit code. InputError before anything is made or changed."""
    if "MLFLOW_RUN_ID" in os.environ:
        follow_parent(signal.SIGTERM)  # `mlflow run`, when stopped, leaves its child running
    shares = share_out(plan.workers, cores=cores(), gpus=visible_gpus())
    digests = check_data(definition, shares)
    storage = open_storage(plan.storage)
    with said_in_one_line(), stop_signals() as stopping:
        study_id = open_study(storage, definition.name)
        queue = Queue(storage.engine, study_id)
        check_same(definition, queue.rows())
        record = queue.introduce(definition.name, facts(definition))
        check_facts(definition, record)
        queue.fill(planned(definition))
        if plan.retry_failed:
            queue.retry_failed()
        folder = plan.runs.resolve() / f"{definition.name}-{record.uid[:8]}"
        trials = Trials(storage, study_id, search=definition.search)
        parent = open_parent(definition, plan, record, folder, queue.rows())
        queue.update_record(parent_run_id=parent.run_id)
        page = Page(definition, parent, folder)
        drive = Drive(definition, plan, queue, trials, page, lambda: bool(stopping))
        try:
            reuse(definition, queue, trials, parent, digests)
            announce(definition, plan, queue.rows(), folder)
            drive.run([order(definition, plan, share, parent, folder) for share in shares], folder)
        except RunError as error:  # a server stayed away; what is done is done, and the rest can go on
            print(f"imagenette: {error}", file=sys.stderr)
            drive.broken = True
        return end(definition, plan, drive, stopped=bool(stopping))


@dataclass
class Drive:
    """A study under way on this machine."""

    definition: Definition
    plan: Plan
    queue: Queue
    trials: Trials
    page: Page
    stop: Callable[[], bool]
    rows: list[Row] = field(default_factory=list)
    """As they were seen last."""
    broken: bool = False

    def run(self, orders: Sequence[Order], folder: Path) -> None:
        """Until every cell has ended, or somebody asks to stop, or no worker can be kept alive."""
        watch, patience = Watch(self.plan.grace), Patience(self.stop)
        with watching(self.definition.name) as view:
            self.rows = patience(self.queue.rows)
            view.update(self.rows)
            left = any(not row.ended for row in self.rows)
            with Crew.of(orders if left else [], folder) as crew:
                while True:
                    began = time.monotonic()
                    self.rows = patience(self.queue.rows)
                    took = time.monotonic() - began
                    view.update(self.rows, workers_alive=crew.alive)
                    self.record_failures(patience)
                    self.page.refresh(self.rows)
                    if all(row.ended for row in self.rows) or self.stop() or crew.over:
                        break
                    take_back(self.queue, self.trials, watch, patience)
                    crew.mend()
                    time.sleep(max(GLANCE, min(20 * took, 2.0)))
                crew.stop()
            take_back(self.queue, self.trials, watch, patience)  # of workers that had to be killed
            patience(lambda: self.trials.reconcile(self.queue.rows))
            self.rows = patience(self.queue.rows)
            self.record_failures(patience, everywhere=True)
            self.recount(patience)
            view.update(self.rows, workers_alive=0)

    def record_failures(self, patience: Patience, *, everywhere: bool = False) -> None:
        """Have MLflow know why a training failed that could not say so itself: those of this machine, whose
        folders are here; at the end all."""
        here = place()
        for row in self.rows:
            if row.state != "failed" or row.marked or not (everywhere or row.place == here):
                continue
            run_id = self.page.parent.record_failure(
                name=row.cell,
                arm=row.arm,
                seed=str(row.values.get("seed", self.definition.seeds[0])),
                trial=row.trial,
                reason=row.reason or "unknown",
                output=Path(row.output) if row.output and row.place == here else None,
                run_id=row.run_id,
                uid=f"{self.page.parent.uid}:{row.cell}:{row.attempt}",
            )
            if run_id is None:  # the server is away: later
                return
            patience(partial(self.queue.amend, row, marked=1, run_id=run_id))

    def recount(self, patience: Patience) -> None:
        """What `imagenette sync` has sent since a run ended is no longer missing."""
        for number, row in enumerate(self.rows):
            if (
                row.unsynced
                and row.output
                and Path(row.output).is_dir()
                and not count_lacking(Path(row.output))
            ):
                patience(partial(self.queue.amend, row, unsynced=0))
                self.rows[number] = replace(row, unsynced=0)


def end(definition: Definition, plan: Plan, drive: Drive, *, stopped: bool) -> int:
    """Close the parent run, say what is missing, and give the exit code."""
    rows = drive.rows
    said = missing_line(definition.name, rows, command=plan.again)
    if rows and not drive.broken and all(row.state in ("done", "pruned") for row in rows):
        status, code = "finished", EXIT_DONE
    elif stopped and not (rows and all(row.ended for row in rows)):
        status, code = "preempted", EXIT_PREEMPTED
    else:
        status, code = "failed", EXIT_FAILED
    elsewhere = any(row.state == "running" and row.place != place() for row in rows)
    page = drive.page
    known = page.refresh(rows, now=True) if elsewhere else page.end(rows, status, "" if code == 0 else said)
    unsynced = [row for row in rows if row.unsynced and row.state != "failed"]
    if code == EXIT_DONE and (unsynced or not known):
        folders = " ".join(sorted({f"{Path(row.output or '').parent} on {row.host}" for row in unsynced}))
        lacking = f"`imagenette sync DIR` sends what is in {folders}" if unsynced else "run it again"
        print(f"imagenette: the tracking server lacks records of this study: {lacking}", file=sys.stderr)
        code = EXIT_UNSYNCED
    print(f"imagenette: {said}" if code else said, file=sys.stderr)
    return code


# -- before the first worker --------------------------------------------------------------------------


def open_parent(
    definition: Definition, plan: Plan, record: StudyRecord, folder: Path, rows: Sequence[Row]
) -> StudyRun:
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{definition.name}.toml"
    outline = folder / OUTLINE
    write_whole(source, definition.source)
    write_whole(outline, definition.outline().model_dump_json(indent=2) + "\n")
    varied = {name: ", ".join(map(str, values)) for name, values in definition.factors.items()}
    if definition.search:
        varied = {name: str(space) for name, space in definition.search.space.items()}
    parent = StudyRun.open(
        tracking_uri=plan.tracking_uri,
        experiment=plan.experiment,
        name=definition.name,
        uid=record.uid,
        params={
            "objective": definition.objective,
            "cells": str(len(rows)),
            "seeds": ", ".join(map(str, definition.seeds)),
            **{f"varied.{name}": text for name, text in varied.items()},
            **{f"base.{name}": str(value) for name, value in definition.base.items()},
        },
        tags={"selection": definition.split},
        description=describe(definition, rows, {}),
        known_run_id=record.parent_run_id,
        files=[source, outline],
    )
    if record.parent_run_id not in (None, parent.run_id):
        where = hide_secrets(resolve_uri(plan.tracking_uri))
        print(
            f"imagenette: parent run {record.parent_run_id} is not on {where}: made again there",
            file=sys.stderr,
        )
    return parent


def reuse(
    definition: Definition, queue: Queue, trials: Trials, parent: StudyRun, digests: Mapping[str, str]
) -> None:
    """Close the cells that were trained before, in another study or alone: same config, same data."""
    waiting = {
        Config.model_validate(row.config): row
        for row in queue.rows()
        if row.state == "waiting" and row.config is not None
    }
    me = Worker.here()
    for data, data_digest in digests.items():
        cells = {config.digest(): row for config, row in waiting.items() if config.data == data}
        found = parent.reusable(cells, data_digest=data_digest) if cells else {}
        for digest, source in found.items():
            row = queue.claim(me, cell=cells[digest].cell)
            if row is None:  # somebody trains it this very moment
                continue
            trial = trials.open(row, seed=0)
            if source.tags.get("mlflow.parentRunId") == parent.run_id:
                run_id = source.run_id  # our own: it ended, and its worker was lost before it could tell
            else:
                run_id = parent.add_reused(name=row.cell, arm=row.arm, source=source, trial=trial.number)
                queue.note(row, reused=source.run_id)
            queue.note(row, trial=trial.number, trial_id=trial.trial_id)
            names = ("best/", "selected/", "final/")
            metrics = {name: value for name, value in source.metrics.items() if name.startswith(names)}
            outcome = Outcome(status="finished", metrics=metrics, run_id=run_id)
            with suppress(Lost):
                close(definition.objective, queue, trials, row, trial, outcome, None, Patience())


def announce(definition: Definition, plan: Plan, rows: Sequence[Row], folder: Path) -> None:
    left = sum(not row.ended for row in rows)
    what = "trials" if definition.search else "cells"
    who = f"{plan.workers} worker{'s' * (plan.workers > 1)}"
    print(f"{definition.name}: {left} of {len(rows)} {what} to go, {who}, runs in {folder}", file=sys.stderr)
    if definition.reads_test:
        said = f"the objective {definition.objective} is measured on the test set: it flatters"
        print(f"{definition.name}: {said}", file=sys.stderr)


def order(definition: Definition, plan: Plan, share: Share, parent: StudyRun, folder: Path) -> Order:
    """What one worker is told."""
    some = definition.cells[0].config if definition.cells else definition.configure({})
    processes = process_count(some, gpus=share.processes)
    threads = {} if some.workers else {"workers": str(max(1, share.threads // processes))}
    uri = resolve_uri(plan.tracking_uri)
    env = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": parent.experiment}
    return Order(
        storage=plan.storage,
        study=definition.name,
        objective=definition.objective,
        pruning_metric=f"{definition.split}/accuracy",
        runs=folder,
        command=plan.command,
        env={**env, **share.env(processes)},
        knobs={name: some.params()[name] for name in OPERATIONAL} | threads,
        tracking_uri=uri,
        parent_run_id=parent.run_id,
        grace=plan.grace,
        search=definition.search,
        base=definition.base,
        seed=definition.seeds[0],
        driver=os.getpid(),
    )
