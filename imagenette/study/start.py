"""What a driver does before its first worker starts: it opens the study's parent run in MLflow, closes the
cells that were trained before, and tells each worker what it must know."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imagenette.config import OPERATIONAL, Config
from imagenette.errors import hide_secrets
from imagenette.files import write_whole
from imagenette.results import Status, summary_of
from imagenette.study.crew import Share
from imagenette.study.definition import Definition
from imagenette.study.identity import Worker
from imagenette.study.ledger import Ledger, Lost
from imagenette.study.page import describe
from imagenette.study.queue import Row, StudyRecord
from imagenette.study.worker import Order
from imagenette.tracking.client import resolve_uri
from imagenette.tracking.parent import StudyRun
from imagenette.tracking.study_plan import OUTLINE
from imagenette.training.job import Result
from imagenette.training.readiness import process_count


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where and how a study runs: what does not belong to its definition."""

    storage: str
    workers: int = 1
    tracking_uri: str | None = None
    experiment: str | None = None
    """MLflow's; None = the usual one, and runs of any are reused."""
    runs: Path = Path("runs")
    """Folder of the study's folder."""
    retry_failed: bool = False
    grace: float = 60.0
    """Seconds without a sign of life after which a worker is given up for dead."""
    command: tuple[str, ...] = (sys.executable, "-m", "imagenette", "train")
    """What trains one cell, before its options."""
    again: str | None = None
    """The command line that goes on with this study, for messages."""


def open_parent(
    definition: Definition, plan: Plan, record: StudyRecord, folder: Path, ledger: Ledger
) -> StudyRun:
    """The study's run in MLflow, the same for every driver, with the study's files."""
    rows = ledger.queue.rows()
    folder.mkdir(parents=True, exist_ok=True)
    source, outline = folder / f"{definition.name}.toml", folder / OUTLINE
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
            **({"baseline_seeds": ", ".join(map(str, own))} if (own := definition.baseline_seeds) else {}),
            **{f"varied.{name}": text for name, text in varied.items()},
            **{f"base.{name}": str(value) for name, value in definition.base.items()},
        },
        tags={"selection": definition.split},
        description=describe(definition, rows, {}),
        known_run_id=record.parent_run_id,
        register=lambda replaced, run_id: ledger.patience(lambda: ledger.queue.set_parent(replaced, run_id)),
        files=[source, outline],
    )
    if record.parent_run_id not in (None, parent.run_id):
        where = hide_secrets(resolve_uri(plan.tracking_uri))
        print(
            f"imagenette: parent run {record.parent_run_id} is not on {where}: made again there",
            file=sys.stderr,
        )
    return parent


def reuse(ledger: Ledger, parent: StudyRun, digests: Mapping[str, str]) -> None:
    """Close the cells that were trained before, in another study or alone: same config, same data."""
    waiting = {
        Config.model_validate(row.config): row
        for row in ledger.queue.rows()
        if row.state == Status.WAITING and row.config is not None
    }
    me = Worker.here()
    for data, data_digest in digests.items():
        cells = {config.digest(): row for config, row in waiting.items() if config.data == data}
        found = parent.reusable(cells, data_digest=data_digest) if cells else {}
        for digest, source in found.items():
            claimed = ledger.queue.claim(me, cell=cells[digest].cell)
            if claimed is None:  # somebody trains it this very moment
                continue
            row = ledger.trials.open(claimed, seed=0)
            assert row.trial is not None
            known = {"trial": row.trial, "trial_id": row.trial_id}
            if source.data.tags.get("mlflow.parentRunId") == parent.run_id:
                run_id = source.info.run_id  # our own: its worker was lost before it could write its end down
            else:
                run_id = parent.add_reused(name=row.cell, arm=row.arm, source=source, trial=row.trial)
                known["reused"] = source.info.run_id
            ledger.queue.note(row, **known)
            metrics = summary_of(source.data.metrics)
            with suppress(Lost):
                ledger.close(row, Result(status=Status.FINISHED, metrics=metrics, run_id=run_id))


def announce(
    definition: Definition, plan: Plan, rows: Sequence[Row], folder: Path, *, page: str | None
) -> None:
    left = sum(not row.ended for row in rows)
    what = "trials" if definition.search else "cells"
    who = f"{plan.workers} worker{'s' * (plan.workers > 1)}"
    print(f"{definition.name}: {left} of {len(rows)} {what} to go, {who}, runs in {folder}", file=sys.stderr)
    if page:
        print(f"{definition.name}: its runs in MLflow: {page}", file=sys.stderr)
    if definition.reads_test:
        warning = f"the objective {definition.objective} is measured on the test set: it flatters"
        print(f"{definition.name}: {warning}", file=sys.stderr)


def order(definition: Definition, plan: Plan, share: Share, parent: StudyRun, folder: Path) -> Order:
    """What one worker must know."""
    some = definition.configs()[0]
    processes = process_count(some, gpus=share.processes)
    threads = {} if some.workers else {"workers": str(max(1, share.threads // processes))}
    uri = resolve_uri(plan.tracking_uri)
    env = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": parent.experiment}
    return Order(
        storage=plan.storage,
        study=definition.name,
        objective=definition.objective,
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
