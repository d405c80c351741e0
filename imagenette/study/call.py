"""`imagenette study` as a function: `from imagenette import study`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from imagenette.config import canonical
from imagenette.errors import EXIT_DONE, EXIT_UNSYNCED, RunError
from imagenette.report.frame import runs
from imagenette.study.definition import Form, load
from imagenette.study.driver import Plan, run_study
from imagenette.study.storage import resolve_storage
from imagenette.tracking import environment


def study(
    name: str,
    *,
    workers: int = 1,
    form: Form = "full",
    label: str | None = None,
    storage: str | None = None,
    output: str | Path = "runs",
    retry_failed: bool = False,
    **knobs: Any,
) -> pd.DataFrame:
    """Run a study, or go on with it, as `imagenette study` does; the frame of its `runs`.

        frame = study("weight-decay", form="smoke", workers=2)
        frame.groupby("arm")["selected/test_accuracy"].agg(["mean", "std"])

    name: of studies/, or a TOML file. form: `full`, `small` or `smoke`. storage: Optuna's database, else
    OPTUNA_STORAGE's, else optuna.db. knobs: over the study's base, for every cell. InputError before anything
    is made or changed; RunError where a cell is not done: the same call goes on.
    """
    given = {knob: canonical(value) for knob, value in knobs.items()}
    definition = load(name, overrides=given, form=form, label=label)
    plan = Plan(
        storage=resolve_storage(storage),
        workers=workers,
        tracking_uri=environment.tracking_uri(),
        experiment=environment.named_experiment(),
        runs=Path(output),
        retry_failed=retry_failed,
    )
    if run_study(definition, plan) not in (EXIT_DONE, EXIT_UNSYNCED):
        raise RunError(f"{definition.name}: not every cell is done; the same call goes on")
    return runs(definition.name)
