"""The rows: claimed by one worker at a time, kept by beating, freed when nobody beats; on both databases."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from imagenette.errors import InputError, RunError, hide_secrets
from imagenette.results import Status
from imagenette.study.identity import Worker
from imagenette.study.ledger import StaleClaims
from imagenette.study.queue import MOST_LOSSES, Queue, Row
from imagenette.study.status import show_status
from imagenette.study.storage import connect, find_queue, open_storage, open_study, resolve_storage
from imagenette.study.trials import Trials, importances
from tests.study.study_helpers import grid


@pytest.fixture
def storage(database):
    storage = open_storage(database)
    yield storage
    storage.engine.dispose()


@pytest.fixture
def queue(storage) -> Queue:
    queue = Queue(storage.engine, open_study(storage, "laws"))
    queue.fill(grid(8))
    return queue


def test_drivers_that_name_the_objective_at_once_agree(database, storage):
    """Also in a study that was opened before it had a name."""
    open_study(storage, "laws")
    barrier, problems = threading.Barrier(6), []

    def drive() -> None:
        own = connect(database)
        trials = Trials(own, open_study(own, "laws"))
        barrier.wait()
        try:
            trials.name_objective("selected/holdout_accuracy")
        except Exception as error:
            problems.append(error)
        own.engine.dispose()

    threads = [threading.Thread(target=drive) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert optuna.load_study(study_name="laws", storage=storage).metric_names == ["selected/holdout_accuracy"]


def worker() -> Worker:
    return replace(Worker.here(), owner=os.urandom(16).hex())


def test_racing_workers_claim_each_cell_once(queue: Queue):
    barrier = threading.Barrier(8)

    def claim(_: int) -> list[str]:
        me, claimed = worker(), []
        barrier.wait()
        while row := queue.claim(me):
            claimed.append(row.cell)
            assert queue.finish(row, Status.FINISHED, value=1.0)
        return claimed

    with ThreadPoolExecutor(8) as pool:
        claims = Counter(cell for cells in pool.map(claim, range(8)) for cell in cells)
    assert claims == Counter(row.cell for row in grid(8))


def test_a_claim_is_its_workers_until_it_ends(queue: Queue):
    me, other = worker(), worker()
    row = queue.claim(me)
    assert row
    assert queue.claim(me) == row  # the answer was lost: asked again, the same
    assert queue.claim(other, cell=row.cell) is None
    stranger = replace(row, owner=other.owner)
    assert not queue.note(stranger, progress=0.5)
    assert not queue.finish(stranger, Status.FINISHED, value=1.0)
    assert queue.note(row, progress=0.5)
    assert queue.finish(row, Status.FINISHED, value=0.5)
    assert queue.finish(row, Status.FINISHED, value=0.5)  # the answer was lost: said again, the same
    assert not queue.finish(row, Status.FAILED, reason="no")
    assert queue.rows()[0].value == 0.5


def test_a_cell_taken_back_is_lost_to_its_worker(queue: Queue):
    me, other = worker(), worker()
    row = queue.claim(me)
    assert row
    assert queue.note(row, progress=0.1)
    assert not queue.take_back(row, "it beat since it was seen so")
    (seen,) = queue.running()
    assert queue.take_back(seen, "frozen")
    assert not queue.note(row, progress=0.2)
    assert not queue.finish(row, Status.FINISHED, value=1.0)
    again = queue.claim(other, cell=row.cell)
    assert again
    assert again.attempt == row.attempt + 1
    assert not queue.finish(row, Status.FINISHED, value=1.0)
    assert queue.finish(again, Status.FINISHED, value=2.0)
    assert queue.rows()[0].value == 2.0


def test_a_cell_that_loses_every_worker_fails(queue: Queue):
    cell = queue.rows()[0].cell
    for attempt in range(MOST_LOSSES):
        assert queue.rows()[0].state == Status.WAITING, attempt
        assert queue.claim(worker(), cell=cell)
        assert queue.take_back(queue.running()[0], "gone")
    assert (queue.rows()[0].state, queue.rows()[0].reason) == (Status.FAILED, "gone")
    assert queue.retry_failed() == 1
    assert queue.rows()[0].losses == 0


def test_filling_again_adds_what_is_new_and_changes_nothing(queue: Queue):
    row = queue.claim(worker())
    assert row
    assert queue.finish(row, Status.FINISHED, value=1.0)
    queue.fill([replace(old, arm="another") for old in grid(10)])
    rows = queue.rows()
    assert len(rows) == 10
    assert (rows[0].state, rows[0].arm) == (Status.FINISHED, row.arm)
    assert queue.unfinished() == 9


def test_reconcile_closes_what_dead_workers_left_open(storage, queue: Queue):
    trials = Trials(storage, open_study(storage, "laws"))
    finished, lost = queue.claim(worker()), queue.claim(worker())
    assert finished
    assert lost
    opened = trials.open(finished, seed=1)
    queue.note(finished, trial=opened.trial, trial_id=opened.trial_id)
    queue.finish(
        finished, Status.FINISHED, value=0.7, run_id="r"
    )  # ...and the worker died before it told Optuna
    trials.open(lost, seed=1)  # ...and this one before it told anybody
    queue.take_back(next(row for row in queue.running() if row.cell == lost.cell), "gone")
    for _ in range(2):  # twice is once
        trials.reconcile(queue.rows)
        one, two = storage.get_all_trials(open_study(storage, "laws"))
        assert (one.state, one.value, one.user_attrs["run_id"]) == (TrialState.COMPLETE, 0.7, "r")
        assert (two.state, two.user_attrs["reason"]) == (TrialState.FAIL, "gone")


def test_reconcile_leaves_running_trials_alone(storage, queue: Queue):
    trials = Trials(storage, open_study(storage, "laws"))
    row = queue.claim(worker())
    assert row
    trials.open(row, seed=1)
    trials.reconcile(queue.rows)
    assert storage.get_all_trials(open_study(storage, "laws"))[0].state == TrialState.RUNNING


def test_reconcile_never_closes_a_trial_younger_than_its_row(storage, queue: Queue):
    """Another machine claims the cell and opens its trial while this one looks at rows read before."""
    trials = Trials(storage, open_study(storage, "laws"))
    opened = []

    def read_rows() -> list[Row]:
        row = queue.claim(worker())
        assert row
        before = [replace(row, state=Status.WAITING, attempt=0, owner=None)]
        opened.append(trials.open(row, seed=1))
        return before

    trials.reconcile(read_rows)
    assert storage.get_trial(opened[0].trial_id).state == TrialState.RUNNING


def running(beat: int, **more: object) -> Row:
    return Row(
        cell="c",
        arm="c",
        position=0,
        values={},
        state=Status.RUNNING,
        attempt=1,
        place="far",
        beat=beat,
        **more,
    )


@given(st.lists(st.tuples(st.floats(0.1, 3), st.booleans()), max_size=30))
def test_only_who_stands_still_for_grace_is_given_up(steps):
    claims, now, beat, stood = StaleClaims(10.0, here="here"), 0.0, 0, 0.0
    claims.find([running(0)], now=0.0)
    for pause, beats in steps:
        now, beat = now + pause, beat + beats
        stood = 0.0 if beats else stood + pause
        given_up = claims.find([running(beat)], now=now)
        assert bool(given_up) == (stood > 10.0)


def test_a_time_in_which_nobody_watched_ages_nobody():
    """The database was away, or the watcher itself was busy or frozen."""
    claims = StaleClaims(10.0, here="here")
    for now in (0.0, 3.0, 100.0, 103.0, 106.0, 109.0):
        assert not claims.find([running(5)], now=now)
    assert claims.find([running(5)], now=110.1)


def test_a_dead_process_of_this_machine_is_given_up_at_once():
    me = Worker.here()
    mine = {"pid": me.pid, "pid_started": me.pid_started}
    claims = StaleClaims(10.0, here="far")
    assert not claims.find([running(0, **mine)], now=0.0)
    reused = {**mine, "pid_started": me.pid_started - 100}  # the same number, another process
    assert claims.find([running(0, **reused)], now=0.0)
    assert not StaleClaims(10.0, here="elsewhere").find([running(0, **reused)], now=0.0)


@pytest.mark.parametrize(
    "text", ["postgres://me:secret@h/db", "mysql://me:secret@h/x", "postgresql://h/x?user=me&password=secret"]
)
def test_no_message_shows_a_password(text):
    assert "secret" not in hide_secrets(text)
    if not text.startswith("postgresql"):
        with pytest.raises(InputError) as error:
            resolve_storage(text)
        assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["mysql://a/b", "optuna.db", "sqlite://", "redis://x", "postgresql+x"])
def test_other_storages_are_refused_in_one_line(url):
    with pytest.raises(InputError, match=r"^storage=.*must be sqlite:///FILE or postgresql://") as error:
        resolve_storage(url)
    assert "\n" not in str(error.value)


def test_a_dead_database_is_one_line_without_its_password():
    with pytest.raises(RunError, match="does not answer") as error:
        open_storage("postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_database_of_optuna_s_alone_holds_no_study_of_ours(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    for name in (None, "theirs"):
        sqlite3.connect(tmp_path / "optuna.db").close()  # of nobody's, at first
        with pytest.raises(InputError, match="holds no study of imagenette's yet"):
            show_status(name, url, watch=False)
        optuna.create_study(study_name="theirs", storage=url, load_if_exists=True)


def test_an_unknown_study_names_those_there_are(storage, queue: Queue):
    with pytest.raises(InputError, match=r"study nope: not in .*; there are: laws"):
        find_queue(storage, "nope")


def test_a_study_that_has_another_form_alone_is_asked_after(storage, queue: Queue):
    with pytest.raises(InputError, match=r"did you mean laws\? There are: laws"):
        find_queue(storage, "laws-smoke")


def test_importances_find_the_knob_that_matters():
    rows = [
        replace(row, state=Status.FINISHED, value=row.values["lr"] + 0.001 * (row.position % 2), attempt=1)
        for row in grid(16)
    ]
    shares = importances(rows)
    assert shares["lr"] > 0.95
    assert set(shares) == {"lr", "seed"}
    assert importances(rows[:4]) == {}  # one rate, four seeds: nothing to compare


def test_the_database_says_done_of_a_finished_cell(storage, queue: Queue):
    """So it did before, and other programs may read it."""
    row = queue.claim(worker())
    assert row
    assert queue.finish(row, Status.FINISHED, value=1.0)
    with storage.engine.connect() as db:
        words = (
            db.exec_driver_sql("SELECT DISTINCT state FROM imagenette_cells ORDER BY state").scalars().all()
        )
    assert words == ["done", "waiting"]
    assert (queue.rows()[0].state, queue.rows()[0].word) == (Status.FINISHED, "done")


def test_racing_drivers_agree_on_one_parent(queue: Queue):
    queue.open_record("laws", {})
    barrier = threading.Barrier(8)

    def register(replaced: str | None, run_id: str) -> str:
        barrier.wait()
        return queue.set_parent(replaced, run_id)

    for replaced, runs in ((None, "abcdefgh"), ("winner", "ijklmnop")):
        with ThreadPoolExecutor(8) as pool:
            (winner,) = set(pool.map(lambda run, old=replaced: register(old, run), runs))
        assert winner in runs
        assert queue.set_parent(winner, winner) == winner  # an answer was lost: asked again, the same
        assert queue.set_parent("stale", "late") == winner
        assert queue.set_parent(winner, "winner") == "winner"
