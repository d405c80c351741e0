"""What a study itself costs: trials that do nothing, on a real PostgreSQL.

    python benchmarks/study_overhead.py --json benchmarks/2026-11-23-study-overhead.json

Two figures. `rate`: 200 trials by 8 workers, each trial a process (a bare interpreter that writes a result
file); trials per minute from the first claim to the last close, and with the workers' start. `growth`: one
worker, 1,000 trials without a process; seconds per trial around the 100th against around the 1,000th.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from unittest.mock import patch

import optuna
import sqlalchemy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from imagenette.results import Status
from imagenette.study import worker
from imagenette.training.job import Result
from tests.study.databases import Postgres
from tests.study.study_helpers import Study, grid

REPEATS = 3
NOTHING = Result(status=Status.FINISHED, metrics={"selected/holdout_accuracy": 0.5})


def rate(url: str, folder: Path, *, trials: int, workers: int) -> dict[str, float]:
    """Workers as processes, each trial a process of its own."""
    study = Study(url, folder, grid(trials), grace=60.0)
    began = time.monotonic()
    study.start(workers, STUB_SECONDS="0")
    codes = study.wait(300)
    ended = time.monotonic()
    assert codes == [0] * workers, study.said()
    rows = study.queue.rows()
    assert {row.state for row in rows} == {Status.FINISHED}
    assert len(study.trials(optuna.trial.TrialState.COMPLETE)) == trials
    started = min(row.started or 0 for row in rows)
    busy = max((row.started or 0) + (row.seconds or 0) for row in rows) - started
    study.storage.engine.dispose()
    return {"per_minute": 60 * trials / busy, "per_minute_with_start_up": 60 * trials / (ended - began)}


def growth(url: str, folder: Path, *, trials: int) -> list[float]:
    """Seconds of each trial in turn: claimed, opened, closed; nothing is trained."""
    study = Study(url, folder, grid(trials), grace=60.0)
    ends: list[float] = []

    def nothing(*args: object, **kwargs: object) -> Result:
        ends.append(time.perf_counter())
        return NOTHING

    with patch.object(worker, "run_training", nothing):
        began = time.perf_counter()
        worker.work(study.order, threading.Event())
    study.storage.engine.dispose()
    times = [began, *ends]
    return [after - before for before, after in itertools.pairwise(times)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        postgres = Postgres(folder / "pg")
        rates = []
        for turn in range(REPEATS):
            (folder / f"rate{turn}").mkdir()
            rates.append(rate(postgres.database(), folder / f"rate{turn}", trials=200, workers=8))
        each = growth(postgres.database(), folder, trials=1000)
        early, late = statistics.median(each[50:150]), statistics.median(each[900:])
        postgres.server.cleanup()
    figures = {
        "date": date.today().isoformat(),
        "machine": f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}",
        "python": platform.python_version(),
        "versions": {"optuna": optuna.__version__, "sqlalchemy": sqlalchemy.__version__, "postgresql": "18"},
        "rate": {"trials": 200, "workers": 8, "repeats": rates},
        "per_minute_median": statistics.median(r["per_minute"] for r in rates),
        "per_minute_with_start_up_median": statistics.median(r["per_minute_with_start_up"] for r in rates),
        "growth": {
            "milliseconds_per_trial_50_to_150": 1000 * early,
            "milliseconds_per_trial_900_to_1000": 1000 * late,
            "ratio": late / early,
        },
    }
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
