"""What a study itself costs: trials that do nothing, on a real PostgreSQL.

    python benchmarks/study_overhead.py --json FILE

Two figures. `rate`: 200 trials by 8 workers, each trial a process (a bare interpreter that writes a result
file); trials per minute from the first claim to the last close, and with the workers' start. `growth`: one
worker, 1,000 trials without a process; milliseconds per trial, the 50th to 150th against the last hundred.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest.mock import patch

import _common
import optuna

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
    parser = _common.parser(__doc__, rounds=REPEATS)
    parser.add_argument(
        "--trials", type=int, default=200, help="of each round of `rate`; `growth` has five times as many"
    )
    parser.add_argument("--workers", type=int, default=8)
    given = parser.parse_args()
    facts = _common.about("optuna", "sqlalchemy", seeds=[])
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        postgres = Postgres(folder / "pg")
        rates = []
        for turn in range(given.rounds):
            place = folder / f"rate{turn}"
            place.mkdir()
            rates.append(rate(postgres.database(), place, trials=given.trials, workers=given.workers))
        each = growth(postgres.database(), folder, trials=5 * given.trials)
        tenth = len(each) // 10
        early = statistics.median(each[tenth // 2 : tenth // 2 + tenth])
        late = statistics.median(each[-tenth:])
        postgres.server.cleanup()
    figures = {
        "postgresql": "18",
        "rate": {"trials": given.trials, "workers": given.workers, "repeats": rates},
        "per_minute_median": statistics.median(r["per_minute"] for r in rates),
        "per_minute_with_start_up_median": statistics.median(r["per_minute_with_start_up"] for r in rates),
        "growth": {
            "trials": len(each),
            "milliseconds_per_trial_early": 1000 * early,
            "milliseconds_per_trial_last_tenth": 1000 * late,
            "ratio": late / early,
        },
    }
    print(json.dumps(figures, indent=2))
    _common.save(given.json, facts, **figures)


if __name__ == "__main__":
    main()
