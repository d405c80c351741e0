"""One server with PostgreSQL, as a user starts it: it works, nothing that it acknowledged is lost whoever is
killed, its backup is all of it, and it stops without a trace. Real processes, from top to bottom."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import mlflow
import optuna
import psutil
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from imagenette.server.folder import Folder
from imagenette.server.postgres import _private, socket_folder
from imagenette.study.storage import open_storage
from tests.server.served import COMMAND, Served, run
from tests.waiting import wait_until

START = 30.0  # seconds in which a server comes up on two cores that have nothing else to do


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Served]:
    served = Served(place / "with a space", AWS_SECRET_ACCESS_KEY="pl4nted")
    yield served
    served.kill()


@pytest.fixture
def running(served: Served) -> Served:
    """With the run that the first test leaves in it, also where only slow tests were selected."""
    if served.starts == 0:
        test_it_comes_up_on_nothing_and_both_lines_work(served)
    return served


def idle() -> bool:
    return os.getloadavg()[0] < (os.cpu_count() or 1)


def test_it_comes_up_on_nothing_and_both_lines_work(served: Served) -> None:
    was_idle = idle()
    took = served.start()
    print(f"fresh start: {took:.1f} s")
    assert took < START or not was_idle
    assert len(served.out.splitlines()) == 2, "standard output is for a shell"
    assert f"MLflow at {served.uri}" in served.err
    assert served.env["MLFLOW_TRACKING_URI"] == served.uri
    again = run("env", "--dir", served.folder)
    assert (again.stdout, again.stderr) == (served.out, "")

    client = MlflowClient(served.uri)
    created = client.create_run("0")
    client.log_text(created.info.run_id, "kept", "words/first.txt")
    storage = open_storage(served.env["OPTUNA_STORAGE"])  # as `imagenette study` does
    study = optuna.create_study(study_name="first", storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    shown = httpx.get(f"http://127.0.0.1:{served.dashboard_port}/api/studies").json()
    assert [row["study_name"] for row in shown["study_summaries"]] == ["first"]
    command = [sys.executable, "-m", "imagenette", "status"]
    done = subprocess.run(command, env={**os.environ, **served.env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_this_machine_and_this_user_get_in(served: Served) -> None:
    assert (
        httpx.get(f"{served.uri}/api/2.0/mlflow/experiments/search", headers={"Host": "evil.com"}).status_code
        == 403
    )
    listening = {
        c.laddr for p in served.left() for c in p.net_connections() if c.status == psutil.CONN_LISTEN
    }
    assert {address.port for address in listening} == {served.port, served.dashboard_port}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert stat.S_IMODE(served.folder.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
    for path in served.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_keys_of_its_environment_are_in_no_file_or_command_line(served: Served) -> None:
    lines = [" ".join(process.cmdline()) for process in served.left()]
    assert len(lines) > 5
    assert not any("pl4nted" in line for line in lines)
    assert "pl4nted" not in served.out + served.err
    for path in served.folder.rglob("*"):
        with suppress(OSError):  # PostgreSQL's come and go, folders, its socket
            assert b"pl4nted" not in path.read_bytes(), path


def test_a_second_server_on_the_folder_is_refused_by_the_pid_of_the_first(served: Served) -> None:
    assert served.process is not None
    done = run("--dir", served.folder, "--port", 0, "--dashboard-port", 0, code=2)
    assert f"is in use by process {served.process.pid}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_it_comes_up_though_postgresql_is_killed_before_there_are_tables(place: Path) -> None:
    served = Served(place / "early")

    def kill() -> None:
        wait_until(lambda: served.process and served.parts("open_storage"), 90)  # it makes them
        served.part("bin/postgres").kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        served.start()
        killer.join()
        for said in ("PostgreSQL died (killed by SIGKILL): started again", "PostgreSQL answers again"):
            assert served.err.count(said) == 1
        assert optuna.get_all_study_names(served.env["OPTUNA_STORAGE"]) == []
        assert served.stop() == 0
    finally:
        served.kill()


class Writer(threading.Thread):
    """Writes one thing after the other, each again until it is acknowledged."""

    def __init__(self, write: Any) -> None:
        super().__init__(daemon=True)
        self.write, self.acknowledged, self.over = write, 0, False

    def run(self) -> None:
        while not self.over:
            try:
                self.write(self.acknowledged + 1)
            except Exception:
                time.sleep(0.1)
            else:
                self.acknowledged += 1
                time.sleep(0.01)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_whoever_is_killed(running: Served) -> None:
    served = running
    client = MlflowClient(served.uri)
    run_id = client.create_run("0").info.run_id
    env = served.env

    def log(number: int) -> None:
        body = {"run_id": run_id, "key": "m", "value": number / 7, "timestamp": number, "step": number}
        httpx.post(f"{served.uri}/api/2.0/mlflow/runs/log-metric", json=body, timeout=10).raise_for_status()

    study = optuna.create_study(study_name="kept", storage=open_storage(env["OPTUNA_STORAGE"]))
    told: dict[int, float] = {}

    def tell(number: int) -> None:
        trial = study.ask()
        study.tell(trial, number / 7)
        told[trial.number] = number / 7

    writers = [Writer(log), Writer(tell)]
    for writer in writers:
        writer.start()

    def goes_on() -> None:
        before = [writer.acknowledged for writer in writers]
        wait_until(lambda: all(w.acknowledged > b + 5 for w, b in zip(writers, before, strict=True)), 120)

    def back(name: str, count: int) -> bool:
        return served.err.count(f"{name} answers again") == count

    goes_on()
    for word, name in (
        ("bin/postgres", "PostgreSQL"),
        ("mlflow server", "MLflow"),
        ("imagenette.stack.dashboard", "Optuna's dashboard"),
    ):
        began = time.monotonic()
        served.part(word).kill()
        wait_until(lambda name=name: back(name, 1), 120)  # type: ignore[misc]
        print(f"{name}: back after {time.monotonic() - began:.1f} s")
        assert served.err.count(f"{name} died (killed by SIGKILL): started again in 1 s") == 1
        goes_on()

    worker = max(served.part("mlflow server").children(recursive=True), key=lambda p: p.memory_info().rss)
    began = time.monotonic()
    worker.kill()
    wait_until(lambda: f"process {worker.pid} of MLflow died: it starts another" in served.err, 30)
    goes_on()
    print(f"MLflow's worker: going on after {time.monotonic() - began:.1f} s")

    assert served.process is not None
    began = time.monotonic()
    served.process.kill()
    served.process.wait()
    served.start()
    print(f"the server itself: up again {time.monotonic() - began:.1f} s after kill -9")
    goes_on()

    for writer in writers:
        writer.over = True
    for writer in writers:
        writer.join(30)
    history = client.get_metric_history(run_id, "m")
    count = writers[0].acknowledged
    assert count > 50
    kept = sorted((m.step, m.value) for m in history if m.step <= count)
    assert kept == [(number, number / 7) for number in range(1, count + 1)]
    complete = {t.number: t.value for t in study.get_trials(states=[TrialState.COMPLETE])}
    assert {number: complete.get(number) for number in told} == told
    print(f"acknowledged: {count} metrics, {len(told)} trials")
    shown = f"http://127.0.0.1:{served.dashboard_port}/api/studies"
    wait_until(
        lambda: httpx.get(shown).status_code == 200, 10
    )  # the first may meet a connection that is gone


def content(uri: str, storage: str) -> dict[str, Any]:
    """All that somebody could ask for."""
    client, said = MlflowClient(uri), {}
    for found in client.search_runs(["0"]):
        run_id = found.info.run_id
        said[run_id] = [
            found.to_dictionary(),
            [m.to_dictionary() for m in client.get_metric_history(run_id, "m")],
            [item.path for item in client.list_artifacts(run_id, "words")],
        ]
    for study in optuna.get_all_study_names(storage):
        said[study] = optuna.load_study(study_name=study, storage=storage).trials_dataframe().to_csv()
    return said


@pytest.mark.slow
def test_a_backup_of_the_running_server_is_all_of_it(running: Served, place: Path, tmp_path: Path) -> None:
    served = running
    before = content(served.uri, served.env["OPTUNA_STORAGE"])
    assert len(before) >= 4
    file = tmp_path / "backup.tar"
    began = time.monotonic()
    run("backup", file, "--dir", served.folder)
    print(f"backup: {time.monotonic() - began:.1f} s")
    assert [p.name for p in tmp_path.iterdir()] == ["backup.tar"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    other = Served(place / "restored")
    began = time.monotonic()
    run("restore", file, "--dir", other.folder)
    print(f"restore: {time.monotonic() - began:.1f} s")
    other.start()
    try:
        assert content(other.uri, other.env["OPTUNA_STORAGE"]) == before
        first = next(run_id for run_id, said in before.items() if said[2:] == [["words/first.txt"]])
        path = MlflowClient(other.uri).download_artifacts(first, "words/first.txt", str(tmp_path))
        assert Path(path).read_text() == "kept"
    finally:
        other.kill()


def gone(folder: Path) -> bool:
    """Removed for good, or at least tried."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def test_a_backup_or_restore_that_is_killed_leaves_nothing_that_looks_whole(
    served: Served, place: Path
) -> None:
    folder = place / "killed"
    folder.mkdir(mode=0o711)
    file = place / "whole.tar"
    run("backup", file, "--dir", served.folder)
    made = {"backup": folder / "b.tar", "restore": folder / "new"}
    for verb, words in {
        "backup": [made["backup"], "--dir", served.folder],
        "restore": [file, "--dir", made["restore"]],
    }.items():
        process = subprocess.Popen([*COMMAND, verb, *map(str, words)], stderr=subprocess.PIPE)
        wait_until(lambda: list(folder.glob(".*.unfinished-*/*")), 60)
        process.kill()
        process.communicate()
        assert not made[verb].exists()
        for unfinished in folder.iterdir():
            assert not (unfinished / "server/server.json").exists()
            wait_until(partial(gone, unfinished), 60)  # what it had started may still write for a moment


