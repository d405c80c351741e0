"""Whatever happens to workers and to the database: every cell ends with exactly one finished trial.

One seed of each experiment here; `make test-slow` runs ten of each (docs/studies.md has the result).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from imagenette.results import Status
from imagenette.study.queue import Row
from tests.study.databases import Postgres
from tests.study.study_helpers import Study, grid
from tests.waiting import wait_until

CELLS, WORKERS = 24, 6
SEEDS = [pytest.param(1), *(pytest.param(s, marks=pytest.mark.slow) for s in range(2, 11))]


@pytest.fixture
def start_study(tmp_path: Path) -> Iterator[Callable[[str], Study]]:
    studies: list[Study] = []

    def start(url: str) -> Study:
        studies.append(Study(url, tmp_path, grid(CELLS)))
        studies[-1].start(WORKERS, STUB_SECONDS="0.3")
        return studies[-1]

    yield start
    for study in studies:
        study.kill()
        study.storage.engine.dispose()


def freeze_one(study: Study, candidates: list[int]) -> tuple[int, Row]:
    """Stop a worker in the middle of a cell, outside any transaction."""
    while True:
        for row in study.queue.running():
            if row.pid not in candidates:
                continue
            os.kill(row.pid, signal.SIGSTOP)
            time.sleep(0.3)  # what it had sent before is done by then
            held = study.rows()[row.cell]
            if held.state == Status.RUNNING and held.attempt == row.attempt and not writing(study):
                return row.pid, row
            os.kill(row.pid, signal.SIGCONT)


def writing(study: Study) -> bool:
    """Whether somebody sits on SQLite's one write lock: frozen there, a worker would freeze all others."""
    if not study.url.startswith("sqlite"):
        return False
    with contextlib.closing(sqlite3.connect(study.url.removeprefix("sqlite:///"), timeout=1)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


def kill_two_and_freeze_one(study: Study, rng: random.Random) -> tuple[int, Row]:
    """At moments that the seed chooses; the frozen worker's pid and its cell."""
    wait_until(lambda: len(study.lines("ended")) >= rng.randint(1, 4))
    rng.shuffle(study.workers)
    for worker in study.workers[:2]:
        time.sleep(rng.uniform(0, 0.4))
        worker.kill()
    return freeze_one(study, [worker.pid for worker in study.workers[2:]])


def wake_past_grace(study: Study, pid: int, cell: Row) -> None:
    """Once somebody else has taken its cell."""
    wait_until(lambda: study.rows()[cell.cell].attempt > cell.attempt)
    os.kill(pid, signal.SIGCONT)


def check_exactly_once(study: Study) -> None:
    codes = study.wait()
    assert sorted(codes) == [-9, -9, 0, 0, 0, 0], study.said()
    rows = study.rows()
    assert {row.state for row in rows.values()} == {Status.FINISHED}
    done = study.trials(TrialState.COMPLETE)
    assert sorted(trial.user_attrs["cell"] for trial in done) == sorted(rows)
    assert {row.trial for row in rows.values()} == {trial.number for trial in done}
    assert all(trial.value == rows[trial.user_attrs["cell"]].value for trial in done)
    others = [trial for trial in study.trials() if trial not in done]
    assert {trial.state for trial in others} == {TrialState.FAIL}  # and none is left RUNNING
    assert all(trial.user_attrs["reason"] for trial in others)
    assert sorted(study.lines("ended")) == sorted(rows)  # no training ran to its end twice either


@pytest.mark.parametrize("seed", SEEDS)
def test_two_killed_one_frozen(start_study, database, seed):
    study = start_study(database)
    frozen = kill_two_and_freeze_one(study, random.Random(seed))
    wake_past_grace(study, *frozen)
    check_exactly_once(study)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outage", "seed"),
    [
        *(pytest.param(10.0, s, id=f"down for 10 s-{s}") for s in range(1, 11)),
        *(pytest.param(0.0, s, id=f"restarted-{s}") for s in range(1, 11)),
    ],
)
def test_two_killed_one_frozen_and_the_database_away(start_study, postgres: Postgres, outage, seed):
    study = start_study(postgres.database())
    frozen = kill_two_and_freeze_one(study, random.Random(seed))
    postgres.stop()
    time.sleep(outage)
    postgres.start()
    wake_past_grace(study, *frozen)
    check_exactly_once(study)
