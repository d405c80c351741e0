"""One worker and what surrounds it: a tracking server that goes away, a search that asks its sampler."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
from optuna.trial import TrialState

from imagenette.results import Status
from imagenette.study.queue import Row
from imagenette.study.schema import Range, Search
from tests.study.study_helpers import Study, grid
from tests.waiting import wait_until


class Healthy(BaseHTTPRequestHandler):
    """All of a tracking server that a worker ever asks."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def serve(port: int = 0) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", port), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_without_its_tracking_server_a_study_waits_and_fails_nothing(tmp_path: Path):
    server = serve()
    port = server.server_port
    (row,) = grid(1)
    uri = f"http://127.0.0.1:{port}"
    study = Study(f"sqlite:///{tmp_path}/optuna.db", tmp_path, [row], tracking_uri=uri)
    (worker,) = study.start(STUB_SECONDS="2", STUB_UNTRACKED=row.cell)
    wait_until(lambda: study.lines("began"))
    server.shutdown()
    server.server_close()
    wait_until(
        lambda: study.rows()[row.cell].state == Status.WAITING
    )  # what died then is given back, not failed
    assert study.rows()[row.cell].losses == 1
    time.sleep(8)
    assert study.rows()[row.cell].attempt == 1  # and not tried again before the server is back
    worker.kill()
    study.workers.clear()
    server = serve(port)
    study.start()
    assert study.wait() == [0]
    server.shutdown()
    assert study.rows()[row.cell].state == Status.FINISHED
    assert "the study waits" in study.said()


def test_a_stop_that_reaches_everybody_at_once_fails_nothing(tmp_path: Path):
    """As a batch system's or a container's does."""
    (row,) = grid(1)
    study = Study(f"sqlite:///{tmp_path}/optuna.db", tmp_path, [row])
    (worker,) = study.start(STUB_SECONDS="30")
    wait_until(lambda: study.lines("began"))
    (training,) = psutil.Process(worker.pid).children()
    worker.terminate()
    training.terminate()
    assert study.wait() == [75]
    assert study.rows()[row.cell].state == Status.WAITING


def test_a_worker_outlives_what_it_cannot_do(tmp_path: Path):
    """Free text is no dimension of Optuna's, a seed may be large; what still goes wrong fails one cell."""
    rows = grid(4)
    values: list[dict[str, object]] = [{"data": "digits"}, {"data": "more/digits"}, {"seed": 2**50}, {}]
    rows = [replace(r, values=r.values | v) for r, v in zip(rows, values, strict=True)]
    rows[3] = replace(rows[3], config={"depth": 19})
    study = Study(f"sqlite:///{tmp_path}/optuna.db", tmp_path, rows)
    study.start()
    assert study.wait() == [0]
    ended = study.queue.rows()
    assert [row.state for row in ended] == [*[Status.FINISHED] * 3, Status.FAILED]
    assert "depth" in (ended[3].reason or "")
    assert not study.trials(TrialState.RUNNING)


def test_a_search_asks_its_sampler_and_a_trial_given_back_keeps_its_values(tmp_path: Path):
    space = {"lr": Range(low=0.01, high=1.0, log=True)}
    search = Search(trials=6, sampler="tpe", space=space, seed=1)
    rows = [Row(cell=f"trial {i}", arm=f"trial {i}", position=i, values={}) for i in range(6)]
    url = f"sqlite:///{tmp_path}/optuna.db"
    study = Study(url, tmp_path, rows, search=search, base={"data": "digits"}, seed=5)
    study.start(STUB_SECONDS="0.5")
    wait_until(lambda: len(study.lines("ended")) == 2 and len(study.lines("began")) == 3)
    study.workers[0].kill()
    before = next(row for row in study.rows().values() if row.state == Status.RUNNING)
    study.start(2, STUB_SECONDS="0")
    assert study.wait() == [-9, 0, 0]
    ended = study.rows()
    assert {row.state for row in ended.values()} == {Status.FINISHED}
    assert ended[before.cell].values == before.values
    assert ended[before.cell].attempt == 2
    rates = [row.values["lr"] for row in ended.values()]
    assert len(set(rates)) == 6  # workers do not all try the same
    assert all(0.01 <= rate <= 1 for rate in rates)
    done = study.trials(TrialState.COMPLETE)
    assert sorted(trial.params["lr"] for trial in done) == sorted(rates)
    assert {row.values["seed"] for row in ended.values()} == {5}
    assert all(row.config and row.config["lr"] == row.values["lr"] for row in ended.values())