def test_it_stops_cleanly_and_leaves_no_process(served: Served) -> None:
    began = time.monotonic()
    assert served.stop(signal.SIGINT) == 0
    print(f"stop: {time.monotonic() - began:.1f} s")
    assert served.left() == []
    assert served.err.splitlines()[-1] == "imagenette: stopping"
    assert (
        "database system is shut down" in (served.folder / "logs/postgres.log").read_text().splitlines()[-1]
    )
    assert "no server runs in" in run("env", "--dir", served.folder).stderr


@pytest.mark.slow
def test_stopped_it_can_be_moved_backed_up_and_started_again(
    running: Served, place: Path, tmp_path: Path
) -> None:
    served = running
    if served.left():
        assert served.stop(signal.SIGINT) == 0
    moved = Served(place / ("moved" * 25))  # too long for a socket in it
    served.folder.rename(moved.folder)
    run("backup", tmp_path / "b.tar", "--dir", moved.folder)
    assert moved.left() == []
    (moved.folder / "postgres/postmaster.pid").write_text(f"{os.getpid()}\n")  # of a machine that lost power
    where = socket_folder(Folder(moved.folder))
    _private(where)
    (where / ".s.PGSQL.5432.lock").write_text(f"{os.getpid()}\n{moved.folder}/postgres\n0\n5432\n{where}\n")
    try:
        was_idle = idle()
        took = moved.start()
        print(f"second start: {took:.1f} s")
        assert took < START or not was_idle
        assert "first" in content(moved.uri, moved.env["OPTUNA_STORAGE"])
        moved.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        assert moved.stop(signal.SIGTERM, seconds=10) == 0, "asked twice: at once"
        assert moved.left() == []
    finally:
        moved.kill()
        shutil.rmtree(socket_folder(Folder(moved.folder)))
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
