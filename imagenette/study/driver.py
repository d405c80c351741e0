"""`imagenette study`: one study on this machine, from its definition to its last cell.

definition -> checked against the data and against what the database holds -> rows -> workers, who do the
rest; meanwhile here: the view, the parent run in MLflow, dead workers replaced, lost cells freed. Several
machines may each run this on the same study. Only drivers and trainings talk to MLflow, workers never.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from imagenette.config import Config
from imagenette.errors import EXIT_DONE, EXIT_FAILED, EXIT_PREEMPTED, EXIT_UNSYNCED
from imagenette.files import write_whole
from imagenette.launch import stop_requests
from imagenette.study.checks import check_data, check_facts, check_same, facts, planned, processes_of
from imagenette.study.crew import Crew, Share, share_out, visible_gpus
from imagenette.study.definition import Definition
from imagenette.study.page import Page, describe
from imagenette.study.queue import Queue, Row, StudyRecord, Watch, Worker
from imagenette.study.show import missing_line, watching
from imagenette.study.storage import Patience, open_storage, open_study, said_in_one_line
from imagenette.study.trainer import Outcome
from imagenette.study.trials import Trials
from imagenette.study.worker import Order, close, take_back
from imagenette.tracking.client import resolve_uri
from imagenette.tracking.parent import StudyRun

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
    shares = share_out(plan.workers, cores=len(os.sched_getaffinity(0)), gpus=visible_gpus())
    digests = check_data(definition, shares)
    storage = open_storage(plan.storage)
    with said_in_one_line():
        study_id = open_study(storage, definition.name)
        queue = Queue(storage.engine, study_id)
        check_same(definition, queue.rows())
        record = queue.introduce(definition.name, facts(definition))
        check_facts(definition, record)
        queue.update_record(facts=facts(definition))  # arms and seeds may have been added
        queue.fill(planned(definition))
        if plan.retry_failed:
            queue.retry_failed()
        folder = plan.runs.resolve() / f"{definition.name}-{record.uid[:8]}"
        trials = Trials(storage, study_id, search=definition.search)
        parent = open_parent(definition, plan, record, folder, queue.rows())
        queue.update_record(parent_run_id=parent.run_id)
        reuse(definition, queue, trials, parent, digests)
        announce(definition, plan, queue.rows(), folder)
    orders = [order(definition, plan, share, parent, folder) for share in shares]
    page = Page(definition, parent, folder)
    with stop_requests() as stopping:
        rows = drive(definition, plan, queue, trials, page, orders, folder, stop=lambda: bool(stopping))
        return end(definition, plan, page, rows, stopped=bool(stopping))


def drive(
    definition: Definition,
    plan: Plan,
    queue: Queue,
    trials: Trials,
    page: Page,
    orders: Sequence[Order],
    folder: Path,
    *,
    stop: Callable[[], bool],
) -> list[Row]:
    """Until every cell has ended, or somebody asks to stop, or no worker can be kept alive; the rows then."""
    watch, patience = Watch(plan.grace), Patience(stop)
    with watching(definition.name) as view:
        rows = patience(queue.rows)
        view.update(rows)
        with Crew.of(orders if any(not row.ended for row in rows) else [], folder) as crew:
            while True:
                began = time.monotonic()
                rows = patience(queue.rows, away=watch.forget)
                took = time.monotonic() - began
                view.update(rows, workers_alive=crew.alive)
                record_failures(definition, queue, page.parent, rows, patience)
                page.refresh(rows)
                if all(row.ended for row in rows) or stop() or crew.over:
                    break
                take_back(queue, watch, patience)
                crew.mend()
                time.sleep(max(GLANCE, min(20 * took, 2.0)))
            crew.stop()
        rows = patience(queue.rows)
        patience(lambda: trials.reconcile(rows))
        record_failures(definition, queue, page.parent, rows, patience)
        view.update(rows, workers_alive=0)
    return rows


def end(definition: Definition, plan: Plan, page: Page, rows: Sequence[Row], *, stopped: bool) -> int:
    """Close the parent run, say what is missing, and give the exit code."""
    failed = any(row.state == "failed" for row in rows)
    said = missing_line(definition.name, rows, command=plan.again)
    if all(row.state in ("done", "pruned") for row in rows):
        status, code = "finished", EXIT_DONE
    elif failed and all(row.ended for row in rows):
        status, code = "failed", EXIT_FAILED
    else:
        status, code = ("preempted", EXIT_PREEMPTED) if stopped else ("failed", EXIT_FAILED)
    elsewhere = any(row.state == "running" for row in rows)
    known = page.refresh(rows, now=True) if elsewhere else page.end(rows, status, "" if code == 0 else said)
    unsynced = [row for row in rows if row.unsynced and row.state != "failed"]
    if code == EXIT_DONE and (unsynced or not known):
        folders = " ".join(sorted({str(Path(row.output or "").parent) for row in unsynced}))
        lacking = f"`imagenette sync {folders}` sends what is missing" if unsynced else "run it again"
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
    write_whole(source, definition.source)
    varied = {name: ", ".join(map(str, values)) for name, values in definition.factors.items()}
    if definition.search:
        varied = {name: str(space) for name, space in definition.search.space.items()}
    return StudyRun.open(
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
        files=[source],
    )


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
            run_id = parent.add_reused(name=row.cell, arm=row.arm, source=source, trial=trial.number)
            queue.note(row, trial=trial.number, trial_id=trial.trial_id, reused=source.run_id)
            names = ("best/", "selected/", "final/")
            metrics = {name: value for name, value in source.metrics.items() if name.startswith(names)}
            outcome = Outcome(status="finished", metrics=metrics, run_id=run_id)
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
    processes = processes_of(some, share)
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
        knobs={} if some.workers else {"workers": str(max(1, share.threads // processes))},
        tracking_uri=uri,
        parent_run_id=parent.run_id,
        grace=plan.grace,
        search=definition.search,
        base=definition.base,
        seed=definition.seeds[0],
        driver=os.getpid(),
    )


# -- while it runs ------------------------------------------------------------------------------------


def record_failures(
    definition: Definition, queue: Queue, parent: StudyRun, rows: Sequence[Row], patience: Patience
) -> None:
    """Have MLflow know why a training of this machine failed that could not say so itself."""
    here = Worker.here().host
    for row in rows:
        if row.state != "failed" or row.marked or row.host != here:
            continue
        run_id = parent.record_failure(
            name=row.cell,
            arm=row.arm,
            seed=str(row.values.get("seed", definition.seeds[0])),
            trial=row.trial,
            reason=row.reason or "unknown",
            output=Path(row.output) if row.output else None,
            run_id=row.run_id,
            uid=f"{parent.uid}:{row.cell}:{row.attempt}",
        )
        if run_id:
            patience(partial(queue.mark, row, run_id))
